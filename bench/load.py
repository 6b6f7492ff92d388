"""Sends requests over open connections, one greenlet per connection, and counts the answers.

Closed loop: each connection sends its next request after the last answer; it measures CPU and throughput. Open loop: requests fall
due at a fixed rate, and a latency counts from the moment a request was due. So a stalling server is also charged for the requests
that it delayed. Both end when every request has been answered.
"""

import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent
from gevent import socket

from bench import cpu
from bench.workloads import Requests

ANSWER = re.compile(rb'"saved":(\d+)')
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
RECV_BYTES = 65_536


@dataclass
class Window:
    """The result of one loop. `cpu_s` is the server's CPU time; `strangers` is the share of the server's core that other processes used."""

    requests: int = 0
    saved: int = 0
    spooled: int = 0  # answers with "storage": "spool"
    seconds: float = 0.0
    cpu_s: float = 0.0
    strangers: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def cpu_us(self) -> float:
        """Per request."""
        return self.cpu_s / self.requests * 1e6

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


class BadAnswer(Exception):
    """A request failed, so the measurement is void."""


def closed_loop(server, requests: Requests, *, connections: int, seconds: float) -> Window:
    window = Window()
    end = time.monotonic() + seconds

    def work(sock):
        while time.monotonic() < end:
            _exchange(sock, requests.make(), window)

    return _run(server, work, connections, window)


def open_loop(server, requests: Requests, *, connections: int, seconds: float, rate: float) -> Window:
    window = Window()
    start = time.monotonic()
    due = (start + number / rate for number in itertools.count())

    def work(sock):
        while (moment := next(due)) < start + seconds:
            wait = moment - time.monotonic()
            if wait > 0:
                gevent.sleep(wait)
                moment = time.monotonic()  # the generator woke up late, which is no fault of the server
            _exchange(sock, requests.make(), window)
            window.latencies_ms.append((time.monotonic() - moment) * 1000)

    return _run(server, work, connections, window)


def _run(server, work: Callable, connections: int, window: Window) -> Window:
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(connections)]
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    cpu_before, busy_before, started = cpu.consumed_s(server.process.pid), cpu.busy_s(), time.monotonic()
    workers = [gevent.spawn(work, sock) for sock in sockets]
    gevent.joinall(workers, raise_error=True)
    window.seconds = time.monotonic() - started
    window.cpu_s = cpu.consumed_s(server.process.pid) - cpu_before
    window.strangers = max(0.0, cpu.busy_s() - busy_before - window.cpu_s) / window.seconds
    for sock in sockets:
        sock.close()
    server.saved += window.saved
    server.spooled += window.spooled
    return window


def _exchange(sock, request: bytes, window: Window) -> None:
    sock.sendall(request)
    head, body = _read_answer(sock)
    saved = ANSWER.search(body)
    if not head.startswith(b"HTTP/1.1 200") or saved is None:
        raise BadAnswer(f"{head.decode(errors='replace')}\n\n{body.decode(errors='replace')}")
    window.requests += 1
    window.saved += int(saved[1])
    window.spooled += b'"spool"' in body


def _read_answer(sock) -> tuple[bytes, bytes]:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _recv(sock)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(LENGTH.search(head)[1])
    while len(body) < length:
        body += _recv(sock)
    return head, body


def _recv(sock) -> bytes:
    data = sock.recv(RECV_BYTES)
    if not data:
        raise BadAnswer("the server closed the connection")
    return data
