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
ANSWER_S = 5.0  # then a request is sent again; an answer that comes later still counts
SILENT_S = 15.0  # without any answer by then the connection is given up for a new one
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
    sent_at: float | None = None
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
    """

    def __init__(self, client: "RealtimeClient", threads: Threads, timers: Timers):
        self._client, self._now, self._timers = client, threads.now, timers
        self.queue: deque[Request] = deque()
        self.in_flight: list[Request] = []
        self._spacing = self._spaced_until = 0.0
        self.answered_at = 0.0
        self._pump_timer = self._spacing_timer = None

    def add(self, request: Request, give_up_s: float = math.inf) -> Request:
        """The caller calls `pump` afterwards."""
        request.deadline = self._timers.set(give_up_s, lambda: self.finish(request, request.refusal or self._client.why()))
        self.queue.append(request)
        return request

    def pump(self) -> None:
        """A few at a time; after a `rate_limited` one at a time, at the pace that the server named."""
        self._timers.cancel(self._pump_timer)
        while self._client.is_live and self.queue and len(self.in_flight) < (1 if self._spacing else IN_FLIGHT):
            now = self._now()
            request = next((request for request in self.queue if request.not_before <= now), None)
            if request is None or self._spaced_until > now:
                due = max(min(request.not_before for request in self.queue), self._spaced_until)
                self._pump_timer = self._timers.set(due - now, self.pump)
                return
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
        attempt, connection = request.attempt, self._client.connection
        request.sent_at = request.sent_at or self._now()
        request.timer = self._timers.set(ANSWER_S, lambda: self._unanswered(request))
        frame = request.frame() if callable(request.frame) else request.frame
        self._client.emit(frame, lambda *given: self._answered(request, attempt, connection, given))

    def _answered(self, request: Request, attempt: int, connection: int, arguments: tuple) -> None:
        with self._client.lock:
            if connection != self._client.connection:
                return
            given = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
            self.answered_at = self._now()
            is_ack = given.get("type") == "ack" and request.accepts(given)
            if request.is_over:
                if is_ack:
                    request.on_late()
            elif is_ack:
                self.finish(request, None, given)
            elif request in self.in_flight and attempt == request.attempt:
                self._refused(request, given)

    def _refused(self, request: Request, given: dict) -> None:
        makes_sense = given.get("type") == "error" and isinstance(given.get("code"), str)
        answer = given if makes_sense else unavailable("The server's answer makes no sense.")
        if answer["code"] == "token_expired":
            self._client.renew_token()
        if self._client.may_help(answer, request.renews):
            self.again(request, answer)
            self.pump()
        else:
            self.finish(request, answer)

    def _unanswered(self, request: Request) -> None:
        is_silent = self._now() - max(self.answered_at, request.sent_at) > SILENT_S - ANSWER_S
        self.again(request, unavailable("There is no answer."))
        if is_silent:
            self._client.restart("no answer")
        self.pump()

    def again(self, request: Request, answer: dict) -> None:
        self._timers.cancel(request.timer)
        if request in self.in_flight:
            self.in_flight.remove(request)
            self.queue.appendleft(request)
        request.refusal = answer
        given = answer.get("retryAfterMs")
        named = min(given / 1000, MAX_WAIT_S) if isinstance(given, int | float) and given > 0 else 0.0
        if answer["code"] == "rate_limited":
            self._slow_down(min(named, MAX_SPACING_S) + 0.005)
            request.not_before = self._now() + named
        else:
            request.not_before = self._now() + (named * random.uniform(1.0, 1.5) or backoff(max(0, request.attempt - 1)))
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
