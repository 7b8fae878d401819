// What the parts of the load generator share: the run, its clients, and what a mode of it does.
#ifndef LOAD_H
#define LOAD_H

#include "channel.h"
#include "histogram.h"
#include "options.h"

#include <stdbool.h>

enum state {
    ABSENT,
    UPGRADING,  // the request for a WebSocket is out
    OPENING,    // waits for Engine.IO's open packet
    ENTERING,   // has shown its token
    JOINING,    // waits until the server has put it into its room
    READY,
    CLOSING,    // has sent its close frame, and waits for the end of the stream
};

struct client {
    struct channel channel;
    enum state state;
    int number;        // among the clients
    int life;          // counts its connections
    double began;      // when the present one did
    long next_ack;     // the id that its next event asks an acknowledgement with
    bool attachment;   // the head of a binary packet has come, its attachment has not
    double *sent;      // a ring: when the events that are in flight were sent, or should have been
    unsigned first, in_flight, ring;
};

// What one mode does at the moments in the life of its clients. A NULL is nothing.
struct mode {
    const char *name;
    bool opens_all;  // all clients are to be in before it begins
    bool spends;     // no token is shown twice: it ends when they are used up
    void (*begin)(void);
    void (*due)(double intended);  // called --rate times a second
    bool (*greet)(struct client *client);  // let in; true: the server will acknowledge, and it is ready then
    void (*ready)(struct client *client);
    void (*packet)(struct client *client, const struct frame *frame);
    void (*refused)(struct client *client);  // by Socket.IO's error packet
    void (*turned_away)(struct client *client);  // by an HTTP status
    void (*closed)(struct client *client);  // after the client had asked for it
};

struct load {
    struct options options;
    const struct mode *mode;
    int epoll;
    struct client *clients;
    bool measuring;
    int ready;    // clients that are
    long opened;  // connections so far
    char **tokens;
    long tokens_count, tokens_taken;
    // Of the measurement:
    double from, until;  // its time
    long count;          // of what the mode counts
    long refused, turned_away, unstarted, unanswered;
    long errors;
    char first_error[256];
    struct histogram latency;
};

extern struct load load;

double now(void);  // seconds of the monotonic clock

// Starts a connection. Needs a token that is left.
void client_start(struct client *client);
void client_handle(struct client *client, unsigned events);
void client_send(struct client *client, const void *text, size_t length);
// Leaves as a browser does: a close frame, and the server ends the stream.
void client_leave(struct client *client);
// Notes that something was not as it should be, and drops the connection.
void client_fail(struct client *client, const char *what, const void *detail, size_t length);
// Ends connections that have been on their way, in or out, for too long.
void clients_expire(void);

const struct mode *mode_find(const char *name);
bool tokens_left(void);

#endif
