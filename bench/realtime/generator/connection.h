/* One websocket to the server: non-blocking, in an epoll set, with a buffer only for what is incomplete or refused by the kernel. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stddef.h>
#include <stdint.h>

#define READ_BYTES (1 << 18)

enum { CONNECTING, UPGRADING, OPEN, JOINED, LOST };

/* The place of one connection in one topic. `number` is the generator's own count of a topic's messages, `seq` the server's. */
typedef struct {
    uint32_t topic, number, unacked;
    uint64_t seq;
} Subscription;

typedef struct {
    int fd, state;
    const char *token;
    char *rest; /* bytes of an incomplete frame */
    size_t rest_length;
    char *unsent; /* bytes that the kernel did not take */
    size_t unsent_length;
    Subscription *subscriptions;
    uint32_t subscription_count, answers_due;
    uint64_t acks_due_at; /* in microseconds; 0 where nothing is unacknowledged */
} Connection;

/* Called with the text of each frame of a connection. */
typedef void (*OnText)(Connection *connection, const char *text, size_t length);

void connection_open(Connection *connection, int epoll, int port, uint32_t number);
void connection_event(Connection *connection, uint32_t events, OnText on_text);
void connection_send(Connection *connection, const char *text, size_t length);
void connection_close(Connection *connection);

/* Frames that are sent together: `batch_add` collects masked frames, `batch_send` writes them in one call. */
void batch_add(const char *text, size_t length);
void batch_send(Connection *connection);

extern uint64_t received_bytes, received_reads, received_frames;

#endif
