"""Taking turns. gevent switches only where a greenlet waits, and one that always has more to do never would.

`gevent.sleep(0)` is not enough: whoever sleeps so runs again, up to fifty times, before the loop looks at a socket once.
Here all who have used up their turn stand in one line, and one of them goes on each time that the loop has looked at
every socket; so what anybody else waits is one turn, however many have more to do than that.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

TIME_SLICE_S = 0.002
JUST_BEGAN_S = 0.0005
NEXT_ITERATION_S = 1e-6  # any time at all: a timer is served after the sockets were looked at
NOTICEABLE_BYTES = 16_384
LARGE_BYTES = 65_536  # to decode, inflate or encode as much in one piece takes about a turn
AT_ONCE_S = 0.0001  # a read that took longer has waited, and the others had their turn meanwhile

_line: deque[Event] = deque()  # one a process, as there is one loop


def yield_to_others() -> None:
    """Returns when every socket has been looked at since, and those who stood in line before had their turn."""
    mine = Event()
    _line.append(mine)
    if len(_line) == 1:
        gevent.spawn(_usher)
    mine.wait()


def yield_before_large(size_bytes: int) -> None:
    """To be called before more than LARGE_BYTES are decoded, inflated or encoded in one piece: of many such pieces that arrive
    together, one is worked on each time that the loop has looked at every socket. Where it has just looked, and nobody stands in
    line, that is now."""
    if size_bytes > LARGE_BYTES and (_line or time.monotonic() - _iteration_began() >= JUST_BEGAN_S):
        yield_to_others()


def yield_if_slice_is_over(size_bytes: int) -> None:
    """To be called before more than NOTICEABLE_BYTES are worked on. Forty requests that arrive together are all started before the
    loop looks at a socket again: those that come after the first TIME_SLICE_S of that round stand in line. Smaller pieces go on, since
    standing in line would cost them more than it saves the others."""
    if size_bytes > NOTICEABLE_BYTES and time.monotonic() - _iteration_began() >= TIME_SLICE_S:
        yield_to_others()


def _iteration_began() -> float:
    """When the loop last looked at the sockets, in seconds of time.monotonic()."""
    hub = gevent.get_hub()
    round_ = getattr(hub, "switchyard_round", None)
    if round_ is None:
        round_ = hub.switchyard_round = _Round(hub.loop)
    return round_.began


class _Round:
    """The work of a loop between two looks at its sockets. Kept at the hub, since a local of the thread is one of the greenlet in
    a process that is patched."""

    def __init__(self, loop: Any):
        self.began = time.monotonic()
        self._watcher = loop.check(ref=False)
        self._watcher.start(self._note)

    def _note(self) -> None:
        self.began = time.monotonic()


def _usher() -> None:
    while _line:
        gevent.sleep(NEXT_ITERATION_S)
        _line.popleft().set()


class TimeSlice:
    """How long one greenlet has been working: `waited_since` after everything that may have waited, `check` before more work.
    `now` gives seconds that never go back. A turn is so long by `worked`, which is `now` where none is given."""

    def __init__(self, now: Callable[[], float] = time.monotonic, worked: Callable[[], float] | None = None):
        self._now = now
        self._worked = worked or now
        self._ends = self._worked() + TIME_SLICE_S

    @classmethod
    def of_cpu_time(cls) -> "TimeSlice":
        """One that counts only the process's work. While the machine has the process wait, the next request arrives and is read at
        once; a client that did nothing but that must not stand in line behind all who work on expensive requests."""
        return cls(worked=time.thread_time)

    @classmethod
    def of_loop_iteration(cls) -> "TimeSlice":
        """One that ends with the first TIME_SLICE_S of this round, for work that many requests may begin with at once."""
        time_slice = cls()
        time_slice._ends = _iteration_began() + TIME_SLICE_S
        return time_slice

    def restart_if_waited(self, started: float) -> None:
        """`started` is the time before the wait, by the same clock."""
        if self._now() - started > AT_ONCE_S:
            self._ends = self._worked() + TIME_SLICE_S

    def yield_if_over(self) -> None:
        if self._worked() >= self._ends:
            yield_to_others()
            self._ends = self._worked() + TIME_SLICE_S
