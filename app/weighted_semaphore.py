"""A bound on what is held at once, where callers hold different amounts of it.

The invariant: what is held never exceeds `capacity`, and callers that wait are admitted in the order in which they came, so that
small ones cannot keep a large one waiting for ever.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from gevent.event import Event


class WeightedSemaphore:
    def __init__(self, capacity: int):
        self._capacity = capacity
        self._held = 0
        self._waiting: deque[tuple[int, Event]] = deque()

    @contextmanager
    def hold(self, weight: int) -> Iterator[None]:
        """Waits until so much is free. More than the capacity counts as all of it."""
        weight = min(weight, self._capacity)
        self._acquire(weight)
        try:
            yield
        finally:
            self._held -= weight
            self._admit()

    def _acquire(self, weight: int) -> None:
        mine = (weight, Event())
        self._waiting.append(mine)
        self._admit()
        try:
            mine[1].wait()
        except BaseException:
            self._give_up(mine)
            raise

    def _admit(self) -> None:
        while self._waiting and self._held + self._waiting[0][0] <= self._capacity:
            weight, admitted = self._waiting.popleft()
            self._held += weight
            admitted.set()

    def _give_up(self, mine: tuple[int, Event]) -> None:
        """The caller was killed while it waited."""
        if mine in self._waiting:
            self._waiting.remove(mine)
        else:
            self._held -= mine[0]
        self._admit()
