/* Load for live topics: subscribers and a publisher over plain websockets, in one thread. Commands come by the standard input, a
 * line each, and each is answered by one line of JSON.
 *
 *   generator PORT ACK_EVERY ACK_AFTER_MS       ACK_EVERY 0: the server takes no acknowledgements
 *
 *   connect TOKENS_FILE COUNT                   the publisher and COUNT subscribers join /realtime
 *   subscribe TOPICS TOPICS_EACH
 *   closed WINDOW SECONDS PAYLOAD_BYTES
 *   open RATE SECONDS PAYLOAD_BYTES
 *   publish WINDOW SECONDS PAYLOAD_BYTES
 *   idle SECONDS
 */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

Load load;

static void run(const char *line) {
    char file[4096];
    uint32_t one, two;
    double rate, seconds;
    if (sscanf(line, "connect %4095s %u", file, &one) == 2) run_connect(file, one);
    else if (sscanf(line, "subscribe %u %u", &one, &two) == 2) run_subscribe(one, two);
    else if (sscanf(line, "closed %u %lf %u", &one, &seconds, &two) == 3) run_closed_loop(one, seconds, two);
    else if (sscanf(line, "open %lf %lf %u", &rate, &seconds, &two) == 3) run_open_loop(rate, seconds, two);
    else if (sscanf(line, "publish %u %lf %u", &one, &seconds, &two) == 3) run_publish(one, seconds, two);
    else if (sscanf(line, "idle %lf", &seconds) == 1) run_idle(seconds);
    else fprintf(stderr, "no such command: %s", line), exit(2);
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: %s PORT ACK_EVERY ACK_AFTER_MS\n", argv[0]), 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    load.port = atoi(argv[1]);
    load.ack_every = atoi(argv[2]);
    load.ack_after_us = (uint64_t)(atof(argv[3]) * 1000);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(load.epoll, EPOLL_CTL_ADD, 0, &event);
    char line[8192];
    while (1) {
        while (!turn(5)) continue;
        if (!fgets(line, sizeof line, stdin)) return 0;
        run(line);
    }
}
