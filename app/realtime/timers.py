"""All deadlines of all clients in one heap: no greenlet and no callback of its own for any of them.

A deadline that is moved to a later time, as every acknowledgement does, costs one dictionary write: the heap is put right
only when the old time comes. A deadline that was cancelled or moved forward leaves a stale place behind.

Invariant: the heap has at most twice as many places as there are deadlines, and SLACK more. So a deadline far away (the end of
a token of a year) that is cancelled does not stay until its time.
"""

import heapq
from collections.abc import Callable, Hashable, Iterator

SLACK = 64  # stale places that are not worth a sweep


class Timers:
    """One deadline a key, in milliseconds. `on_earlier` is called when the next one comes sooner than it was."""

    def __init__(self, on_earlier: Callable[[], None] = lambda: None):
        self.on_earlier = on_earlier
        self._deadlines: dict[Hashable, int] = {}
        self._queued: dict[Hashable, int] = {}  # the earliest place of each key in the heap
        self._heap: list[tuple[int, int, Hashable]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._deadlines

    def set(self, key: Hashable, at: int) -> None:
        self._deadlines[key] = at
        if at < self._queued.get(key, at + 1):
            self._push(key, at)

    def cancel(self, key: Hashable) -> None:
        if self._deadlines.pop(key, None) is not None:
            self._sweep_if_stale()

    @property
    def next(self) -> int | None:
        """When to call `due`; a little early where a deadline was moved or cancelled."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: int) -> Iterator[Hashable]:
        """Every key whose time has come, each taken away before it is given out."""
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._queued.get(key) != at:
                continue  # an earlier place was made for it since, and has been served
            del self._queued[key]
            deadline = self._deadlines.get(key)
            if deadline is None:
                continue
            if deadline > now:
                self._push(key, deadline)
            else:
                del self._deadlines[key]
                yield key

    def bring_forward(self, by: int, only: Callable[[Hashable], bool]) -> None:
        """Those of these keys so much sooner: for a clock that was set back."""
        self._heap.clear()
        self._queued.clear()
        for key, at in self._deadlines.items():
            self._deadlines[key] = at - by if only(key) else at
            self._push(key, self._deadlines[key])

    def _push(self, key: Hashable, at: int) -> None:
        self._queued[key] = at
        self._count += 1  # keys need not be comparable
        is_next = not self._heap or at < self._heap[0][0]
        heapq.heappush(self._heap, (at, self._count, key))
        self._sweep_if_stale()
        if is_next:
            self.on_earlier()

    def _sweep_if_stale(self) -> None:
        """Keeps the places that still count. It halves the heap at least, so that each cancelled deadline pays for a constant part."""
        if len(self._heap) <= 2 * len(self._deadlines) + SLACK:
            return
        self._queued = {key: at for key, at in self._queued.items() if key in self._deadlines}
        self._heap = [place for place in self._heap if self._queued.get(place[2]) == place[0]]
        heapq.heapify(self._heap)
