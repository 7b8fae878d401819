// floor: what no Socket.IO server can do without, and nothing else. It upgrades to WebSocket, answers the packets of the
// benchmark, and sends what came in one read in one write. It looks at no token, parses no JSON, has no timers and no
// handlers. What a server could reach on one core, and how much of it the load generator can ask for.
//
//     floor PORT
#define _GNU_SOURCE
#include "../load/channel.h"
#include "sha1.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 512
#define ROOMS 4096
#define OPEN \
    "0{\"sid\":\"aaaaaaaaaaaaaaaaaaaa\",\"upgrades\":[],\"pingInterval\":25000,\"pingTimeout\":20000,\"maxPayload\":1000000}"
#define LET_IN "40{\"sid\":\"aaaaaaaaaaaaaaaaaaaa\"}"

struct connection {
    struct channel channel;
    bool upgraded, leaving, dirty;
    struct connection *next_dirty, *next_closed;
    struct connection *before, *after;  // in the list of all
    struct connection *neighbour;       // in its room
    int room;                           // -1: none
};

static struct connection all = {.before = &all, .after = &all};
static struct connection *rooms[ROOMS];
static struct connection *dirty, *closed;  // to be flushed, and freed, when the events at hand are through

static void soil(struct connection *connection) {
    if (connection->dirty) return;
    connection->dirty = true;
    connection->next_dirty = dirty;
    dirty = connection;
}

static void answer(struct connection *connection, enum opcode opcode, const void *payload, size_t length) {
    channel_put_frame(&connection->channel, opcode, false, payload, length);
    soil(connection);
}

static void leave_room(struct connection *connection) {
    if (connection->room < 0) return;
    struct connection **link = &rooms[connection->room];
    while (*link != connection) link = &(*link)->neighbour;
    *link = connection->neighbour;
    connection->room = -1;
}

static void end(struct connection *connection) {
    if (connection->channel.fd < 0) return;
    leave_room(connection);
    connection->before->after = connection->after;
    connection->after->before = connection->before;
    channel_close(&connection->channel);
    connection->next_closed = closed;
    closed = connection;
}

static bool is(const char *text, size_t length, const char *prefix) {
    size_t size = strlen(prefix);
    return length >= size && !memcmp(text, prefix, size);
}

// 42["room","room-7","text"]: the members get it without the event's second item, as it would be emitted to them.
static void to_room(const char *text, size_t length, int room) {
    static char packet[1 << 20];
    const char *rest = memmem(text + 10, length - 10, "\",\"", 3);
    const size_t head = strlen("42[\"room\","), tail = rest ? (size_t)(text + length - (rest + 2)) : 0;
    if (!rest || head + tail > sizeof packet) return;
    memcpy(packet, text, head);
    memcpy(packet + head, rest + 2, tail);
    for (struct connection *member = rooms[room]; member; member = member->neighbour)
        answer(member, TEXT, packet, head + tail);
}

// 42<id>["ack","text"] -> 43<id>["text"]
static void acknowledge(struct connection *connection, const char *text, size_t length) {
    static char packet[1 << 20];
    const char *list = memchr(text, '[', length), *value = memchr(text, ',', length);
    if (!list || length > sizeof packet) return;
    const size_t head = (size_t)(list + 1 - text), tail = value ? (size_t)(text + length - (value + 1)) : 1;
    memcpy(packet, text, head);
    packet[1] = '3';
    memcpy(packet + head, value ? value + 1 : "]", tail);
    answer(connection, TEXT, packet, head + tail);
}

static int room_of(const char *text, size_t length) {
    const char *name = memmem(text, length, "\"room-", 6);
    int room = name ? atoi(name + 6) : -1;
    return room >= 0 && room < ROOMS ? room : -1;
}

static void join(struct connection *connection, int room) {
    leave_room(connection);
    if (room < 0) return;
    connection->room = room;
    connection->neighbour = rooms[room];
    rooms[room] = connection;
}

static void take_text(struct connection *connection, char *text, size_t length) {
    if (is(text, length, "42[\"broadcast\"")) {
        for (struct connection *each = all.after; each != &all; each = each->after) answer(each, TEXT, text, length);
    } else if (is(text, length, "42[\"room\",")) {
        int room = room_of(text, length);
        if (room >= 0) to_room(text, length, room);
    } else if (is(text, length, "42[") || is(text, length, "45")) {
        answer(connection, TEXT, text, length);
    } else if (is(text, length, "40")) {
        answer(connection, TEXT, LET_IN, strlen(LET_IN));
    } else if (is(text, length, "42")) {
        if (memmem(text, length, "[\"join\",", 8)) {
            join(connection, room_of(text, length));
            char packet[32];
            answer(connection, TEXT, packet, (size_t)snprintf(packet, sizeof packet, "43%d[]", atoi(text + 2)));
        } else {
            acknowledge(connection, text, length);
        }
    }
}

static size_t upgrade(struct connection *connection, const unsigned char *bytes, size_t length) {
    static const char KEY[] = "sec-websocket-key: ", GUID[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const unsigned char *stop = memmem(bytes, length, "\r\n\r\n", 4);
    if (!stop) return 0;
    const unsigned char *key = bytes;
    while (key < stop && strncasecmp((const char *)key, KEY, sizeof KEY - 1)) key++;
    if (stop - key < (ptrdiff_t)sizeof KEY - 1 + 24) return 0;
    char joined[24 + sizeof GUID], accept[32], head[256];
    memcpy(joined, key + sizeof KEY - 1, 24);
    memcpy(joined + 24, GUID, sizeof GUID);
    sha1_base64(joined, strlen(joined), accept);
    int size = snprintf(head, sizeof head,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n",
                        accept);
    channel_put(&connection->channel, head, (size_t)size);
    answer(connection, TEXT, OPEN, strlen(OPEN));
    connection->upgraded = true;
    return (size_t)(stop + 4 - bytes);
}

static void take(struct connection *connection) {
    unsigned char *bytes;
    ssize_t received = channel_receive(&connection->channel, &bytes);
    if (received < 0) end(connection);
    if (received <= 0) return;
    size_t length = (size_t)received, used = connection->upgraded ? 0 : upgrade(connection, bytes, length), taken;
    struct frame frame;
    while (connection->upgraded && (taken = wire_read(bytes + used, length - used, &frame))) {
        used += taken;
        if (frame.opcode == TEXT) {
            take_text(connection, (char *)frame.payload, frame.length);
        } else if (frame.opcode == CLOSE || frame.opcode == BINARY) {
            answer(connection, frame.opcode, frame.payload, frame.length);
            connection->leaving |= frame.opcode == CLOSE;
        }
    }
    channel_keep(&connection->channel, bytes + used, length - used);
}

static void welcome(int listener, int epoll) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection) exit(1);
        connection->room = -1;
        connection->before = all.before;
        connection->after = &all;
        all.before->after = connection;
        all.before = connection;
        channel_open(&connection->channel, fd, epoll, connection);
    }
}

static void tidy(void) {
    for (struct connection *each; (each = dirty);) {
        dirty = each->next_dirty;
        each->dirty = false;
        channel_flush(&each->channel);
        if (each->leaving) end(each);
    }
    for (struct connection *each; (each = closed);) {
        closed = each->next_closed;
        free(each);
    }
}

static int listen_on(int port) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) {
        perror("error: cannot listen on the port; is it taken?");
        exit(1);
    }
    return listener;
}

int main(int count, char **words) {
    const int port = count == 2 ? atoi(words[1]) : 0;
    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: floor PORT\n");
        return 2;
    }
    const int listener = listen_on(port), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[BATCH];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int number = epoll_wait(epoll, events, BATCH, -1);
        for (int i = 0; i < number; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection) {
                welcome(listener, epoll);
                continue;
            }
            if (connection->channel.fd < 0) continue;
            if (events[i].events & EPOLLOUT) soil(connection);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) take(connection);
        }
        tidy();
    }
}
