/* The subscribers and the publisher, and what is counted of them. */
#ifndef LOAD_H
#define LOAD_H

#include "connection.h"
#include "stats.h"

#define TOPIC "bench:"
#define MAX_WINDOW 4096 /* messages of one topic that are under way in a closed loop */

typedef struct {
    uint32_t subscribers, published;
    uint32_t completed;        /* in a closed loop, messages that all subscribers have */
    uint32_t *received;        /* in a closed loop, how many subscribers have each message under way */
} Topic;

/* What happened since the last `reset_counts`. */
typedef struct {
    uint64_t deliveries, completed, published, answers, refused, errors, holes, missed, repeats, pings, acks;
    uint64_t late_us; /* the longest time by which a message was published too late */
    Histogram latency;
} Counts;

typedef struct {
    int epoll, port;
    uint32_t ack_every;    /* messages; 0 where the server takes no acknowledgements */
    uint64_t ack_after_us;
    Connection *subscribers, publisher;
    uint32_t subscriber_count, joined, subscribed, lost;
    Topic *topics;
    uint32_t topic_count, topics_each, is_closed_loop;
    Counts counts;
    uint64_t in_flight;    /* publishes without an answer */
} Load;

extern Load load;

/* packets.c */
void on_text(Connection *connection, const char *text, size_t length);
void send_subscribe(Connection *connection, uint32_t topic);
void add_publish(uint32_t topic, uint32_t payload_bytes);
void send_acks(Connection *connection);

/* loops.c: each runs until it is done and prints its result as one line of JSON */
void run_connect(const char *tokens_file, uint32_t count);
void run_subscribe(uint32_t topics, uint32_t topics_each);
void run_closed_loop(uint32_t window, double seconds, uint32_t payload_bytes);
void run_open_loop(double rate, double seconds, uint32_t payload_bytes);
void run_publish(uint32_t window, double seconds, uint32_t payload_bytes);
void run_idle(double seconds);
int turn(int timeout_ms);

#endif
