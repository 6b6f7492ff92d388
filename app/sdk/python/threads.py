"""What the client takes of the machine, and what it makes of it: threads, timers, calls of the caller's functions, outcomes to wait for."""

import heapq
import itertools
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .errors import SubscribeFailed


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


class Timers:
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


class Calls:
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


def backoff(attempt: int, first: float = 0.25, most: float = 10.0) -> float:
    return min(most, first * 2 ** min(attempt, 20)) * random.uniform(0.5, 1.5)
