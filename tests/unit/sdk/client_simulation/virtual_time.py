"""Threads and time for the client: greenlets that change only where one waits, and a clock that jumps to what is due next."""

import heapq
import itertools
from collections.abc import Callable
from contextlib import nullcontext

import greenlet


class VirtualTime:
    """The twin of the client's Threads."""

    def __init__(self):
        self.time = 0.0
        self.running: set[str] = set()
        self.errors: list[Exception] = []
        self._heap: list = []
        self._order = itertools.count()
        self._hub = greenlet.getcurrent()

    def now(self) -> float:
        return self.time

    def event(self) -> "VirtualEvent":
        return VirtualEvent(self)

    def lock(self):
        return nullcontext()

    def start(self, run: Callable[[], None], name: str) -> None:
        name = f"{name} {next(self._order)}"

        def guarded():
            self.running.add(name)
            try:
                run()
            except Exception as error:
                self.errors.append(error)
            self.running.discard(name)

        self.later(0, greenlet.greenlet(guarded, self._hub).switch)

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.time + max(0.0, delay_s), next(self._order), act))

    def sleep(self, delay_s: float) -> None:
        self.event().wait(delay_s)

    def wait(self) -> None:
        self._hub.switch()

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.time, _, act = heapq.heappop(self._heap)
            act()
        self.time = until


class VirtualEvent:
    def __init__(self, time: VirtualTime):
        self._time = time
        self._is_set = False
        self._waiting: list = []

    def is_set(self) -> bool:
        return self._is_set

    def clear(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            self._time.later(0, waiter)

    def wait(self, timeout: float | None = None) -> bool:
        if self._is_set:
            return True
        me, is_over = greenlet.getcurrent(), []

        def wake():
            if not is_over:
                is_over.append(True)
                me.switch()

        self._waiting.append(wake)
        if timeout is not None:
            self._time.later(timeout, wake)
        self._time.wait()
        if wake in self._waiting:
            self._waiting.remove(wake)
        return self._is_set
