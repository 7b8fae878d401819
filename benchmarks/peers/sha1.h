// SHA-1 (RFC 3174) of a short text, in base 64: what the answer to a WebSocket's key needs (RFC 6455, section 4.2.2).
#ifndef SHA1_H
#define SHA1_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t sha1_rotated(uint32_t value, int bits) { return value << bits | value >> (32 - bits); }

static inline void sha1_block(uint32_t state[5], const unsigned char block[64]) {
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = sha1_rotated(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t mixed = i < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                         : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                         : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                                  : (b ^ c ^ d) + 0xCA62C1D6;
        uint32_t next = sha1_rotated(a, 5) + mixed + e + w[i];
        e = d, d = c, c = sha1_rotated(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

// The text has at most 119 bytes: two blocks.
static inline void sha1_base64(const char *text, size_t length, char out[32]) {
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char padded[128] = {0}, digest[21] = {0};
    const size_t size = length < 56 ? 64 : 128;
    memcpy(padded, text, length);
    padded[length] = 0x80;
    padded[size - 2] = (unsigned char)(length * 8 >> 8);
    padded[size - 1] = (unsigned char)(length * 8);
    for (size_t at = 0; at < size; at += 64) sha1_block(state, padded + at);
    for (int i = 0; i < 20; i++) digest[i] = (unsigned char)(state[i / 4] >> 8 * (3 - i % 4));
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (int j = 0; j < 4; j++) out[4 * i + j] = DIGITS[three >> 6 * (3 - j) & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

#endif
