"""Reads the requests of one connection, under a deadline and the memory limit of unfinished requests.

The first byte of a request starts its deadline, and later bytes do not extend it. A large body is read only from a known sender.
"""

import time
from typing import TYPE_CHECKING

from app.serving.fairness import TimeSlice, yield_if_slice_is_over
from app.serving.rejections import too_many_unfinished
from app.serving.request_parser import RequestParser
from app.serving.sender_check import is_small
from app.serving.websocket import ENGINE_IO_PATH

if TYPE_CHECKING:
    from app.serving.connection import Connection

RECV_BYTES = 65_536


class RequestReader:
    """Feeds the connection's `parser`, and sets `deadline`, `is_idle` and `origin` of the connection."""

    def __init__(self, connection: "Connection", parser: RequestParser):
        self._connection = connection
        self._parser = parser
        self._request_deadline: float | None = None
        self._is_sender_checked = False
        self._time_slice = TimeSlice.of_cpu_time()

    def next(self) -> dict | None:
        """Wait for the next request. Return None when the client has disconnected or the server closes. Raises Rejection, OSError."""
        connection, parser = self._connection, self._parser
        unfinished, server = connection.unfinished, connection.server
        idle_deadline = time.monotonic() + server.keepalive_s  # empty lines between two requests do not extend it
        if unfinished.bytes and not parser.is_reading:
            connection.release()
        while not parser.ready:
            if server.closed and not parser.is_reading:
                return None
            if parser.error is not None:
                raise parser.error
            self._raise_if_dropped()
            connection.deadline = self._request_deadline or idle_deadline
            started = time.monotonic()
            data = self._receive()
            self._time_slice.restart_if_waited(started)
            self._time_slice.yield_if_over()
            if not data:
                return None
            yield_if_slice_is_over(len(data))
            self._raise_if_dropped()  # another greenlet may have dropped the request during the yield
            parser.feed(data)
            if parser.is_reading:
                self._hold()
            if parser.wants_continue:
                parser.wants_continue = False
                connection.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.deadline = self._request_deadline = None
        self._is_sender_checked = False
        unfinished.is_in_work = not parser.is_reading
        return parser.ready.popleft()

    def yield_between_requests(self) -> None:
        """Yield where the time slice is used up and the client has sent the next request already."""
        if self._parser.ready:
            self._time_slice.yield_if_over()

    def _raise_if_dropped(self) -> None:
        if self._connection.unfinished.is_dropped:
            raise too_many_unfinished()

    def _hold(self) -> None:
        """Count the bytes of a request that is not complete yet, and check its sender once its head is complete."""
        parser, connection = self._parser, self._connection
        if self._request_deadline is None:
            self._request_deadline = time.monotonic() + connection.server.read_timeout_s
        if (environ := parser.unfinished) is not None and not self._is_sender_checked and not is_small(environ):
            self._check_sender(environ)
        connection.server.unfinished.resize(connection.unfinished, parser.unfinished_bytes, time.monotonic())

    def _check_sender(self, environ: dict) -> None:
        """Do not read the body of an unknown sender. Engine.IO is the exception: its clients identify themselves in the body."""
        server = self._connection.server
        self._is_sender_checked, self._connection.origin = True, environ.get("HTTP_ORIGIN")
        party, is_known = server.check_sender(environ)
        server.unfinished.identify(self._connection.unfinished, party, is_known)
        if not is_known and not environ["PATH_INFO"].startswith(ENGINE_IO_PATH):
            self._parser.give_up_body()

    def _receive(self) -> bytes:
        connection = self._connection
        connection.is_idle = not self._parser.is_reading
        try:
            return connection.socket.recv(RECV_BYTES)
        except OSError:
            self._raise_if_dropped()
            if not (connection.is_idle and connection.server.closed):
                raise
            return self._receive_without_waiting()  # a request that arrived before the server closed still gets its answer
        finally:
            connection.is_idle = False

    def _receive_without_waiting(self) -> bytes:
        sock = self._connection.socket
        sock.settimeout(0)
        try:
            return sock.recv(RECV_BYTES)
        except OSError:
            return b""
        finally:
            sock.settimeout(None)
