#define _GNU_SOURCE
#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10, FINAL = 0x80, MASKED = 0x80 };

#define PER_ADDRESS 20000 /* connections from one address of 127.0.0.0/8, which has some 28,000 ports */

uint64_t received_bytes, received_reads, received_frames;

static char buffer[READ_BYTES + (1 << 20)];
static char *batch;
static size_t batch_length, batch_capacity;

static void watch(Connection *connection, int epoll, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(epoll, operation, connection->fd, &event) < 0) perror("epoll_ctl"), exit(1);
}

static int the_epoll;

void connection_open(Connection *connection, int epoll, int port, uint32_t number) {
    the_epoll = epoll;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) perror("socket"), exit(1);
    int one = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + number / PER_ADDRESS)};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(connection->fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
    bind(connection->fd, (struct sockaddr *)&own, sizeof own);
    if (connect(connection->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) perror("connect"), exit(1);
    connection->state = CONNECTING;
    watch(connection, epoll, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

void connection_close(Connection *connection) {
    if (connection->state != LOST) close(connection->fd);
    connection->state = LOST;
    free(connection->rest);
    free(connection->unsent);
    connection->rest = connection->unsent = NULL;
    connection->rest_length = connection->unsent_length = 0;
}

static void write_bytes(Connection *connection, const char *bytes, size_t length) {
    ssize_t sent = connection->unsent_length ? 0 : send(connection->fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return connection_close(connection);
    if (sent < 0) sent = 0;
    if ((size_t)sent == length) return;
    if (!connection->unsent_length) watch(connection, the_epoll, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    connection->unsent = realloc(connection->unsent, connection->unsent_length + length - sent);
    memcpy(connection->unsent + connection->unsent_length, bytes + sent, length - sent);
    connection->unsent_length += length - sent;
}

static void flush(Connection *connection) {
    ssize_t sent = send(connection->fd, connection->unsent, connection->unsent_length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return connection_close(connection);
    if (sent > 0) memmove(connection->unsent, connection->unsent + sent, connection->unsent_length -= sent);
    if (!connection->unsent_length) watch(connection, the_epoll, EPOLL_CTL_MOD, EPOLLIN);
}

static void add_frame(int opcode, const char *payload, size_t length) {
    size_t needed = batch_length + length + 14;
    if (needed > batch_capacity) batch = realloc(batch, batch_capacity = 2 * needed);
    unsigned char *frame = (unsigned char *)batch + batch_length, *end = frame;
    *end++ = FINAL | opcode;
    if (length < 126) {
        *end++ = MASKED | length;
    } else {
        *end++ = MASKED | 126; /* no frame is longer than 65,535 bytes */
        *end++ = length >> 8;
        *end++ = length & 255;
    }
    unsigned char mask[4];
    uint32_t key = (uint32_t)rand() | 1;
    memcpy(mask, &key, 4);
    memcpy(end, mask, 4);
    end += 4;
    for (size_t place = 0; place < length; place++) end[place] = payload[place] ^ mask[place & 3];
    batch_length = end + length - (unsigned char *)batch;
}

void batch_add(const char *text, size_t length) { add_frame(TEXT, text, length); }

void batch_send(Connection *connection) {
    if (connection->state != LOST && batch_length) write_bytes(connection, batch, batch_length);
    batch_length = 0;
}

void connection_send(Connection *connection, const char *text, size_t length) {
    batch_add(text, length);
    batch_send(connection);
}

static void request_upgrade(Connection *connection) {
    static const char request[] =
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nUser-Agent: bench\r\n\r\n";
    connection->state = UPGRADING;
    watch(connection, the_epoll, EPOLL_CTL_MOD, EPOLLIN);
    write_bytes(connection, request, sizeof request - 1);
}

/* Return the bytes of the answer to the upgrade, or 0 where it is incomplete. */
static size_t read_answer(Connection *connection, const char *bytes, size_t length) {
    const char *end = memmem(bytes, length, "\r\n\r\n", 4);
    if (!end) return 0;
    if (strncmp(bytes, "HTTP/1.1 101", 12)) {
        fprintf(stderr, "the server refused a websocket: %.*s\n", (int)length, bytes);
        exit(1);
    }
    connection->state = OPEN;
    return end + 4 - bytes;
}

/* Return the bytes of the first frame, or 0 where it is incomplete. Servers do not mask. */
static size_t read_frame(Connection *connection, const char *bytes, size_t length, OnText on_text) {
    const unsigned char *head = (const unsigned char *)bytes;
    if (length < 2) return 0;
    size_t size = head[1], begin = 2;
    if (size == 126) {
        if (length < 4) return 0;
        size = head[2] << 8 | head[3], begin = 4;
    } else if (size == 127) {
        if (length < 10) return 0;
        size = 0, begin = 10;
        for (int place = 2; place < 10; place++) size = size << 8 | head[place];
    }
    if (length < begin + size) return 0;
    received_frames++;
    int opcode = head[0] & 15;
    if (!(head[0] & FINAL) || head[0] & 0x70) fprintf(stderr, "the server sent a fragment or an extension\n"), exit(1);
    if (opcode == TEXT) on_text(connection, bytes + begin, size);
    else if (opcode == CLOSE) connection_close(connection);
    else if (opcode == PING) add_frame(PONG, bytes + begin, size), batch_send(connection);
    return begin + size;
}

static void read_all(Connection *connection, OnText on_text) {
    memcpy(buffer, connection->rest, connection->rest_length);
    ssize_t got = recv(connection->fd, buffer + connection->rest_length, READ_BYTES, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return connection_close(connection);
    received_bytes += got;
    received_reads++;
    size_t length = connection->rest_length + got, done = 0, used = 1;
    if (connection->state == UPGRADING) done = read_answer(connection, buffer, length);
    while (connection->state >= OPEN && used && connection->state != LOST) done += used = read_frame(connection, buffer + done, length - done, on_text);
    if (connection->state == LOST) return;
    if (length - done > sizeof buffer - READ_BYTES) fprintf(stderr, "a frame is longer than a megabyte\n"), exit(1);
    connection->rest_length = length - done;
    free(connection->rest);
    connection->rest = connection->rest_length ? malloc(connection->rest_length) : NULL;
    if (connection->rest) memcpy(connection->rest, buffer + done, connection->rest_length);
}

void connection_event(Connection *connection, uint32_t events, OnText on_text) {
    if (connection->state == CONNECTING && events & EPOLLOUT) request_upgrade(connection);
    else if (events & EPOLLOUT && connection->unsent_length) flush(connection);
    if (connection->state != LOST && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_all(connection, on_text);
}
