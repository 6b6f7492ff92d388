"""Frames that need an answer: how many wait for theirs at a time, when one is sent again, and when it is given up."""

import contextlib
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import unavailable
from .threads import Threads, Timers, backoff

if TYPE_CHECKING:
    from .realtime_client import RealtimeClient

IN_FLIGHT = 8  # requests that wait for their answer at a time
ANSWER_S = 5.0  # how often a request without an answer is looked at; an answer that comes later still counts
PING_S = 25.0  # between two pings of the server, where the handshake does not name it
LOST_S = 60.0  # a request that has no answer by then gets a new connection, even if the server still pings
SLOWEST = 1000.0  # bytes per second: a slower link is taken for a dead one
MAX_LEAVING_BYTES = 64_000  # on their way at a time, so that the pong behind them is not late
FRAME_BYTES = 100  # of a frame, beside its payload
MAX_WAIT_S = 60.0  # the longest retryAfterMs of a server that is obeyed
MAX_SPACING_S = 10.0


@dataclass(eq=False)
class Request:
    frame: dict | Callable[[], dict]
    settle: Callable[[dict | None, dict | None], None]
    outlives: bool = False  # its connection
    bytes: int = 0
    renews: bool = True
    on_trouble: Callable[[dict], None] = lambda error: None
    on_late: Callable[[], None] = lambda: None
    accepts: Callable[[dict], bool] = lambda answer: True
    attempt: int = 0
    not_before: float = 0.0
    sent_at: float = 0.0
    end: int = 0  # the bytes that were sent on the connection up to the end of this frame
    refusal: dict | None = None
    is_over: bool = False
    timer: list | None = None
    deadline: list | None = None


RESUMED = Request({}, lambda error, answer: None)  # in place of a request: the topic was asked for with the connection


class Requests:
    """Frames that need an answer. A frame without one, or with a refusal that may pass, is sent again until it is settled.

    `settle(error, answer)` is called once, but not where the connection ends to which a request without `outlives` belongs;
    `on_trouble(error)` once, after the third failure; `on_late()` where a copy of a settled request is answered: the server may have acted
    on it just now.

    Invariant: no second copy of a frame is sent while the first may still be leaving, that is: only on another connection, or where a frame
    that was sent after it has been answered. A connection is given up only if nothing was received for longer than its server stays silent
    plus the time that the unanswered bytes take at the SLOWEST rate, or if it leaves one request unanswered for LOST_S more than that.
    """

    def __init__(self, client: "RealtimeClient", threads: Threads, timers: Timers):
        self._client, self._now, self._timers = client, threads.now, timers
        self.queue: deque[Request] = deque()
        self.in_flight: list[Request] = []
        self._spacing = self._spaced_until = 0.0
        self._pump_timer = self._spacing_timer = None
        self.connected()

    def connected(self, ping_s: float = PING_S) -> None:
        """`_sent` and `_arrived` count bytes of this connection: an answer shows that all frames before its own have arrived."""
        self._sent = self._arrived = 0
        self._silent_s = ping_s + ANSWER_S
        self.heard()

    def heard(self) -> None:
        """Anything at all was received: the connection lives. Called without the lock, too."""
        self.heard_at = self._now()

    def add(self, request: Request, give_up_s: float = math.inf) -> Request:
        """The caller calls `pump` afterwards."""
        request.deadline = self._timers.set(give_up_s, lambda: self.finish(request, request.refusal or self._client.why()))
        self.queue.append(request)
        return request

    def pump(self) -> None:
        """A few at a time, and few bytes; after a `rate_limited` one at a time, at the pace that the server named."""
        self._timers.cancel(self._pump_timer)
        while self._client.is_live and self.queue and len(self.in_flight) < (1 if self._spacing else IN_FLIGHT):
            now = self._now()
            request = next((request for request in self.queue if request.not_before <= now), None)
            if request is None or self._spaced_until > now:
                due = max(min(request.not_before for request in self.queue), self._spaced_until)
                self._pump_timer = self._timers.set(due - now, self.pump)
                return
            if self.in_flight and self._leaving(self._sent) + request.bytes > MAX_LEAVING_BYTES:
                return  # the next answer makes room
            if self._spacing:
                self._spaced_until = now + self._spacing
            self.queue.remove(request)
            self._send(request)

    def _send(self, request: Request) -> None:
        if self._client.is_too_large(request.bytes):
            self.finish(request, self._client.too_large())
            return
        self.in_flight.append(request)
        request.attempt += 1
        attempt, connection = request.attempt, self._client.connection_number
        self._sent += request.bytes + FRAME_BYTES
        request.sent_at, request.end = self._now(), self._sent
        request.timer = self._timers.set(ANSWER_S, lambda: self._unanswered(request))
        frame, end = request.frame() if callable(request.frame) else request.frame, request.end
        self._client.emit(frame, lambda *given: self._answered(request, attempt, connection, end, given))

    def _leaving(self, end: int) -> int:
        return max(0, end - self._arrived)

    def _answered(self, request: Request, attempt: int, connection: int, end: int, arguments: tuple) -> None:
        with self._client.lock:
            if connection != self._client.connection_number:
                return
            given = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
            self.heard()
            self._arrived = max(self._arrived, end)
            is_ack = given.get("type") == "ack" and request.accepts(given)
            if request.is_over:
                if is_ack:
                    request.on_late()
            elif is_ack:
                self.finish(request, None, given)
            elif request in self.in_flight and attempt == request.attempt:
                self._refused(request, given)
            self.pump()

    def _refused(self, request: Request, given: dict) -> None:
        makes_sense = given.get("type") == "error" and isinstance(given.get("code"), str)
        answer = given if makes_sense else unavailable("The server's answer makes no sense.")
        if answer["code"] == "token_expired":
            self._client.renew_token()
        if self._client.may_help(answer, request.renews):
            self.again(request, answer)
        else:
            self.finish(request, answer)

    def _unanswered(self, request: Request) -> None:
        is_lost = request.end < self._arrived
        is_silent = not is_lost and self._is_silent(request)
        if is_lost or is_silent:
            self.again(request, unavailable("There is no answer."))
        else:
            request.timer = self._timers.set(ANSWER_S, lambda: self._unanswered(request))
        if is_silent:
            self._client.restart("no answer")
        self.pump()

    def _is_silent(self, request: Request) -> bool:
        now, leaving_s = self._now(), self._leaving(request.end) / SLOWEST
        quiet_s = now - max(self.heard_at, request.sent_at)
        return quiet_s > self._silent_s + leaving_s or now - request.sent_at > LOST_S + leaving_s

    def again(self, request: Request, answer: dict) -> None:
        self._timers.cancel(request.timer)
        if request in self.in_flight:
            self.in_flight.remove(request)
            self.queue.appendleft(request)
        request.refusal = answer
        named, attempt = _wait_named_in(answer), max(0, request.attempt - 1)
        is_limited = answer["code"] == "rate_limited"
        if is_limited:
            self._slow_down(min(named, MAX_SPACING_S) + 0.005)
        spread = 1.0 if is_limited else random.uniform(1.0, 1.5)
        request.not_before = self._now() + max(named * spread, backoff(attempt, 0.005 if named else 0.25))  # never at once for ever
        if request.attempt == 3:
            request.on_trouble(answer)

    def _slow_down(self, spacing: float) -> None:
        self._spacing = max(self._spacing, spacing)
        self._spaced_until = self._now() + self._spacing
        self._timers.cancel(self._spacing_timer)
        self._spacing_timer = self._timers.set(10.0, self._full_speed)

    def _full_speed(self) -> None:
        self._spacing = self._spaced_until = 0.0
        self.pump()

    def wake(self) -> None:
        """The token was renewed: what was refused for the old one need not wait."""
        for request in self.queue:
            if request.refusal and request.refusal["code"] == "token_expired":
                request.not_before = 0.0
        self.pump()

    def finish(self, request: Request, error: dict | None, answer: dict | None = None) -> None:
        if not request.is_over:
            self.drop(request)
            request.settle(error, answer)
            self.pump()

    def drop(self, request: Request) -> None:
        request.is_over = True
        self._timers.cancel(request.timer)
        self._timers.cancel(request.deadline)
        for line in (self.in_flight, self.queue):
            with contextlib.suppress(ValueError):
                line.remove(request)

    def disconnected(self) -> None:
        """Publishes wait for the next connection, longer each time that it ends under them; all else belonged to this one."""
        for request in reversed(self.in_flight):
            self._timers.cancel(request.timer)
            if request.attempt > 1:
                request.not_before = self._now() + backoff(request.attempt - 2)
            self.queue.appendleft(request)
        self.in_flight.clear()
        for request in list(self.queue):
            if not request.outlives:
                self.drop(request)
        self._stop_timers()

    def end(self, error: dict) -> None:
        for request in [*self.in_flight, *self.queue]:
            self.finish(request, error)
        self._stop_timers()

    def _stop_timers(self) -> None:
        self._timers.cancel(self._pump_timer)
        self._timers.cancel(self._spacing_timer)
        self._spacing = self._spaced_until = 0.0


def _wait_named_in(answer: dict) -> float:
    """The server's retryAfterMs in seconds; 0, which means a back-off of our own, where it is no positive number."""
    given = answer.get("retryAfterMs")
    is_wait = isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < math.inf
    return min(given, MAX_WAIT_S * 1000) / 1000 if is_wait else 0.0
