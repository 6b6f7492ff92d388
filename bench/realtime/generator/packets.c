/* Socket.IO packets of the namespace /realtime: what is sent, and what is read of what comes. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMESPACE "/realtime,"
#define EVENT "42" NAMESPACE "[\"message\","
#define TEXT_BYTES 60000

static char packet[TEXT_BYTES + 8192], filler[TEXT_BYTES];

static int begins(const char *text, size_t length, const char *with) {
    size_t size = strlen(with);
    return length >= size && !memcmp(text, with, size);
}

static const char *find(const char *text, const char *end, const char *what, size_t size) {
    return text < end ? memmem(text, end - text, what, size) : NULL;
}
#define FIND(text, end, what) find(text, end, what, sizeof what - 1)

/* Read the digits at *text and move it behind them. */
static uint64_t number_at(const char **text) {
    uint64_t number = 0;
    while (**text >= '0' && **text <= '9') number = number * 10 + (*(*text)++ - '0');
    return number;
}

static void complain(const char *what, const char *text, size_t length) {
    static int complaints;
    if (complaints++ < 5) fprintf(stderr, "%s: %.*s\n", what, (int)(length > 400 ? 400 : length), text);
}

/* Acknowledge every topic that has something new, in one frame, as the project's clients do. */
void send_acks(Connection *connection) {
    int length = sprintf(packet, EVENT "{\"type\":\"ack\",\"acks\":{");
    uint32_t count = 0;
    for (uint32_t place = 0; place < connection->subscription_count; place++) {
        Subscription *subscription = connection->subscriptions + place;
        if (!subscription->unacked) continue;
        subscription->unacked = 0;
        length += sprintf(packet + length, "%s\"" TOPIC "%u\":%lu", count++ ? "," : "", subscription->topic, subscription->seq);
    }
    length += sprintf(packet + length, "}}]");
    connection->acks_due_at = 0;
    if (!count) return;
    load.counts.acks++;
    connection_send(connection, packet, length);
}

void send_subscribe(Connection *connection, uint32_t topic) {
    int length = sprintf(packet, "42" NAMESPACE "%u[\"message\",{\"type\":\"subscribe\",\"topic\":\"" TOPIC "%u\"}]", topic, topic);
    connection->answers_due++;
    connection_send(connection, packet, length);
}

/* Add a message to the publisher's batch. Its payload has the topic's own count of messages and the time. */
void add_publish(uint32_t topic, uint32_t payload_bytes) {
    static uint32_t answer;
    if (!filler[0]) memset(filler, 'x', sizeof filler);
    Topic *to = load.topics + topic;
    int length = sprintf(
        packet, "42" NAMESPACE "%u[\"message\",{\"type\":\"publish\",\"topic\":\"" TOPIC "%u\",\"id\":\"%lx-%u\",\"payload\":{\"text\":\"%.*s\",\"n\":%u,\"at\":%lu}}]",
        answer++ % 1000000, topic, now_us(), to->published, (int)payload_bytes, filler, to->published, now_us());
    to->published++;
    load.counts.published++;
    load.in_flight++;
    batch_add(packet, length);
}

static void note_delivery(Subscription *subscription, uint32_t number) {
    Topic *topic = load.topics + subscription->topic;
    load.counts.deliveries++;
    if (number > subscription->number) load.counts.holes++, load.counts.missed += number - subscription->number;
    if (number < subscription->number) {
        load.counts.repeats++;
        return;
    }
    subscription->number = number + 1;
    if (!load.is_closed_loop || ++topic->received[number % MAX_WINDOW] < topic->subscribers) return;
    topic->received[number % MAX_WINDOW] = 0;
    topic->completed++;
    load.counts.completed++;
}

/* Read one event: a message, or several that the server merged. */
static void on_event(Connection *connection, const char *text, size_t length) {
    const char *end = text + length, *at = text;
    uint64_t now = now_us();
    Subscription *subscription = connection->subscriptions;
    if (connection->subscription_count > 1) {
        const char *name = FIND(text, end, "\"topic\":\"" TOPIC);
        if (!name) return complain("an event without a topic", text, length);
        name += sizeof "\"topic\":\"" TOPIC - 1;
        subscription += (number_at(&name) + load.topic_count - subscription->topic) % load.topic_count;
    }
    uint32_t before = subscription->unacked;
    while ((at = FIND(at, end, "\"n\":"))) {
        at += 4;
        uint32_t number = number_at(&at);
        at = FIND(at, end, "\"at\":");
        if (!at) break;
        at += 5;
        uint64_t sent_at = number_at(&at);
        histogram_add(&load.counts.latency, now > sent_at ? now - sent_at : 0);
        const char *seq = FIND(at, end, "\"seq\":");
        if (!seq) break;
        at = seq + 6;
        subscription->seq = number_at(&at);
        subscription->unacked++;
        note_delivery(subscription, number);
    }
    if (subscription->unacked == before) return complain("an event without a message of this measurement", text, length);
    if (!load.ack_every) subscription->unacked = 0;
    else if (subscription->unacked >= load.ack_every) send_acks(connection);
    else if (!connection->acks_due_at) connection->acks_due_at = now + load.ack_after_us;
}

static void on_answer(Connection *connection, const char *text, size_t length) {
    if (!memmem(text, length, "\"ok\":true", 9)) load.counts.refused++, complain("the server refused", text, length);
    if (connection == &load.publisher) {
        load.in_flight--;
        load.counts.answers++;
    } else if (connection->answers_due && !--connection->answers_due) {
        load.subscribed++;
    }
}

void on_text(Connection *connection, const char *text, size_t length) {
    if (begins(text, length, EVENT "{\"type\":\"event\"")) {
        on_event(connection, text + sizeof EVENT - 1, length - (sizeof EVENT - 1));
    } else if (begins(text, length, "43" NAMESPACE)) {
        on_answer(connection, text, length);
    } else if (begins(text, length, "2")) {
        load.counts.pings++;
        connection_send(connection, "3", 1);
    } else if (begins(text, length, "0")) {
        connection_send(connection, packet, sprintf(packet, "40" NAMESPACE "{\"token\":\"%s\"}", connection->token));
    } else if (begins(text, length, "40" NAMESPACE)) {
        connection->state = JOINED;
        load.joined++;
    } else {
        load.counts.errors++;
        complain("the server sent", text, length);
    }
}
