// WebSocket frames (RFC 6455, section 5), as far as both ends of the benchmark need them: whole messages, no extensions.
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>

enum opcode { TEXT = 0x1, BINARY = 0x2, CLOSE = 0x8, PING = 0x9, PONG = 0xA };

#define LONGEST_HEAD 14

struct frame {
    enum opcode opcode;
    unsigned char *payload;
    size_t length;
};

// Finds the frame at the start of the bytes, and unmasks it in place. Returns how many bytes it takes, or 0 if it is
// not all there yet.
size_t wire_read(unsigned char *bytes, size_t available, struct frame *frame);

// Writes the head of a frame, and returns its length. A client must mask; it may do so with zeros, which spares it the
// work and not the server: what the mask is, a server cannot know before it has looked.
size_t wire_head(unsigned char *head, enum opcode opcode, bool masked, size_t length);

#endif
