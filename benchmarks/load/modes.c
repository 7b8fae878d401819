// What the clients do once they are in.
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOM 10  // members of a room

static char *text;  // what an event carries
static char *event;  // 42["<event>","<text>"]
static size_t event_length;

// Of the events in flight, first in, first out: servers keep the order of one connection.

static void sent_at(struct client *client, double moment) {
    if (client->in_flight == client->ring) {
        unsigned old = client->ring, size = old ? 2 * old : 8;
        double *sent = malloc(size * sizeof *sent);
        for (unsigned i = 0; i < old; i++) sent[i] = client->sent[(client->first + i) % old];
        free(client->sent);
        client->sent = sent;
        client->first = 0;
        client->ring = size;
    }
    client->sent[(client->first + client->in_flight++) % client->ring] = moment;
}

static double answered(struct client *client) {
    double moment = client->sent[client->first];
    client->first = (client->first + 1) % client->ring;
    client->in_flight--;
    return moment;
}

static void counted(long number, double since) {
    if (!load.measuring) return;
    load.count += number;
    histogram_add(&load.latency, now() - since);
}

static bool is(const struct frame *frame, const char *expected, size_t length) {
    return frame->length == length && !memcmp(frame->payload, expected, length);
}

static void unexpected(struct client *client, const struct frame *frame) {
    client_fail(client, "unexpected packet", frame->payload, frame->length);
}

static void make_event(void) {
    const size_t payload = (size_t)load.options.payload;
    text = malloc(payload + 1);
    memset(text, 'x', payload);
    text[payload] = 0;
    event_length = (size_t)asprintf(&event, "42[\"%s\",\"%s\"]", load.options.event, text);
}

// connects

static void connects_begin(void) {
    for (int i = 0; i < load.options.connections; i++) client_start(&load.clients[i]);
}

static void connects_ready(struct client *client) {
    counted(1, client->began);
    client_leave(client);
}

static void connects_closed(struct client *client) {
    if (tokens_left()) client_start(client);
}

// echo, ack, binary: a window of events on each connection

static void echo_send(struct client *client) {
    sent_at(client, now());
    client_send(client, event, event_length);
}

static void ack_send(struct client *client) {
    static char packet[1100000];
    sent_at(client, now());
    int length = snprintf(packet, sizeof packet, "42%ld[\"%s\",\"%s\"]", client->next_ack++, load.options.event, text);
    client_send(client, packet, (size_t)length);
}

static void binary_send(struct client *client) {
    char head[128];
    int length = snprintf(head, sizeof head, "451-[\"%s\",{\"_placeholder\":true,\"num\":0}]", load.options.event);
    sent_at(client, now());
    client_send(client, head, (size_t)length);
    channel_put_frame(&client->channel, BINARY, true, text, (size_t)load.options.payload);
}

static void fill(void (*send)(struct client *)) {
    for (int i = 0; i < load.options.connections; i++) {
        for (int j = 0; j < load.options.window; j++) send(&load.clients[i]);
        channel_flush(&load.clients[i].channel);
    }
}

static void echo_begin(void) {
    make_event();
    fill(echo_send);
}

static void echo_packet(struct client *client, const struct frame *frame) {
    if (!client->in_flight || !is(frame, event, event_length)) {
        unexpected(client, frame);
        return;
    }
    counted(1, answered(client));
    echo_send(client);
}

static void ack_begin(void) {
    make_event();
    fill(ack_send);
}

static void ack_packet(struct client *client, const struct frame *frame) {
    static char expected[1100000];
    long id = client->next_ack - client->in_flight;
    int length = snprintf(expected, sizeof expected, "43%ld[\"%s\"]", id, text);
    if (!client->in_flight || !is(frame, expected, (size_t)length)) {
        unexpected(client, frame);
        return;
    }
    counted(1, answered(client));
    ack_send(client);
}

static void binary_begin(void) {
    make_event();
    fill(binary_send);
}

static void binary_packet(struct client *client, const struct frame *frame) {
    const bool attachment = frame->opcode == BINARY;
    if (!client->in_flight || attachment != client->attachment ||
        (attachment ? !is(frame, text, (size_t)load.options.payload)
                    : frame->length < 5 || memcmp(frame->payload, "451-[", 5))) {
        unexpected(client, frame);
        return;
    }
    client->attachment = !attachment;
    if (!attachment) return;
    counted(1, answered(client));
    binary_send(client);
}

// broadcast, rooms: the first of each group emits, all of the group receive

static int group_size;
static long *received;  // by group, since its last event was complete

static void group_begin(void (*send)(struct client *)) {
    make_event();
    received = calloc((size_t)(load.options.connections / group_size + 1), sizeof *received);
    for (int i = 0; i < load.options.connections; i += group_size) {
        for (int j = 0; j < load.options.window; j++) send(&load.clients[i]);
        channel_flush(&load.clients[i].channel);
    }
}

static void group_packet(struct client *client, const struct frame *frame, void (*send)(struct client *)) {
    if (!is(frame, event, event_length)) {
        unexpected(client, frame);
        return;
    }
    const int group = client->number / group_size;
    struct client *sender = &load.clients[group * group_size];
    if (load.measuring) load.count++;
    if (++received[group] < group_size) return;
    received[group] = 0;
    if (!sender->in_flight) {  // It has fallen out: that is an error already.
        return;
    }
    counted(0, answered(sender));
    send(sender);
    if (sender != client) channel_flush(&sender->channel);
}

static void broadcast_begin(void) {
    group_size = load.options.connections;
    group_begin(echo_send);
}

static void broadcast_packet(struct client *client, const struct frame *frame) {
    group_packet(client, frame, echo_send);
}

static bool rooms_greet(struct client *client) {
    char packet[64];
    int length = snprintf(packet, sizeof packet, "420[\"join\",\"room-%d\"]", client->number / ROOM);
    client_send(client, packet, (size_t)length);
    return true;
}

static void rooms_send(struct client *client) {
    static char packet[1100000];
    sent_at(client, now());
    int length = snprintf(packet, sizeof packet, "42[\"%s\",\"room-%d\",\"%s\"]", load.options.event,
                          client->number / ROOM, text);
    client_send(client, packet, (size_t)length);
}

static void rooms_begin(void) {
    group_size = ROOM;
    group_begin(rooms_send);
}

static void rooms_packet(struct client *client, const struct frame *frame) {
    group_packet(client, frame, rooms_send);
}

// paced: what a user waits for, also while the server lags behind

static void paced_due(double intended) {
    static long turn;
    struct client *client = &load.clients[turn++ % load.options.connections];
    if (client->state != READY) return;
    sent_at(client, intended);
    client_send(client, event, event_length);
    channel_flush(&client->channel);
}

static void paced_packet(struct client *client, const struct frame *frame) {
    if (!client->in_flight || !is(frame, event, event_length)) {
        unexpected(client, frame);
        return;
    }
    // An event belongs to the measurement by when it should have been sent, whenever the answer comes.
    double intended = answered(client);
    if (intended < load.from || intended >= load.until) return;
    load.count++;
    histogram_add(&load.latency, now() - intended);
}

// attack: connections at a fixed rate, with tokens that must be refused

static void attack_due(double intended) {
    static int next;
    (void)intended;
    for (int i = 0; i < load.options.connections; i++) {
        struct client *client = &load.clients[next++ % load.options.connections];
        if (client->state != ABSENT) continue;
        if (load.measuring) load.count++;
        client_start(client);
        return;
    }
    if (load.measuring) load.unstarted++;  // The server holds on to so many that none is left to begin with.
}

static void attack_ready(struct client *client) { client_fail(client, "let in with a bad token", NULL, 0); }

static void attack_refused(struct client *client) {
    if (load.measuring) load.refused++;
    client_leave(client);
}

static void attack_turned_away(struct client *client) {
    (void)client;
    if (load.measuring) load.turned_away++;
}

static const struct mode MODES[] = {
    {.name = "connects", .spends = true, .begin = connects_begin, .ready = connects_ready, .closed = connects_closed},
    {.name = "echo", .opens_all = true, .begin = echo_begin, .packet = echo_packet},
    {.name = "ack", .opens_all = true, .begin = ack_begin, .packet = ack_packet},
    {.name = "binary", .opens_all = true, .begin = binary_begin, .packet = binary_packet},
    {.name = "broadcast", .opens_all = true, .begin = broadcast_begin, .packet = broadcast_packet},
    {.name = "rooms", .opens_all = true, .greet = rooms_greet, .begin = rooms_begin, .packet = rooms_packet},
    {.name = "paced", .opens_all = true, .begin = make_event, .due = paced_due, .packet = paced_packet},
    {.name = "attack", .due = attack_due, .ready = attack_ready, .refused = attack_refused,
     .turned_away = attack_turned_away},
    {.name = "hold", .opens_all = true},
};

const struct mode *mode_find(const char *name) {
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(name, MODES[i].name)) return &MODES[i];
    return NULL;
}
