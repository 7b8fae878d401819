// The life of one connection: TCP, WebSocket, Engine.IO, Socket.IO with a token, and the way out.
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define PATIENCE 10.0  // seconds that a connection may be on its way in or out

static bool starts(const struct frame *frame, const char *prefix) {
    size_t length = strlen(prefix);
    return frame->length >= length && !memcmp(frame->payload, prefix, length);
}

bool tokens_left(void) { return load.tokens_taken < load.tokens_count; }

void client_send(struct client *client, const void *text, size_t length) {
    channel_put_frame(&client->channel, TEXT, true, text, length);
}

static void absent(struct client *client) {
    if (client->state >= READY) load.ready -= client->state == READY;
    channel_close(&client->channel);
    client->state = ABSENT;
    client->life++;
    client->in_flight = 0;
    client->attachment = false;
}

void client_fail(struct client *client, const char *what, const void *detail, size_t length) {
    static const char *const STATES[] = {"absent", "upgrading", "opening", "entering", "joining", "ready", "closing"};
    load.errors++;
    if (!*load.first_error) {
        int shown = length > 120 ? 120 : (int)length;
        snprintf(load.first_error, sizeof load.first_error, "%s while %s%s%.*s", what, STATES[client->state],
                 shown ? ": " : "", shown, detail ? (const char *)detail : "");
    }
    absent(client);
    if (load.mode->closed) load.mode->closed(client);
}

void client_start(struct client *client) {
    const struct options *options = &load.options;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0) {
        perror("error: no more sockets; raise the limit of open files (ulimit -n)");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(ntohl(options->source.s_addr) + (uint32_t)(load.opened++ % options->sources));
    const bool binds = source.sin_addr.s_addr != htonl(INADDR_LOOPBACK);
    // The port is chosen at connect(), for this destination: bind() alone would have 28 000 for all.
    if (binds) setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options->port)};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if ((binds && bind(fd, (struct sockaddr *)&source, sizeof source) < 0) ||
        (connect(fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)) {
        perror("error: no connection; is the server there, and are there source ports left (--sources)?");
        exit(1);
    }
    channel_open(&client->channel, fd, load.epoll, client);
    client->state = UPGRADING;
    client->began = now();
    char request[256];
    int length = snprintf(request, sizeof request,
                          "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
                          "Host: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          options->port);
    channel_put(&client->channel, request, (size_t)length);
    channel_flush(&client->channel);  // What a socket that is still connecting does not take is sent when it can be.
}

void client_leave(struct client *client) {
    static const unsigned char NORMAL[] = {1000 >> 8, 1000 & 0xFF};
    load.ready -= client->state == READY;
    client->state = CLOSING;
    client->began = now();
    channel_put_frame(&client->channel, CLOSE, true, NORMAL, sizeof NORMAL);
    channel_flush(&client->channel);
}

static void enter(struct client *client) {
    if (load.mode->spends && !tokens_left()) {
        client_leave(client);
        return;
    }
    const char *token = load.tokens[load.tokens_taken++ % load.tokens_count];
    char packet[8192];
    int length = snprintf(packet, sizeof packet, "40{\"token\":\"%s\"}", token);
    client_send(client, packet, (size_t)length);
    client->state = ENTERING;
}

static void ready(struct client *client) {
    client->state = READY;
    load.ready++;
    if (load.mode->ready) load.mode->ready(client);
}

static void take_text(struct client *client, const struct frame *frame) {
    if (frame->length == 1 && *frame->payload == '2') {  // Engine.IO's ping
        client_send(client, "3", 1);
    } else if (client->state == OPENING && starts(frame, "0{")) {
        enter(client);
    } else if (client->state == ENTERING && starts(frame, "40{\"sid\"")) {
        if (load.mode->greet && load.mode->greet(client)) client->state = JOINING;
        else ready(client);
    } else if (client->state == ENTERING && starts(frame, "44") && load.mode->refused) {
        load.mode->refused(client);
    } else if (client->state == JOINING && starts(frame, "43")) {
        ready(client);
    } else if (client->state == READY && load.mode->packet) {
        load.mode->packet(client, frame);
    } else if (client->state != CLOSING) {
        client_fail(client, "unexpected packet", frame->payload, frame->length);
    }
}

static void take(struct client *client, const struct frame *frame) {
    if (frame->opcode == TEXT) take_text(client, frame);
    else if (frame->opcode == BINARY && client->state == READY && load.mode->packet) load.mode->packet(client, frame);
    else if (frame->opcode == PING) channel_put_frame(&client->channel, PONG, true, frame->payload, frame->length);
    else if (frame->opcode == CLOSE && client->state != CLOSING) client_fail(client, "close frame", NULL, 0);
}

// Returns how long the head of the answer to the upgrade is, 0 if it is not all there, -1 if it is no upgrade.
static ssize_t upgraded(const unsigned char *bytes, size_t length) {
    static const char SWITCHING[] = "HTTP/1.1 101";
    const unsigned char *end = memmem(bytes, length, "\r\n\r\n", 4);
    if (!end) return 0;
    return memcmp(bytes, SWITCHING, sizeof SWITCHING - 1) ? -1 : end + 4 - bytes;
}

static void ended(struct client *client) {
    if (client->state != CLOSING) {
        client_fail(client, "closed by the server", NULL, 0);
        return;
    }
    absent(client);
    if (load.mode->closed) load.mode->closed(client);
}

static void read_all(struct client *client) {
    unsigned char *bytes;
    ssize_t received = channel_receive(&client->channel, &bytes);
    if (received < 0) ended(client);
    if (received <= 0) return;
    const int life = client->life;
    size_t used = 0, length = (size_t)received, taken;
    if (client->state == UPGRADING) {
        ssize_t head = upgraded(bytes, length);
        if (head < 0 && load.mode->turned_away) {
            load.mode->turned_away(client);
            absent(client);
            if (load.mode->closed) load.mode->closed(client);
            return;
        }
        if (head < 0) {
            client_fail(client, "no upgrade", bytes, length);
            return;
        }
        if (head > 0) client->state = OPENING;
        used = (size_t)head;
    }
    struct frame frame;
    while (client->state > UPGRADING && (taken = wire_read(bytes + used, length - used, &frame))) {
        used += taken;
        take(client, &frame);
        if (client->life != life) return;
    }
    channel_keep(&client->channel, bytes + used, length - used);
    channel_flush(&client->channel);
}

void client_handle(struct client *client, unsigned events) {
    const int life = client->life;
    if (client->state == ABSENT) return;
    if (events & EPOLLOUT) channel_flush(&client->channel);
    if (client->life == life && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_all(client);
}

void clients_expire(void) {
    const double latest = now() - PATIENCE;
    for (int i = 0; i < load.options.connections; i++) {
        struct client *client = &load.clients[i];
        if (client->state != ABSENT && client->state != READY && client->began < latest)
            client_fail(client, "no answer in 10 s", NULL, 0);
    }
}
