"""Live topics for services in Python, on python-socketio: every message once and in order, or a report of what is missing.

    client = RealtimeClient("http://switchyard:8080", token=make_token)
    client.subscribe("orders:eu", lambda payload, message: ...)
    client.publish("orders:eu", {"id": 7})

Invariants, on any network and with any server:
1. Every wait (`publish`, `subscribe(…).wait`, `unsubscribe(…).wait`) ends within its `give_up_s`: done, or an exception that has a `code`.
2. Every topic with a subscription is live, or is being asked for, and the caller was told why it is not live (`wait`, on_state, on_error).
3. A handler gets each message of its topic once and in order; on_gap reports the messages that it does not get.

Handlers run in one thread, one after the other. A message is acknowledged when its handler has returned, so the server's window bounds
what waits for that thread; MAX_CALLS bounds it in any case. Where that many wait, what comes is dropped here, and asked for again when half
of them are done. The threads: one that connects, one for timers, one for handlers, and python-socketio's own; none per message.

This file imports nothing of the server, so that it can be copied; it needs `pip install "python-socketio[client]"`.
"""

import contextlib
import heapq
import importlib.util
import itertools
import json
import logging
import math
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import engineio
import socketio

log = logging.getLogger(__name__)

NAMESPACE = "/realtime"
ACK_AFTER_S = 0.1
HOLE_S = 2.0  # a hole that has not filled by then is asked for
MAX_EARLY = 512  # messages that came before their turn; more are asked for again
MAX_CALLS = 4096  # of handlers, that wait for the one before
IN_FLIGHT = 8  # requests that wait for their answer at a time
MAX_WAITING = 10_000  # publishes that wait; one more fails with limit_exceeded
ANSWER_S = 5.0  # then a request is sent again; an answer that comes later still counts
SILENT_S = 15.0  # without any answer by then the connection is given up for a new one
JOIN_S = 10.0  # for the server to let the connection in
GIVE_UP_S = 60.0
MAX_WAIT_S = 60.0  # the longest retryAfterMs of a server that is obeyed
MAX_SPACING_S = 10.0
ENVELOPE_BYTES = 100  # what Socket.IO puts around a frame
MAX_RESUMED = 128  # topics that are resumed with the connection; the others are asked for one by one
RECONNECTING = {"reconnection": True, "reconnection_attempts": 0, "reconnection_delay": 0.25, "reconnection_delay_max": 10.0}
REFUSALS = ("forbidden", "bad_request", "limit_exceeded")  # of a subscription; asking again would not help


class ConnectRefused(socketio.exceptions.ConnectionError):
    """No connection. `answer` is the server's `{code, message, retryable}`; `unavailable` where no server was reached in the time given."""

    def __init__(self, answer: dict):
        super().__init__(f"{answer.get('code')}: {answer.get('message')}")
        self.answer = answer


class RequestFailed(Exception):
    """`answer` is the error frame, `{code, message, retryable, …}`; `unavailable` where there was no answer in the time given."""

    def __init__(self, answer: dict):
        super().__init__(answer.get("message") or answer["code"])
        self.answer = answer
        self.code = answer["code"]


class PublishFailed(RequestFailed):
    """The message was not published; without an answer of the server it may be in the log all the same."""


class SubscribeFailed(RequestFailed):
    """With `unavailable` the subscription is still wanted, and begins with the connection; with any other code it has ended."""


class Threads:
    """What this file takes of the machine: the time, threads and what they wait for. Tests bring their own."""

    now = staticmethod(time.monotonic)
    event = staticmethod(threading.Event)
    lock = staticmethod(threading.RLock)

    def start(self, run: Callable[[], None], name: str) -> None:
        threading.Thread(target=run, name=f"switchyard-{name}", daemon=True).start()


class Outcome:
    """Something that is settled once: done, or failed with an answer."""

    def __init__(self, event: Any):
        self._event = event
        self.answer: dict | None = None
        self.error: dict | None = None

    def settle(self, error: dict | None, answer: dict | None = None) -> None:
        if not self._event.is_set():
            self.error, self.answer = error, answer
            self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set() and self.error is None

    def wait(self, timeout: float | None = None) -> bool:
        """True when it is done, False where `timeout` seconds are over first. Raises SubscribeFailed."""
        if not self._event.wait(timeout):
            return False
        if self.error is not None:
            raise SubscribeFailed(self.error)
        return True


class Subscription(Outcome):
    """Done when the subscription stands: what is published from then on arrives."""

    def __init__(self, event: Any, leave: Callable[[], Outcome]):
        super().__init__(event)
        self._leave = leave

    def unsubscribe(self) -> Outcome:
        """Done when the server has ended it, or the connection has ended."""
        return self._leave()


def unavailable(message: str) -> dict:
    return {"type": "error", "code": "unavailable", "message": message, "retryable": True}


def backoff(attempt: int, first: float = 0.25, most: float = 10.0) -> float:
    return min(most, first * 2 ** min(attempt, 20)) * random.uniform(0.5, 1.5)


def _is_seq(value: Any) -> bool:
    return type(value) is int


def _is_place(answer: dict) -> bool:
    return _is_seq(answer.get("seq")) and isinstance(answer.get("epoch"), str)


class _Timers:
    """What is due when. Cancelled timers are thrown away as soon as they are the larger part."""

    def __init__(self, threads: Threads):
        self._threads = threads
        self._heap: list[tuple[float, int, list]] = []
        self._count = itertools.count()
        self._cancelled = 0
        self.changed = threads.event()

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def set(self, delay_s: float, act: Callable[[], None]) -> list | None:
        if math.isinf(delay_s):
            return None
        timer = [act]
        heapq.heappush(self._heap, (self._threads.now() + max(0.0, delay_s), next(self._count), timer))
        self.changed.set()
        return timer

    def cancel(self, timer: list | None) -> None:
        if timer and timer[0]:
            timer[0] = None
            self._cancelled += 1
            if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2][0]]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def run_due(self) -> float | None:
        """In how many seconds to call again; None where there is no timer."""
        while self._heap and self._heap[0][0] <= self._threads.now():
            timer = heapq.heappop(self._heap)[2]
            act, timer[0] = timer[0], None
            if act:
                act()
            else:
                self._cancelled -= 1
        return self._heap[0][0] - self._threads.now() if self._heap else None


@dataclass(eq=False)
class _Listener:
    """One subscription of the caller's, with a position of its own in the topic."""

    handler: Callable[[Any, dict], None]
    on_gap: Callable[[dict], None]
    manner: dict[str, Any]
    epoch: str | None
    seq: int | None
    outcome: Subscription | None = None
    deadline: list | None = None
    left: Outcome | None = None

    def settle(self, timers: _Timers, error: dict | None) -> None:
        timers.cancel(self.deadline)
        self.outcome.settle(error)


class _Topic:
    """A topic's messages once and in order, whatever comes twice or too early. `seq` is the position up to which all was handed on."""

    def __init__(self, name: str, client: "RealtimeClient"):
        self.name = name
        self.client = client
        self.listeners: list[_Listener] = []
        self.leaving: list[Callable[[dict | None], None]] = []
        self.request: Any = None
        self.stands = self.is_ending = self.asks_again = False
        self.pending = 0  # calls of handlers that are not done
        self.moves = 0
        self.early: dict[int, dict] = {}
        self.timer: list | None = None
        self.reset()

    def reset(self) -> None:
        self.go_to(None, None)
        self.stop_timer()

    def stop_timer(self) -> None:
        self.client.timers.cancel(self.timer)
        self.timer = None

    def go_to(self, epoch: str | None, seq: int | None) -> None:
        self.epoch, self.seq, self.strange, self.handled = epoch, seq, None, None
        self.early.clear()
        self.moves += 1

    @property
    def manner(self) -> dict[str, Any]:
        """The least demanding manner that gives every listener what it asked for."""
        first, *others = [listener.manner for listener in self.listeners] or [{}]
        if not others:
            return first
        manners = [first, *others]
        merged: dict[str, Any] = {}
        for name, strongest in (("ack", True), ("mode", "all")):
            values = [manner.get(name) for manner in manners]
            merged[name] = values[0] if all(value == values[0] for value in values) else strongest
        merged["batch"] = True if any(manner.get("batch") for manner in manners) else None
        return {name: value for name, value in merged.items() if value is not None}

    def place(self) -> dict[str, Any]:
        position = {} if self.seq is None else {"since": self.seq, **({"epoch": self.epoch} if self.epoch else {})}
        return {**self.manner, **position}

    def acknowledged(self) -> int | None:
        """Up to here the handlers have returned."""
        return self.seq if not self.pending else self.handled

    def add(self, listener: _Listener) -> None:
        """A listener that gave a position takes the topic back to it; the others pass over what they had."""
        before = self.manner if self.listeners else None
        self.listeners.append(listener)
        if listener.seq is None:
            listener.epoch, listener.seq = self.epoch, self.seq
        else:
            if self.seq is None or (listener.epoch and listener.epoch != self.epoch) or listener.seq < self.seq:
                self.go_to(listener.epoch or self.epoch, listener.seq)
            self.asks_again = True
        if before is not None and before != self.manner:
            self.asks_again = True

    def remove(self, listener: _Listener) -> None:
        self.listeners.remove(listener)
        if not self.listeners:
            self.reset()

    def align(self, head: int | None = None, is_begun: bool = False, is_other: bool = False) -> None:
        """Listeners follow the topic into its epoch. Those whose position means nothing there are told, and get it from its beginning."""
        lost = [each for each in self.listeners if each.seq is not None and self._is_lost(each, head, is_other)]
        told = [each for each in lost if not (is_begun and each.seq == 0)]
        for listener in self.listeners:
            if listener.seq is None and self.seq is not None:
                listener.seq = self.seq if head is None else max(self.seq, head)
            listener.epoch = self.epoch
        for listener in lost:
            listener.seq = 0
        if lost and self.seq:
            self.go_to(self.epoch, 0)
            self.ask_again()
        for listener in told:
            self.tell(listener, {"reason": "epoch_changed"})

    def _is_lost(self, listener: _Listener, head: int | None, is_other: bool) -> bool:
        is_elsewhere = listener.epoch != self.epoch if listener.epoch else is_other
        return is_elsewhere or (head is not None and listener.seq > head)

    def tell(self, listener: _Listener, gap: dict) -> None:
        self.client.call(listener.on_gap, {"topic": self.name, **gap}, listener=listener, topic=self)

    def subscribed(self, answer: dict) -> None:
        self.strange = None
        head = answer["head"] if _is_seq(answer.get("head")) else None
        is_other = answer.get("reason") == "epoch_changed"  # decides where a position was given without an epoch
        is_here = self.epoch == answer["epoch"] if self.epoch else not is_other
        if self.seq is None or not is_here or (head is not None and self.seq > head):
            self.go_to(answer["epoch"], answer["seq"])
        self.epoch = answer["epoch"]
        self.align(head, is_other=is_other)
        for listener in self.listeners:
            listener.settle(self.client.timers, None)

    def receive(self, epoch: Any, event: Any) -> None:
        if not isinstance(event, dict) or not _is_seq(event.get("seq")) or not isinstance(epoch, str) or "payload" not in event:
            return
        if self.client.is_full():
            self.client.behind.add(self)
            return
        seq, skipped = event["seq"], event.get("skipped")
        skips = isinstance(skipped, list | tuple) and len(skipped) == 2 and all(map(_is_seq, skipped))
        if self.seq is None or (self.epoch != epoch and self.seq == 0 and seq == 1):
            is_begun = self.seq == 0  # nothing of the epoch before can have been missed
            self.go_to(epoch, (skipped[0] if skips else seq) - 1)
            self.align(is_begun=is_begun)
        if self.epoch != epoch:
            if self.strange != epoch:
                self.ask_again()  # no frame announced this epoch: the server says what is missing
            self.strange = epoch
            return
        if skips:
            self.pass_to(skipped[1])
        if seq > self.seq and len(self.early) < MAX_EARLY:
            self.early[seq] = event
        self.close_up()

    def miss(self, frame: dict) -> None:
        """A gap that the server knows of."""
        if self.client.is_full():
            self.client.behind.add(self)
            return
        if frame["code"] == "epoch_changed":
            if frame.get("epoch") and self.epoch != frame["epoch"]:
                self.go_to(frame["epoch"], 0)
            self.align()
            return
        first, last = frame.get("from"), frame.get("to")
        if not _is_seq(first) or not _is_seq(last):
            return

        def tell(listener: _Listener, before: int) -> None:
            begin = first if listener.seq is None else max(first, listener.seq + 1)
            if begin < before:
                self.tell(listener, {"reason": frame["code"], "from": begin, "to": before - 1, "retryable": frame.get("retryable")})

        self.pass_to(last, tell)

    def pass_to(self, last: int, tell: Callable[[_Listener, int], None] = lambda listener, before: None) -> None:
        """Nothing up to `last` will come any more, except what is here. `tell(listener, seq)` where messages before `seq` are missing."""
        here = sorted(seq for seq in self.early if self.seq is not None and self.seq < seq <= last)
        for seq in [*here, last + 1]:
            for listener in self.listeners:
                tell(listener, seq)
            if self.seq is None:
                return  # nothing was subscribed to yet
            self.seq = max(self.seq, seq - 1)
            for listener in self.listeners:
                listener.seq = max(listener.seq, seq - 1)
            if seq <= last:
                self.deliver(seq)
        self.close_up()

    def close_up(self) -> None:
        while self.seq + 1 in self.early:
            self.deliver(self.seq + 1)
        for seq in [seq for seq in self.early if seq <= self.seq]:
            del self.early[seq]
        if not self.early:
            self.stop_timer()
        elif not self.timer:
            self.timer = self.client.timers.set(HOLE_S, self._ask_for_hole)

    def _ask_for_hole(self) -> None:
        self.timer = None
        self.ask_again()
        self.close_up()

    def deliver(self, seq: int) -> None:
        event = self.early.pop(seq)
        self.seq = seq
        for listener in self.listeners:
            if seq > listener.seq:
                listener.seq = seq
                message = {**event, "topic": self.name, "epoch": self.epoch}
                self.client.call(listener.handler, event["payload"], message, listener=listener, topic=self, seq=seq)

    def ask_again(self) -> None:
        self.asks_again = True
        self.client.tend(self)

    def end(self, error: dict) -> None:
        """No listener gets anything any more: each has its reason."""
        for listener in self.listeners:
            listener.settle(self.client.timers, error)
        self.listeners.clear()
        self.reset()


@dataclass(eq=False)
class _Request:
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


RESUMED = _Request({}, lambda error, answer: None)  # in place of a request: the topic was asked for with the connection


class _Requests:
    """Frames that need an answer. A frame without one, or with a refusal that may pass, is sent again until it is settled.

    `settle(error, answer)` is called once, but not where the connection ends to which a request without `outlives` belongs;
    `on_trouble(error)` once, after the third failure; `on_late()` where a copy of a settled request is answered: the server may have acted
    on it just now.
    """

    def __init__(self, client: "RealtimeClient", threads: Threads, timers: _Timers):
        self._client, self._now, self._timers = client, threads.now, timers
        self.queue: deque[_Request] = deque()
        self.in_flight: list[_Request] = []
        self._spacing = self._spaced_until = 0.0
        self.answered_at = 0.0
        self._pump_timer = self._spacing_timer = None

    def add(self, request: _Request, give_up_s: float = math.inf) -> _Request:
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

    def _send(self, request: _Request) -> None:
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

    def _answered(self, request: _Request, attempt: int, connection: int, arguments: tuple) -> None:
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

    def _refused(self, request: _Request, given: dict) -> None:
        makes_sense = given.get("type") == "error" and isinstance(given.get("code"), str)
        answer = given if makes_sense else unavailable("The server's answer makes no sense.")
        if answer["code"] == "token_expired":
            self._client.renew_token()
        if self._client.may_help(answer, request.renews):
            self.again(request, answer)
            self.pump()
        else:
            self.finish(request, answer)

    def _unanswered(self, request: _Request) -> None:
        is_silent = self._now() - max(self.answered_at, request.sent_at) > SILENT_S - ANSWER_S
        self.again(request, unavailable("There is no answer."))
        if is_silent:
            self._client.restart("no answer")
        self.pump()

    def again(self, request: _Request, answer: dict) -> None:
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

    def finish(self, request: _Request, error: dict | None, answer: dict | None = None) -> None:
        if not request.is_over:
            self.drop(request)
            request.settle(error, answer)
            self.pump()

    def drop(self, request: _Request) -> None:
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


class _Calls:
    """The caller's functions, run one after the other in one thread, so that a slow one holds up no answer."""

    def __init__(self, threads: Threads):
        self._waiting: deque[tuple[Callable[[], None], Callable[[], None]]] = deque()
        self._is_there = threads.event()
        self._is_over = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, call: Callable[[], None], done: Callable[[], None]) -> None:
        self._waiting.append((call, done))
        self._is_there.set()

    def stop(self) -> None:
        """When what waits is done."""
        self._is_over = True
        self._is_there.set()

    def run(self) -> None:
        while self._waiting or not self._is_over:
            self._is_there.wait()
            self._is_there.clear()
            while self._waiting:
                call, done = self._waiting.popleft()
                call()
                done()


class RealtimeClient:
    """`token` is a string or a function, asked at every connect and when the token expires.

    `on_state(state, detail)` reports connecting, live, offline, refused, closed; `on_error(error)` what is wrong with a topic or an answer.
    `options` are those of python-socketio's client; `sio` stands in for that client. `max_frame_bytes` is what the server takes: its
    HTTP_MAX_BODY_BYTES. The constructor waits until it is connected, for at most `give_up_s`; raises ConnectRefused, also where the server
    does not take the token.
    """

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str],
        sio: Any = None,
        *,
        on_state: Callable[[str, Any], None] = lambda state, detail: None,
        on_error: Callable[[dict], None] | None = None,
        give_up_s: float = GIVE_UP_S,
        max_frame_bytes: int = 512_000,
        threads: Threads | None = None,
        **options: Any,
    ):
        self._threads = threads or Threads()
        self._url, self._token, self._max_frame_bytes = url, token, max_frame_bytes
        self._on_state, self._on_error = on_state, on_error or _log_error
        self.lock = self._threads.lock()
        self.timers = _Timers(self._threads)
        self.requests = _Requests(self, self._threads, self.timers)
        self._calls = _Calls(self._threads)
        self._topics: dict[str, _Topic] = {}
        self._resumed: set[_Topic] = set()
        self._news: set[_Topic] = set()
        self.behind: set[_Topic] = set()
        self.connection, self.is_live, self.state = 0, False, ""
        self._is_renewing = False
        self._reason: dict | None = None
        self._over: dict | None = None
        self._ack_timer = self._resume_timer = self._renew_timer = None
        self._ended, self._closed, self._wake = (self._threads.event() for _ in range(3))
        self._first = Outcome(self._threads.event())
        self._given = sio
        self._options = options if sio is None else {name: getattr(sio, name, value) for name, value in RECONNECTING.items()}
        if sio is not None:
            sio.reconnection = False  # it would connect again with a limit of one second
        self.sio = sio or _stock_client(options)
        self._set_state("connecting", None)
        for run, name in ((self._keep_connected, "connection"), (self._run_timers, "timers"), (self._calls.run, "handlers")):
            self._threads.start(run, name)
        self._wait_for_first(give_up_s)

    def _wait_for_first(self, give_up_s: float) -> None:
        if not self._first._event.wait(None if math.isinf(give_up_s) else give_up_s):
            with self.lock:
                self._first.settle(self.why())
        if self._first.error is not None:
            self.close()
            raise ConnectRefused(self._first.error)

    def subscribe(
        self,
        topic: str,
        handler: Callable[[Any, dict], None],
        *,
        on_gap: Callable[[dict], None] = lambda gap: None,
        since: int | None = None,
        epoch: str | None = None,
        give_up_s: float = GIVE_UP_S,
        **manner: Any,
    ) -> Subscription:
        """`handler(payload, {topic, id, seq, ts, epoch})` in order; `on_gap({topic, reason, from?, to?, retryable?})` reports gaps.

        `manner` is ack, mode and batch of the protocol; `since` and `epoch` continue from a place. What is published after the returned
        Subscription is done arrives; where it is not done within `give_up_s`, it fails, and the subscription is still wanted.
        """
        manner = {name: value for name, value in manner.items() if name in ("ack", "mode", "batch") and value is not None}
        listener = _Listener(handler, on_gap, manner, epoch, since)
        listener.outcome = Subscription(self._threads.event(), lambda: self._leave(topic, listener))
        with self.lock:
            refusal = self._over or _wrong_subscription(topic, since, epoch)
            if refusal:
                listener.outcome.settle(refusal)
                return listener.outcome
            listener.deadline = self.timers.set(give_up_s, lambda: listener.outcome.settle(self.why()))
            state = self._topics.setdefault(topic, _Topic(topic, self))
            state.add(listener)
            if state.stands and not state.request and not state.asks_again:
                listener.settle(self.timers, None)
            self.tend(state)
        return listener.outcome

    def unsubscribe(self, topic: str) -> Outcome:
        """Ends all subscriptions to the topic. Done when the server has ended them, or the connection has ended."""
        with self.lock:
            state = self._topics.get(topic)
            lefts = [self._leave(topic, listener) for listener in list(state.listeners)] if state else []
        return lefts[-1] if lefts else self._done()

    def publish(self, topic: str, payload: Any, *, id: str | None = None, give_up_s: float = GIVE_UP_S) -> dict[str, Any]:
        """`{topic, seq, epoch, duplicate?}` once it is in the log; sent again under the same id until then. Raises PublishFailed."""
        outcome = Outcome(self._threads.event())
        with self.lock:
            refusal = self._over or self._publish(topic, payload, id, give_up_s, outcome)
        if refusal:
            raise PublishFailed(refusal)
        outcome._event.wait()
        if outcome.error is not None:
            raise PublishFailed(outcome.error)
        return outcome.answer

    def _publish(self, topic: str, payload: Any, id: str | None, give_up_s: float, outcome: Outcome) -> dict | None:
        """The answer where it cannot be sent at all."""
        try:
            text = json.dumps({"type": "publish", "topic": topic, "payload": payload, "id": id or uuid.uuid4().hex}, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            return _bad_request(f"payload must be JSON: {error}.")
        if self.is_too_large(len(text)):
            return self.too_large()
        if len(self.requests.queue) >= MAX_WAITING:
            return {**unavailable(f"{MAX_WAITING} requests wait already."), "code": "limit_exceeded"}
        request = _Request(json.loads(text), outcome.settle, outlives=True, bytes=len(text), accepts=_is_place)
        self.requests.add(request, give_up_s)
        self.requests.pump()
        return None

    def position(self, topic: str) -> dict[str, Any] | None:
        """The last position of a topic, to continue from later: `{since, epoch}`."""
        with self.lock:
            state = self._topics.get(topic)
            return {"since": state.seq, "epoch": state.epoch} if state and state.seq is not None else None

    def close(self) -> None:
        """Ends everything; whatever waits fails with `closed`, and handlers that have not begun are not called."""
        with self.lock:
            self._send_acks()
            self._close({"code": "closed", "message": "closed", "retryable": False})
        self._closed.wait(2.0)

    # The connection

    def _set_state(self, state: str, detail: Any) -> None:
        if self.state != state or state == "refused":
            self.state = state
            self.call(self._on_state, state, detail)

    def call(self, act: Callable, *arguments: Any, listener: Any = None, topic: _Topic | None = None, seq: int | None = None) -> None:
        """Later, in the thread of the handlers. Whatever it raises is logged and changes nothing here."""
        moves = topic.moves if topic else 0

        def run() -> None:
            if listener is not None and (topic is None or listener not in topic.listeners):
                return  # it has left meanwhile
            try:
                act(*arguments)
            except Exception:
                log.exception("switchyard: %s failed", getattr(act, "__qualname__", act))

        def done() -> None:
            with self.lock:
                if topic is not None:
                    self._handled(topic, moves, seq)
                self._catch_up()

        if topic is not None:
            topic.pending += 1
        self._calls.add(run, done)

    def _handled(self, topic: _Topic, moves: int, seq: int | None) -> None:
        topic.pending -= 1
        if seq is not None and topic.moves == moves:
            topic.handled = seq
        self._plan_ack(topic)

    def _catch_up(self) -> None:
        """What was dropped while too many calls waited is asked for again."""
        if self.behind and len(self._calls) <= MAX_CALLS // 2:
            behind, self.behind = self.behind, set()
            for topic in behind:
                topic.ask_again()

    def is_full(self) -> bool:
        return len(self._calls) >= MAX_CALLS

    def report(self, error: dict, topic: _Topic | None = None) -> None:
        if topic or not self.is_full():
            self.call(self._on_error, {**error, "topic": topic.name} if topic else error)

    def why(self) -> dict:
        """Why something that waits is given up."""
        return self._reason or unavailable("There is no answer." if self.is_live else "There is no connection.")

    def _run_timers(self) -> None:
        while not self._ended.is_set():
            with self.lock:
                self.timers.changed.clear()
                due_in = self.timers.run_due()
            self.timers.changed.wait(due_in)

    def _keep_connected(self) -> None:
        """Connects until it is closed. A way that fails without a word of the server is tried next time by the other transport."""
        transports = [["websocket"], ["polling"]] if importlib.util.find_spec("requests") or self._given else [["websocket"]]
        options = {**RECONNECTING, **self._options}
        most = options["reconnection_attempts"] or math.inf if options["reconnection"] else 0
        first_s, most_s = options["reconnection_delay"], options["reconnection_delay_max"]
        failures = 0
        while not self._ended.is_set():
            has_joined, was_refused = self._attempt(transports[0])
            failures = 0 if has_joined else failures + 1
            if not has_joined and not was_refused:
                transports.append(transports.pop(0))
            if failures > most or (has_joined and not most):
                with self.lock:
                    self._close(self._reason or unavailable("All attempts to connect are used up."))
            if not self._ended.is_set():
                self._ended.wait(backoff(max(0, failures - 1), first_s, most_s))
        self._closed.set()

    def _attempt(self, transports: list[str]) -> tuple[bool, bool]:
        """One connection, until it ends: whether the server let it in, and whether the server refused it."""
        self._reason = None
        try:
            token = self._ask_token()
        except Exception as error:  # the caller's function
            self._lost(f"no token: {error}")
            self.report(unavailable(f"The token function failed: {error}"))
            return False, True
        with self.lock:
            self.connection += 1
            connection = self.connection
            sio = self.sio = self._given or _stock_client(self._options)
            self._wake.clear()
        for event, handle in self._handlers(connection).items():
            sio.on(event, handle, namespace=NAMESPACE)
        try:
            sio.connect(self._url, namespaces=[NAMESPACE], auth=lambda: self._auth(token), transports=transports, wait_timeout=JOIN_S)
        except Exception as error:  # whatever it is, this thread tries again
            self._lost(str(error))
            self._hang_up(sio)
            return False, self._reason is not None
        while not self._wake.wait(1.0) and _is_open(sio):
            pass
        self._lost("transport close")
        self._hang_up(sio)
        return True, False

    def _handlers(self, connection: int) -> dict[str, Callable]:
        """Of one connection: what an old one still has to say is passed over."""

        def only_now(handle: Callable) -> Callable:
            def handled(*arguments: Any) -> None:
                with self.lock:
                    if connection == self.connection:
                        handle(*arguments)

            return handled

        return {
            "connect": only_now(self._connected),
            "connect_error": only_now(self._refused),
            "disconnect": only_now(lambda *_: self._wake.set()),
            "message": only_now(self._receive),
        }

    def _ask_token(self) -> str:
        return self._token() if callable(self._token) else self._token

    def _auth(self, token: str) -> dict[str, Any]:
        with self.lock:
            standing = sorted((topic for topic in self._topics.values() if topic.listeners), key=lambda topic: topic.seq is None)
            self._resumed = set(standing[:MAX_RESUMED])
            return {"token": token, "resume": {topic.name: topic.place() for topic in standing[:MAX_RESUMED]}}

    def _connected(self) -> None:
        if self._over:
            self._wake.set()
            return
        self.is_live, self._reason = True, None
        self.requests.answered_at = self._threads.now()
        for topic in self._resumed:
            topic.request = RESUMED
        self._resumed = set()
        self._resume_timer = self.timers.set(ANSWER_S, self._ask_unresumed)
        self._set_state("live", None)
        self._first.settle(None)
        for topic in list(self._topics.values()):
            self.tend(topic)
        self.requests.pump()

    def _lost(self, reason: str) -> None:
        """The connection is gone, and with it all that was asked for on it."""
        with self.lock:
            self.connection += 1
            self.is_live = self._is_renewing = False
            self._resumed = set()
            for timer in (self._ack_timer, self._resume_timer, self._renew_timer):
                self.timers.cancel(timer)
            self._ack_timer = None
            self._news.clear()
            self.requests.disconnected()
            for topic in list(self._topics.values()):
                topic.stands = topic.is_ending = False
                topic.request = None
                self._has_left(topic)
            if self.state not in ("closed", "refused"):
                self._set_state("offline", reason)

    def _refused(self, reason: Any = None) -> None:
        """Either by the server, which says why, or because it is not reached."""
        answer = reason.get("data") if isinstance(reason, dict) else None
        if not isinstance(answer, dict) or not isinstance(answer.get("code"), str):
            log.warning("switchyard: not connected: %s", reason)
            return
        log.warning("switchyard: not connected: %s: %s", answer["code"], answer.get("message"))
        self._reason = answer
        self._set_state("refused", answer)
        may_help = bool(answer.get("retryable")) or (callable(self._token) and answer["code"] != "forbidden")
        if not may_help or not (self._first._event.is_set() or self.may_help(answer)):
            self._first.settle(answer)
            self._give_up(answer)

    def restart(self, reason: str) -> None:
        log.warning("switchyard: a new connection: %s", reason)
        self._wake.set()

    def _hang_up(self, sio: Any) -> None:
        """In a thread of its own, since a polling client waits for its last answer; at the end not, or the process may be gone before."""
        if sio is self._given or self._ended.is_set():
            _disconnect(sio)
        elif _is_open(sio):
            self._threads.start(lambda: _disconnect(sio), "hang-up")

    def _give_up(self, error: dict) -> None:
        self._over = error
        self.requests.end(error)
        for topic in list(self._topics.values()):
            topic.end(error)
            self._has_left(topic)
        self._topics.clear()
        self._ended.set()
        self._wake.set()

    def _close(self, reason: dict) -> None:
        if self.state == "closed":
            return
        self._set_state("closed", reason)
        self._give_up(reason)
        self._lost("closed")
        self._first.settle(reason)
        self._calls.stop()
        self.timers.changed.set()

    # What comes in

    def _receive(self, frame: Any = None, *_: Any) -> None:
        if not isinstance(frame, dict):
            return
        name = frame.get("topic")
        topic = self._topics.get(name) if isinstance(name, str) else None
        if frame.get("type") == "event":
            self._receive_events(topic, frame)
        elif frame.get("type") == "ack":
            self._receive_answer(topic, frame)
        elif frame.get("type") == "error" and isinstance(frame.get("code"), str):
            self._receive_error(topic, frame)

    def _receive_events(self, topic: _Topic | None, frame: dict) -> None:
        if topic is None or not topic.listeners or topic.is_ending:
            return
        events = frame.get("events")
        for event in events if isinstance(events, list) else [frame]:
            topic.receive(frame.get("epoch"), event)
        self._plan_ack(topic)

    def _receive_answer(self, topic: _Topic | None, answer: dict) -> None:
        """Answers to what was asked for with the connection; those to requests come to their callbacks."""
        if topic is not None and _is_place(answer) and topic.request in (None, RESUMED):
            topic.request = None
            self._stands(topic, answer)

    def _receive_error(self, topic: _Topic | None, error: dict) -> None:
        if error["code"] == "token_expired":
            self.renew_token()
        if topic is None:
            if error["code"] in REFUSALS and "id" not in error:
                self._ask_unresumed()  # perhaps the whole resume was refused
            self.report(error)
        elif error["code"] in ("history_gap", "epoch_changed"):
            if topic.listeners and not topic.is_ending:
                topic.miss(error)
        elif error["code"] == "delivery_failed":
            topic.ask_again()
        elif topic.request is RESUMED and self.may_help(error):
            topic.request = None
            self.tend(topic, error)
        elif topic.request is RESUMED or error["code"] in REFUSALS:
            self._end_topic(topic, error)
        else:
            self.report(error)

    # Topics

    def tend(self, topic: _Topic, refusal: dict | None = None) -> None:
        """The one place that compares what is wanted of a topic with what the server was asked for. One request a topic at a time, so that
        the answer to an old one is never taken for that to a new one. `refusal` is why the last one failed."""
        if topic.request or self._topics.get(topic.name) is not topic:
            return
        if topic.listeners:
            if self.is_live and (not topic.stands or topic.asks_again):
                self._ask(topic, refusal)
        elif topic.stands:
            self._ask_to_end(topic)
        else:
            self._has_left(topic)

    def _ask(self, topic: _Topic, refusal: dict | None) -> None:
        """Subscribe, or go back to where the topic stands; asking again does no harm."""
        topic.asks_again = False

        def settle(error: dict | None, answer: dict | None) -> None:
            topic.request = None
            if error is not None:
                self._end_topic(topic, error)
            else:
                self._stands(topic, answer)

        request = _Request(lambda: {"type": "subscribe", "topic": topic.name, **topic.place()}, settle, accepts=_is_place)
        request.on_trouble = lambda error: self.report(error, topic)
        request.on_late = lambda: self._check_topic(topic.name, True)
        topic.request = self.requests.add(request)
        if refusal:
            self.requests.again(request, refusal)
        self.requests.pump()

    def _stands(self, topic: _Topic, answer: dict) -> None:
        topic.stands = True
        topic.subscribed(answer)
        self.tend(topic)

    def _ask_to_end(self, topic: _Topic) -> None:
        topic.is_ending = True  # what still comes is meant for listeners that have gone

        def settle(error: dict | None, answer: dict | None) -> None:
            topic.request = None
            topic.stands = topic.is_ending = False
            self._has_left(topic, error if error and error["code"] != "unknown_topic" else None)
            self.tend(topic)

        request = _Request({"type": "unsubscribe", "topic": topic.name}, settle)
        request.on_late = lambda: self._check_topic(topic.name, False)
        topic.request = self.requests.add(request, GIVE_UP_S)
        self.requests.pump()

    def _check_topic(self, name: str, may_stand: bool) -> None:
        """A late copy was executed, after other requests about this topic: it is asked for, or ended, once more."""
        if name in self._topics:
            self._topics[name].ask_again()
        elif may_stand:
            topic = self._topics[name] = _Topic(name, self)
            topic.stands = True
            self.tend(topic)

    def _has_left(self, topic: _Topic, error: dict | None = None) -> None:
        """Callers that wait for the end of their subscription are told; a topic without listeners, and not being resumed, is forgotten."""
        leaving, topic.leaving = topic.leaving, []
        for settle in leaving:
            settle(error)
        if not topic.listeners and topic not in self._resumed and self._topics.get(topic.name) is topic:
            del self._topics[topic.name]

    def _leave(self, name: str, listener: _Listener) -> Outcome:
        with self.lock:
            listener.settle(self.timers, {"code": "unsubscribed", "message": "unsubscribed", "retryable": False})
            topic = self._topics.get(name)
            if topic is None or listener not in topic.listeners:
                return listener.left or self._done()
            topic.remove(listener)
            if topic.listeners:
                listener.left = self._done()
                return listener.left
            left = listener.left = Outcome(self._threads.event())
            deadline = self.timers.set(GIVE_UP_S, lambda: left.settle(self.why()))
            topic.leaving.append(lambda error: (self.timers.cancel(deadline), left.settle(error)))
            if topic.request and topic.request is not RESUMED and topic.request.attempt == 0:  # it was never sent
                self.requests.drop(topic.request)
                topic.request = None
            self.tend(topic)
            return left

    def _done(self) -> Outcome:
        outcome = Outcome(self._threads.event())
        outcome.settle(None)
        return outcome

    def _end_topic(self, topic: _Topic, error: dict) -> None:
        """The server will not have this topic; the others are not concerned."""
        if topic.request and topic.request is not RESUMED:
            self.requests.drop(topic.request)
        topic.request = None
        topic.stands = topic.is_ending = False
        if topic.listeners:
            self.report(error, topic)
        topic.end(error)
        self._has_left(topic)

    def _ask_unresumed(self) -> None:
        """What was asked for with the connection and has no answer is asked for one by one."""
        for topic in [each for each in self._topics.values() if each.request is RESUMED]:
            topic.request = None
            topic.stands = not topic.listeners  # where it is not wanted any more it may stand, and is ended
            self.tend(topic)

    # What goes out

    def emit(self, frame: dict, callback: Callable | None = None) -> None:
        try:
            self.sio.emit("message", frame, namespace=NAMESPACE, callback=callback)
        except socketio.exceptions.SocketIOError:
            pass  # the connection has just ended
        except Exception:
            log.exception("switchyard: a frame could not be sent")

    def may_help(self, answer: dict, renews: bool = True) -> bool:
        """To send it again: also while an expired token is being renewed."""
        return answer.get("retryable") is True or (answer["code"] == "token_expired" and callable(self._token) and renews)

    def is_too_large(self, size: int) -> bool:
        return size + ENVELOPE_BYTES > self._max_frame_bytes

    def too_large(self) -> dict:
        message = f"The server takes no message of more than {self._max_frame_bytes} bytes."
        return {"type": "error", "code": "payload_too_large", "message": message, "retryable": False}

    def _plan_ack(self, topic: _Topic) -> None:
        if topic.manner.get("ack") is not False and self.is_live:
            self._news.add(topic)
            self._ack_timer = self._ack_timer or self.timers.set(ACK_AFTER_S, self._send_acks)

    def _send_acks(self) -> None:
        self._ack_timer = self.timers.cancel(self._ack_timer)
        ready = [topic for topic in self._news if topic.stands and not topic.is_ending and topic.acknowledged() is not None]
        self._news.clear()
        if self.is_live and ready:
            self.emit({"type": "ack", "acks": {topic.name: topic.acknowledged() for topic in ready}})

    def renew_token(self) -> None:
        """In a thread of its own: the function is the caller's and may take its time."""
        if callable(self._token) and self.is_live and not self._is_renewing:
            self._is_renewing = True
            connection = self.connection
            self._threads.start(lambda: self._renew(connection), "token")

    def _renew(self, connection: int) -> None:
        try:
            token, failure = self._ask_token(), None
        except Exception as error:  # the caller's function
            token, failure = None, unavailable(f"The token function failed: {error}")
        with self.lock:
            if connection != self.connection:
                return  # the connection has changed
            if failure:
                self._renewed(failure, None)
            else:
                self.requests.add(_Request({"type": "auth", "token": token}, self._renewed, renews=False))
                self.requests.pump()

    def _renewed(self, error: dict | None, _answer: dict | None) -> None:
        if error and error["code"] == "forbidden":
            self.restart("the token is of another user")
        elif error:
            self.report(error)
            self._renew_timer = self.timers.set(backoff(2), self._renew_again)
        else:
            self._is_renewing = False
            self.requests.wake()

    def _renew_again(self) -> None:
        self._is_renewing = False
        self.renew_token()


def _bad_request(message: str) -> dict:
    return {"type": "error", "code": "bad_request", "message": message, "retryable": False}


def _wrong_subscription(topic: Any, since: Any, epoch: Any) -> dict | None:
    if not isinstance(topic, str) or not 0 < len(topic) <= 255:
        return _bad_request("A topic is a string of 1 to 255 characters.")
    if not (since is None or (_is_seq(since) and since >= 0)) or not (epoch is None or isinstance(epoch, str)):
        return _bad_request("since is a whole number from 0 and epoch a string, as `position` gives them.")
    return None


def _log_error(error: dict) -> None:
    log.warning("switchyard: %s: %s", " on ".join(filter(None, (error.get("code"), error.get("topic")))), error.get("message"))


def _is_open(sio: Any) -> bool:
    eio = getattr(sio, "eio", None)
    return sio.connected if eio is None else eio.state != "disconnected"


def _disconnect(sio: Any) -> None:
    with contextlib.suppress(Exception):  # it is thrown away
        sio.disconnect()


class _Reader(engineio.Client):
    """Handles packets in the thread that reads them. The stock client starts a thread for each, which reorders them and knows no limit."""

    def start_background_task(self, target: Callable, *args: Any, **kwargs: Any) -> Any:
        is_disconnect = args and isinstance(args[0], str) and args[0].startswith("1")  # its handler waits for the thread that reads
        if target is not self.handlers.get("message") or is_disconnect:
            return super().start_background_task(target, *args, **kwargs)
        try:
            target(*args, **kwargs)
        except Exception:
            log.exception("switchyard: a packet could not be handled")
        return None


class _Stock(socketio.Client):
    def _engineio_client_class(self) -> type:
        return _Reader


def _stock_client(options: dict[str, Any]) -> socketio.Client:
    if importlib.util.find_spec("websocket") is None:  # else it would try for ever, and say nothing
        raise ImportError('RealtimeClient speaks WebSocket through websocket-client: pip install "python-socketio[client]"')
    return _Stock(**{"request_timeout": JOIN_S, **options, "reconnection": False})
