#include "options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: load MODE --port PORT --tokens FILE [OPTION VALUE]...\n"
    "\n"
    "An authenticated Socket.IO client, many times over. Prints a line of JSON when all are in, in the modes\n"
    "where they stay, and one with what was measured.\n"
    "\n"
    "  connects   connect, show a token, be let in, leave, and again\n"
    "  echo       42[EVENT,text], and the same comes back\n"
    "  ack        42<id>[EVENT,text], and 43<id>[text] comes back\n"
    "  binary     an event with one attachment, and the same comes back\n"
    "  broadcast  one connection emits, all receive\n"
    "  rooms      rooms of ten; in each one emits, and the ten receive\n"
    "  paced      events at a fixed rate; each latency counts from when the event should have been sent\n"
    "  attack     connections at a fixed rate, whose tokens are no good\n"
    "  hold       connect and stay; reads `close` from standard input, and ends with it\n"
    "\n"
    "  --port PORT           the server's, on 127.0.0.1\n"
    "  --tokens FILE         one a line; each connection takes the next\n"
    "  --connections NUMBER  at the same time; 50\n"
    "  --window NUMBER       events in flight on each; 4\n"
    "  --payload BYTES       of an event; 32\n"
    "  --warm SECONDS        before the measurement; 1\n"
    "  --seconds SECONDS     of the measurement; 2\n"
    "  --count NUMBER        end the measurement when so many are counted\n"
    "  --rate NUMBER         events or connections a second, of paced and attack; 1000\n"
    "  --event NAME          the mode's own name\n"
    "  --source ADDRESS      where connections come from; 127.0.0.1\n"
    "  --sources NUMBER      addresses, from that one on; 1\n"
    "  --server PID          whose CPU time is looked at too\n";

static _Noreturn void wrong(const char *option, const char *what) {
    fprintf(stderr, "error: %s %s\n\n%s", option, what, USAGE);
    exit(2);
}

static double number(const char *option, const char *word, double least, double most) {
    char *end;
    errno = 0;
    double value = strtod(word, &end);
    if (end == word || *end || errno || !(value >= least && value <= most)) {
        char what[160];
        snprintf(what, sizeof what, "is \"%.40s\": give a number from %g to %g", word, least, most);
        wrong(option, what);
    }
    return value;
}

struct options options_parse(int count, char **words) {
    static const char *const MODES[] = {"connects",  "echo",  "ack",    "binary", "broadcast",
                                        "rooms", "paced", "attack", "hold"};
    struct options options = {
        .connections = 50, .window = 4, .payload = 32, .warm = 1, .seconds = 2, .rate = 1000, .sources = 1};
    options.source.s_addr = htonl(INADDR_LOOPBACK);
    if (count < 2) wrong("MODE", "is missing");
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(words[1], MODES[i])) options.mode = MODES[i];
    if (!options.mode) wrong(words[1], "is no mode");
    options.event = options.mode;
    for (int i = 2; i < count; i += 2) {
        const char *option = words[i], *word = words[i + 1];
        if (!word) wrong(option, "needs a value");
        if (!strcmp(option, "--port")) options.port = (int)number(option, word, 1, 65535);
        else if (!strcmp(option, "--tokens")) options.tokens = word;
        else if (!strcmp(option, "--connections")) options.connections = (int)number(option, word, 1, 1e6);
        else if (!strcmp(option, "--window")) options.window = (int)number(option, word, 1, 1e4);
        else if (!strcmp(option, "--payload")) options.payload = (int)number(option, word, 0, 1e6);
        else if (!strcmp(option, "--warm")) options.warm = number(option, word, 0, 3600);
        else if (!strcmp(option, "--seconds")) options.seconds = number(option, word, 0.01, 3600);
        else if (!strcmp(option, "--count")) options.count = (long)number(option, word, 1, 1e9);
        else if (!strcmp(option, "--rate")) options.rate = number(option, word, 0.1, 1e6);
        else if (!strcmp(option, "--event")) options.event = word;
        else if (!strcmp(option, "--sources")) options.sources = (int)number(option, word, 1, 65536);
        else if (!strcmp(option, "--server")) options.server = (int)number(option, word, 1, 1e9);
        else if (!strcmp(option, "--source")) {
            if (!inet_aton(word, &options.source)) wrong(option, "is no IPv4 address");
        } else wrong(option, "is no option");
    }
    if (!options.port) wrong("--port", "is missing");
    if (!options.tokens) wrong("--tokens", "is missing");
    return options;
}
