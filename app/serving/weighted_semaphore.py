"""A bound on what is held at once, where callers hold different amounts of it and belong to different parties.

The invariant: what is held never exceeds `capacity`. Waiting parties are admitted in turn, one caller each, and the callers of one
party in the order in which they came; no caller passes the one whose turn it is. So the callers of one party never keep another
party's caller waiting behind all of them, and small ones cannot keep a large one waiting for ever.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from gevent.event import Event


class Caller(NamedTuple):
    weight: int
    admitted: Event


class WeightedSemaphore:
    def __init__(self, capacity: int):
        self._capacity = capacity
        self._held = 0
        self._waiting: dict[str, deque[Caller]] = {}  # by party, the next one first; no queue is empty

    @contextmanager
    def hold(self, weight: int, party: str = "") -> Iterator[None]:
        """Waits until so much is free. More than the capacity counts as all of it."""
        weight = min(weight, self._capacity)
        self._acquire(weight, party)
        try:
            yield
        finally:
            self._held -= weight
            self._admit()

    def _acquire(self, weight: int, party: str) -> None:
        caller = Caller(weight, Event())
        self._waiting.setdefault(party, deque()).append(caller)
        self._admit()
        try:
            caller.admitted.wait()
        except BaseException:
            self._give_up(caller, party)
            raise

    def _admit(self) -> None:
        while self._waiting:
            party, queue = next(iter(self._waiting.items()))
            if self._held + queue[0].weight > self._capacity:
                return
            caller = queue.popleft()
            del self._waiting[party]
            if queue:
                self._waiting[party] = queue  # behind the other parties
            self._held += caller.weight
            caller.admitted.set()

    def _give_up(self, caller: Caller, party: str) -> None:
        """The caller was killed while it waited."""
        if caller.admitted.is_set():
            self._held -= caller.weight
        else:
            queue = self._waiting[party]
            queue.remove(caller)
            if not queue:
                del self._waiting[party]
        self._admit()
