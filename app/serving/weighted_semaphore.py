"""A semaphore whose callers take different amounts of one capacity. Each caller belongs to a party.

Invariant: the amounts held never exceed `capacity`. Waiting parties are admitted round-robin, one caller at a time, and
the callers of one party in order of arrival. While the next caller does not fit, no other one is admitted. So no party waits behind all
callers of another, and small callers cannot starve a large one.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from gevent.event import Event


class Caller(NamedTuple):
    """A waiting caller: the amount that it asks for, and the event that admits it."""

    weight: int
    admitted: Event


class WeightedSemaphore:
    """Admits callers while the sum of their weights is at most `capacity`, in any unit."""

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._held = 0
        self._waiting: dict[str, deque[Caller]] = {}  # by party, the next party first; no queue is empty

    @contextmanager
    def hold(self, weight: int, party: str = "") -> Iterator[None]:
        """Wait until `weight` is free, and hold it inside the `with` block. A weight above the capacity takes the whole capacity."""
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
        """Remove a caller whose greenlet was killed while it waited."""
        if caller.admitted.is_set():
            self._held -= caller.weight
        else:
            queue = self._waiting[party]
            queue.remove(caller)
            if not queue:
                del self._waiting[party]
        self._admit()
