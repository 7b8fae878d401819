// load: an authenticated Socket.IO client, many times over. `load` alone says how it is used.
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE 100     // connections that are opened at a time
#define OPEN_WITHIN 120.0  // seconds in which all must be in
#define DRAIN 5.0       // seconds that the answers to the last paced events are waited for
#define BATCH 512

struct load load;

static int timer_mark, input_mark;  // Their addresses tell the events of these two from those of clients.
static int timer = -1;
static double next_due;
static bool input_ended, input_said_close;

static double clock_seconds(clockid_t clock) {
    struct timespec time = {0};
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

double now(void) { return clock_seconds(CLOCK_MONOTONIC); }

static double server_cpu(void) {
    clockid_t clock;
    if (!load.options.server || clock_getcpuclockid(load.options.server, &clock)) return 0;
    return clock_seconds(clock);
}

static _Noreturn void give_up(const char *why) {
    fprintf(stderr, "error: %s%s%s\n", why, *load.first_error ? "; first: " : "", load.first_error);
    exit(1);
}

static void read_tokens(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "error: the tokens cannot be read from ");
        perror(path);
        exit(1);
    }
    char *line = NULL;
    size_t size = 0;
    long room = 0;
    ssize_t length;
    while ((length = getline(&line, &size, file)) > 0) {
        line[strcspn(line, "\r\n")] = 0;
        if (load.tokens_count == room) load.tokens = realloc(load.tokens, (size_t)(room = 2 * room + 1024) * sizeof line);
        load.tokens[load.tokens_count++] = strdup(line);
    }
    free(line);
    fclose(file);
    if (!load.tokens_count) give_up("the file of tokens is empty");
}

static void pace(void) {
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)next_due}};
    at.it_value.tv_nsec = (long)((next_due - (double)at.it_value.tv_sec) * 1e9);
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void take_due(void) {
    const double time = now();
    for (; next_due <= time; next_due += 1 / load.options.rate) load.mode->due(next_due);
    pace();
}

static void take_input(void) {
    char words[256];
    ssize_t length = read(STDIN_FILENO, words, sizeof words - 1);
    if (length <= 0) input_ended = true;
    else if (memmem(words, (size_t)length, "close", 5)) input_said_close = true;
    if (input_ended) epoll_ctl(load.epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
}

static void turn(void) {
    static double expired_at;
    struct epoll_event events[BATCH];
    int count = epoll_wait(load.epoll, events, BATCH, 10);
    for (int i = 0; i < count; i++) {
        void *whose = events[i].data.ptr;
        if (whose == &timer_mark) take_due();
        else if (whose == &input_mark) take_input();
        else client_handle(whose, events[i].events);
    }
    if (now() - expired_at > 1) {
        expired_at = now();
        clients_expire();
    }
}

static void open_all(void) {
    const int all = load.options.connections;
    const double latest = now() + OPEN_WITHIN;
    int started = 0;
    while (load.ready < all) {
        while (started < all && started - load.ready < AT_ONCE) client_start(&load.clients[started++]);
        turn();
        if (load.errors) give_up("not all connections were let in");
        if (now() > latest) give_up("the connections were not all let in in time");
    }
}

static void watch(int file, void *mark) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = mark};
    epoll_ctl(load.epoll, EPOLL_CTL_ADD, file, &event);
}

// Stays until standard input ends. On `close` all leave, as fast as they can.
static void hold(void) {
    watch(STDIN_FILENO, &input_mark);
    while (!input_ended) {
        turn();
        if (load.errors) give_up("a connection that was held was lost");
        if (!input_said_close) continue;
        input_said_close = false;
        const double began = now();
        int open = load.options.connections;
        for (int i = 0; i < open; i++) client_leave(&load.clients[i]);
        while (open && !load.errors) {
            turn();
            open = 0;
            for (int i = 0; i < load.options.connections; i++) open += load.clients[i].state != ABSENT;
        }
        printf("{\"closed\": %d, \"seconds\": %.4f}\n", load.options.connections - open, now() - began);
        fflush(stdout);
    }
}

// Paced events whose answer is still out have waited at least until now; without them a stall would look short.
static void take_unanswered(void) {
    const double time = now();
    for (int i = 0; i < load.options.connections; i++) {
        const struct client *client = &load.clients[i];
        for (unsigned j = 0; j < client->in_flight; j++) {
            double intended = client->sent[(client->first + j) % client->ring];
            if (intended < load.from || intended >= load.until) continue;
            load.unanswered++;
            histogram_add(&load.latency, time - intended);
        }
    }
}

static bool in_flight(void) {
    for (int i = 0; i < load.options.connections; i++)
        if (load.clients[i].in_flight) return true;
    return false;
}

static void print_string(const char *string) {
    putchar('"');
    for (; *string; string++) {
        if (*string == '"' || *string == '\\') printf("\\%c", *string);
        else if ((unsigned char)*string >= ' ') putchar(*string);
        else putchar(' ');
    }
    putchar('"');
}

static void measure(void) {
    const struct options *options = &load.options;
    const bool paced = load.mode->due != NULL;
    double time = now();
    load.from = time + options->warm;
    load.until = load.from + options->seconds;
    if (load.mode->begin) load.mode->begin();
    if (paced) {
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        watch(timer, &timer_mark);
        next_due = time;
        pace();
    }
    while (now() < load.from) turn();
    if (load.mode->spends && !tokens_left()) give_up("the tokens were used up before the measurement; make more");
    load.errors = 0;
    *load.first_error = 0;
    load.measuring = true;
    const double server_before = server_cpu(), own_before = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    load.from = now();
    while ((time = now()) < load.until && !(load.mode->spends && !tokens_left()) &&
           !(options->count && load.count >= options->count))
        turn();
    load.measuring = false;
    load.until = time;
    const double server = server_cpu() - server_before;
    const double own = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - own_before;
    if (paced && load.mode->opens_all) {
        epoll_ctl(load.epoll, EPOLL_CTL_DEL, timer, NULL);
        while (in_flight() && now() < load.until + DRAIN) turn();
        take_unanswered();
    }
    const double seconds = load.until - load.from;
    printf("{\"mode\": \"%s\", \"count\": %ld, \"seconds\": %.4f, \"rate\": %.1f, ", load.mode->name, load.count,
           seconds, (double)load.count / seconds);
    printf("\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, ",
           histogram_quantile(&load.latency, 0.5), histogram_quantile(&load.latency, 0.9),
           histogram_quantile(&load.latency, 0.99), load.latency.longest * 1e6);
    printf("\"server_busy\": %.4f, \"load_busy\": %.4f, ", server / seconds, own / seconds);
    printf("\"refused\": %ld, \"turned_away\": %ld, \"unstarted\": %ld, \"unanswered\": %ld, \"errors\": %ld, ",
           load.refused, load.turned_away, load.unstarted, load.unanswered, load.errors);
    printf("\"first_error\": ");
    print_string(load.first_error);
    printf("}\n");
}

static void allow_files(int connections) {
    const rlim_t needed = (rlim_t)connections + 64;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= needed) return;
    limit.rlim_cur = limit.rlim_max == RLIM_INFINITY || needed < limit.rlim_max ? needed : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < needed) give_up("the limit of open files is too low for so many connections (ulimit -Hn)");
}

int main(int count, char **words) {
    load.options = options_parse(count, words);
    load.mode = mode_find(load.options.mode);
    allow_files(load.options.connections);
    read_tokens(load.options.tokens);
    load.epoll = epoll_create1(0);
    load.clients = calloc((size_t)load.options.connections, sizeof *load.clients);
    for (int i = 0; i < load.options.connections; i++) load.clients[i].number = i, load.clients[i].channel.fd = -1;
    const double began = now();
    if (load.mode->opens_all) {
        open_all();
        printf("{\"ready\": %d, \"seconds\": %.4f}\n", load.ready, now() - began);
        fflush(stdout);
    }
    if (load.mode->begin || load.mode->due) measure();
    else hold();
    return 0;
}
