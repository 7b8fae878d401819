// A TCP connection in an epoll set: bytes in, bytes out, and nothing allocated while it is quiet.
#ifndef CHANNEL_H
#define CHANNEL_H

#include "wire.h"

#include <sys/types.h>

struct channel {
    int fd;     // -1: none
    int epoll;  // the set that it is in
    void *owner;
    unsigned char *rest, *out;
    size_t rest_length, out_length, out_capacity;
    bool blocked;  // waits until it may write again
};

// Puts a socket into an epoll set. The events name the owner.
void channel_open(struct channel *channel, int fd, int epoll, void *owner);

// Reads what has come, with what was kept before in front of it. Returns the number of bytes, 0 if nothing has come,
// -1 if the other end has gone. The bytes are in a buffer that all channels share: keep what is left before the next.
ssize_t channel_receive(struct channel *channel, unsigned char **bytes);
void channel_keep(struct channel *channel, const unsigned char *rest, size_t length);

// Writes go out together at the flush: what comes in one read is answered in one write.
void channel_put(struct channel *channel, const void *bytes, size_t length);
void channel_put_frame(struct channel *channel, enum opcode opcode, bool masked, const void *payload, size_t length);
void channel_flush(struct channel *channel);

void channel_close(struct channel *channel);

#endif
