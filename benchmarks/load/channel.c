#include "channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE (256 * 1024)

static unsigned char *shared;
static size_t shared_capacity;

static void *grown(void *bytes, size_t size) {
    void *more = realloc(bytes, size);
    if (!more) {
        fprintf(stderr, "error: no memory for %zu bytes; take fewer connections or smaller payloads\n", size);
        exit(1);
    }
    return more;
}

void channel_open(struct channel *channel, int fd, int epoll, void *owner) {
    *channel = (struct channel){.fd = fd, .epoll = epoll, .owner = owner};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

ssize_t channel_receive(struct channel *channel, unsigned char **bytes) {
    const size_t kept = channel->rest_length;
    if (shared_capacity < kept + READ_SIZE) shared = grown(shared, shared_capacity = kept + READ_SIZE);
    *bytes = shared;
    ssize_t received = recv(channel->fd, shared + kept, shared_capacity - kept, 0);
    if (received == 0) return -1;
    if (received < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (kept) {
        memcpy(shared, channel->rest, kept);
        free(channel->rest);
        channel->rest = NULL;
        channel->rest_length = 0;
    }
    return received + (ssize_t)kept;
}

void channel_keep(struct channel *channel, const unsigned char *rest, size_t length) {
    if (!length) return;
    channel->rest = grown(NULL, length);
    channel->rest_length = length;
    memcpy(channel->rest, rest, length);
}

static unsigned char *room(struct channel *channel, size_t length) {
    if (channel->out_length + length > channel->out_capacity) {
        channel->out_capacity = 2 * channel->out_capacity + length;
        channel->out = grown(channel->out, channel->out_capacity);
    }
    return channel->out + channel->out_length;
}

void channel_put(struct channel *channel, const void *bytes, size_t length) {
    memcpy(room(channel, length), bytes, length);
    channel->out_length += length;
}

void channel_put_frame(struct channel *channel, enum opcode opcode, bool masked, const void *payload, size_t length) {
    unsigned char *out = room(channel, LONGEST_HEAD + length);
    size_t head = wire_head(out, opcode, masked, length);
    memcpy(out + head, payload, length);
    channel->out_length += head + length;
}

static void wait_to_write(struct channel *channel, bool wait) {
    if (channel->blocked == wait) return;
    channel->blocked = wait;
    struct epoll_event event = {.events = EPOLLIN | (wait ? EPOLLOUT : 0), .data.ptr = channel->owner};
    epoll_ctl(channel->epoll, EPOLL_CTL_MOD, channel->fd, &event);
}

void channel_flush(struct channel *channel) {
    if (channel->fd < 0 || !channel->out_length) return;
    ssize_t sent = send(channel->fd, channel->out, channel->out_length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) sent = (ssize_t)channel->out_length;  // The read will tell.
    if (sent < 0) sent = 0;
    channel->out_length -= (size_t)sent;
    if (channel->out_length) {
        memmove(channel->out, channel->out + sent, channel->out_length);
    } else {
        free(channel->out);
        channel->out = NULL;
        channel->out_capacity = 0;
    }
    wait_to_write(channel, channel->out_length > 0);
}

void channel_close(struct channel *channel) {
    if (channel->fd >= 0) close(channel->fd);
    free(channel->rest);
    free(channel->out);
    *channel = (struct channel){.fd = -1};
}
