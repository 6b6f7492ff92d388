/* The measurements: connect, subscribe, publish in a closed or an open loop, wait. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define CONNECTS_AT_ONCE 64
#define SUBSCRIBES_AT_ONCE 256
#define PATIENCE_US 30000000 /* for what is under way at the end of a loop */
#define ACK_CHECK_US 5000

static double cpu_before;
static uint64_t started;

static void begin(void) {
    memset(&load.counts, 0, sizeof load.counts);
    received_bytes = received_reads = received_frames = 0;
    cpu_before = cpu_seconds();
    started = now_us();
}

static void report(double drain_s) {
    Counts *counts = &load.counts;
    double seconds = (now_us() - started) / 1e6;
    printf("{\"seconds\":%.6f,\"own_cpu_s\":%.6f,\"deliveries\":%lu,\"published\":%lu,\"answers\":%lu,\"completed\":%lu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,",
           seconds, cpu_seconds() - cpu_before, counts->deliveries, counts->published, counts->answers, counts->completed,
           histogram_percentile(&counts->latency, 50) / 1e3, histogram_percentile(&counts->latency, 99) / 1e3, counts->latency.max / 1e3);
    printf("\"holes\":%lu,\"missed\":%lu,\"repeats\":%lu,\"refused\":%lu,\"errors\":%lu,\"lost\":%u,\"pings\":%lu,\"acks\":%lu,\"bytes\":%lu,\"reads\":%lu,\"frames\":%lu,\"late_ms\":%.3f,\"drain_s\":%.3f}\n",
           counts->holes, counts->missed, counts->repeats, counts->refused, counts->errors, load.lost, counts->pings, counts->acks,
           received_bytes, received_reads, received_frames, counts->late_us / 1e3, drain_s);
    fflush(stdout);
}

static void give_up(const char *what) {
    fprintf(stderr, "%s: %u of %u joined, %u subscribed, %u lost, %lu publishes without an answer\n",
            what, load.joined, load.subscriber_count, load.subscribed, load.lost, load.in_flight);
    exit(1);
}

static void send_due_acks(void) {
    static uint64_t next;
    uint64_t now = now_us();
    if (!load.ack_every || now < next) return;
    next = now + ACK_CHECK_US;
    for (uint32_t place = 0; place < load.subscriber_count; place++) {
        Connection *connection = load.subscribers + place;
        if (connection->acks_due_at && connection->acks_due_at <= now && connection->state == JOINED) send_acks(connection);
    }
}

/* Handle what has come. Return whether the standard input, which is the entry without a connection, has something to read. */
int turn(int timeout_ms) {
    struct epoll_event events[256];
    int has_command = 0, count = epoll_wait(load.epoll, events, 256, timeout_ms);
    for (int place = 0; place < count; place++) {
        Connection *connection = events[place].data.ptr;
        if (!connection) {
            has_command = 1;
            continue;
        }
        if (connection->state == LOST) continue;
        connection_event(connection, events[place].events, on_text);
        if (connection->state == LOST) load.lost++;
    }
    send_due_acks();
    return has_command;
}

static void wait_until(uint64_t moment) {
    while (now_us() < moment) turn(1);
}

/* Open `count` more subscribers, and at the first call the publisher, whose token is the first line of the file. */
void run_connect(const char *tokens_file, uint32_t count) {
    FILE *file = fopen(tokens_file, "r");
    if (!file) perror(tokens_file), exit(1);
    uint32_t first = load.subscriber_count, opened = 0;
    int has_publisher = load.publisher.state != 0 || load.publisher.token;
    if (first) fprintf(stderr, "the subscribers are connected already\n"), exit(1);
    load.subscribers = calloc(count, sizeof *load.subscribers);
    load.subscriber_count = count;
    char *line = NULL;
    size_t capacity = 0;
    begin();
    for (uint64_t last = now_us(); load.joined < count + !has_publisher; turn(100)) {
        while (opened < count + !has_publisher && opened - load.joined < CONNECTS_AT_ONCE) {
            Connection *connection = opened ? load.subscribers + opened - 1 : &load.publisher;
            ssize_t length = getline(&line, &capacity, file);
            if (length <= 0) fprintf(stderr, "%s has too few tokens\n", tokens_file), exit(1);
            connection->token = strndup(line, length - (line[length - 1] == '\n'));
            connection_open(connection, load.epoll, load.port, opened++);
            last = now_us();
        }
        if (now_us() - last > PATIENCE_US) give_up("connect");
    }
    fclose(file);
    free(line);
    report(0);
}

/* Subscribe each connection to the next `topics_each` of `topics` topics, beginning at the place of the connection. */
void run_subscribe(uint32_t topics, uint32_t topics_each) {
    load.topic_count = topics;
    load.topics_each = topics_each;
    load.topics = calloc(topics, sizeof *load.topics);
    for (uint32_t topic = 0; topic < topics; topic++) load.topics[topic].received = calloc(MAX_WINDOW, sizeof(uint32_t));
    begin();
    uint32_t asked = 0;
    for (uint64_t last = now_us(); load.subscribed < load.subscriber_count; turn(100)) {
        while (asked < load.subscriber_count && asked - load.subscribed < SUBSCRIBES_AT_ONCE) {
            Connection *connection = load.subscribers + asked;
            connection->subscriptions = calloc(topics_each, sizeof *connection->subscriptions);
            connection->subscription_count = topics_each;
            for (uint32_t place = 0; place < topics_each; place++) {
                uint32_t topic = (asked * topics_each + place) % topics;
                connection->subscriptions[place].topic = topic;
                load.topics[topic].subscribers++;
                send_subscribe(connection, topic);
            }
            asked++;
            last = now_us();
        }
        if (now_us() - last > PATIENCE_US) give_up("subscribe");
    }
    report(0);
}

static uint64_t expected_deliveries(void) {
    uint64_t expected = 0;
    for (uint32_t topic = 0; topic < load.topic_count; topic++) expected += (uint64_t)load.topics[topic].published * load.topics[topic].subscribers;
    return expected;
}

static uint64_t arrived_deliveries(void) {
    uint64_t arrived = 0;
    for (uint32_t place = 0; place < load.subscriber_count; place++)
        for (uint32_t each = 0; each < load.subscribers[place].subscription_count; each++) arrived += load.subscribers[place].subscriptions[each].number;
    return arrived;
}

/* Wait until every subscriber has every message, and return the seconds that it took after `since`. */
static double drain(uint64_t since) {
    uint64_t last_count = load.counts.deliveries, last = now_us();
    while ((load.in_flight || arrived_deliveries() < expected_deliveries()) && now_us() - last < 5000000) {
        uint64_t until = now_us() + 1000;
        while (now_us() < until) turn(1);
        if (load.counts.deliveries != last_count) last = now_us(), last_count = load.counts.deliveries;
        if (now_us() - since > PATIENCE_US) break;
    }
    return (now_us() - since) / 1e6;
}

/* Keep `window` messages of each topic under way; the next one is published when all subscribers have the oldest. */
void run_closed_loop(uint32_t window, double seconds, uint32_t payload_bytes) {
    if (window > MAX_WINDOW) window = MAX_WINDOW;
    for (uint32_t topic = 0; topic < load.topic_count; topic++) {
        load.topics[topic].completed = load.topics[topic].published;
        memset(load.topics[topic].received, 0, MAX_WINDOW * sizeof(uint32_t));
    }
    load.is_closed_loop = 1;
    begin();
    uint64_t end = started + (uint64_t)(seconds * 1e6);
    while (now_us() < end) {
        for (uint32_t topic = 0; topic < load.topic_count; topic++)
            while (load.topics[topic].published - load.topics[topic].completed < window) add_publish(topic, payload_bytes);
        batch_send(&load.publisher);
        uint64_t completed = load.counts.completed;
        while (load.counts.completed == completed && now_us() < end) turn(1);
    }
    double drain_s = drain(end);
    load.is_closed_loop = 0;
    report(drain_s);
}

/* Publish at a rate, in messages per second, on the topics in turn. */
void run_open_loop(double rate, double seconds, uint32_t payload_bytes) {
    begin();
    uint64_t count = (uint64_t)(rate * seconds), sent = 0;
    uint32_t topic = 0;
    while (sent < count) {
        uint64_t now = now_us(), due = started + (uint64_t)(sent * 1e6 / rate);
        if (now < due) {
            turn(due - now > 1000 ? 1 : 0);
            continue;
        }
        if (now - due > load.counts.late_us) load.counts.late_us = now - due;
        for (; sent < count && started + (uint64_t)(sent * 1e6 / rate) <= now; sent++) {
            add_publish(topic, payload_bytes);
            topic = (topic + 1) % load.topic_count;
        }
        batch_send(&load.publisher);
        turn(0);
    }
    report(drain(now_us()));
}

/* Keep `window` publishes without an answer. */
void run_publish(uint32_t window, double seconds, uint32_t payload_bytes) {
    begin();
    uint64_t end = started + (uint64_t)(seconds * 1e6);
    while (now_us() < end) {
        while (load.in_flight < window) add_publish(0, payload_bytes);
        batch_send(&load.publisher);
        uint64_t answers = load.counts.answers;
        while (load.counts.answers == answers && now_us() < end) turn(1);
    }
    report(drain(end));
}

void run_idle(double seconds) {
    begin();
    wait_until(started + (uint64_t)(seconds * 1e6));
    report(0);
}
