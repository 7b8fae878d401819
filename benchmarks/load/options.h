// The command line.
#ifndef OPTIONS_H
#define OPTIONS_H

#include <netinet/in.h>

struct options {
    const char *mode;
    int port;
    const char *tokens;    // a file, one token a line
    int connections;
    int window;            // events in flight on a connection
    int payload;           // bytes of the string, or of the attachment, that an event carries
    double warm, seconds;  // not measured; measured
    long count;            // ends the measurement when so many are counted; 0: time does
    double rate;           // a second, in the modes that keep to one
    const char *event;
    struct in_addr source;  // where the connections come from: this address,
    int sources;            // and as many in all, counting up from it
    int server;             // the process whose CPU time is looked at; 0: none
};

// Reads it. What is wrong is said on standard error, and ends the program with status 2.
struct options options_parse(int count, char **words);

#endif
