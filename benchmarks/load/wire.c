#include "wire.h"

#include <stdint.h>
#include <string.h>

#define FINAL 0x80
#define MASKED 0x80

static void unmask(unsigned char *payload, size_t length, const unsigned char mask[4]) {
    uint64_t eight;
    memcpy(&eight, mask, 4);
    memcpy((unsigned char *)&eight + 4, mask, 4);
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        uint64_t word;
        memcpy(&word, payload + i, 8);
        word ^= eight;
        memcpy(payload + i, &word, 8);
    }
    for (; i < length; i++) payload[i] ^= mask[i & 3];
}

size_t wire_read(unsigned char *bytes, size_t available, struct frame *frame) {
    if (available < 2) return 0;
    size_t head = 2, length = bytes[1] & 0x7F;
    if (length >= 126) {
        size_t digits = length == 126 ? 2 : 8;
        if (available < head + digits) return 0;
        length = 0;
        for (size_t i = 0; i < digits; i++) length = length << 8 | bytes[head + i];
        head += digits;
    }
    const bool masked = bytes[1] & MASKED;
    if (masked) head += 4;
    if (available < head || available - head < length) return 0;
    frame->opcode = bytes[0] & 0x0F;
    frame->payload = bytes + head;
    frame->length = length;
    if (masked) unmask(frame->payload, length, bytes + head - 4);
    return head + length;
}

size_t wire_head(unsigned char *head, enum opcode opcode, bool masked, size_t length) {
    size_t size = 2;
    head[0] = FINAL | opcode;
    if (length < 126) {
        head[1] = (unsigned char)length;
    } else {
        size_t digits = length < 65536 ? 2 : 8;
        head[1] = digits == 2 ? 126 : 127;
        for (size_t i = 0; i < digits; i++) head[size + i] = (unsigned char)(length >> 8 * (digits - 1 - i));
        size += digits;
    }
    if (masked) {
        head[1] |= MASKED;
        memset(head + size, 0, 4);
        size += 4;
    }
    return size;
}
