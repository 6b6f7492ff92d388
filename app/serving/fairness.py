"""Fairness between greenlets: long work yields after two milliseconds.

gevent switches only where a greenlet waits, and a greenlet that always has more to do never waits. `gevent.sleep(0)` is not enough:
gevent resumes such a greenlet up to fifty times before the loop polls a socket once. So greenlets that have used up their time slice
wait in one queue, and the loop resumes one of them after each poll of all sockets. Every other greenlet waits for at most one time
slice, however many greenlets are busy.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

TIME_SLICE_S = 0.002
JUST_BEGAN_S = 0.0005
NEXT_ITERATION_S = 1e-6  # any delay works: the loop runs timers after it has polled the sockets
NOTICEABLE_BYTES = 16_384
LARGE_BYTES = 65_536  # decoding, inflating or encoding this many bytes in one piece takes about one time slice
AT_ONCE_S = 0.0001  # a read that took longer has waited, and other greenlets ran meanwhile

_queue: deque[Event] = deque()  # one queue for the process, because it has one event loop


def yield_to_others() -> None:
    """Wait until the loop has polled all sockets and has resumed all greenlets that were in the queue before this one."""
    mine = Event()
    _queue.append(mine)
    if len(_queue) == 1:
        gevent.spawn(_resume_one_per_iteration)
    mine.wait()


def yield_before_large(size_bytes: int) -> None:
    """Yield before more than LARGE_BYTES are decoded, inflated or encoded in one piece.

    When many such pieces arrive together, each iteration of the loop processes one. This returns at once where the iteration has just
    begun and no other greenlet is in the queue.
    """
    if size_bytes > LARGE_BYTES and (_queue or time.monotonic() - _iteration_began() >= JUST_BEGAN_S):
        yield_to_others()


def yield_if_slice_is_over(size_bytes: int) -> None:
    """Yield before more than NOTICEABLE_BYTES are processed, where this iteration of the loop has lasted TIME_SLICE_S already.

    When forty requests arrive together, the loop starts all of them before it polls a socket again. Smaller pieces do not yield, since
    the queue would cost them more than it saves other greenlets.
    """
    if size_bytes > NOTICEABLE_BYTES and time.monotonic() - _iteration_began() >= TIME_SLICE_S:
        yield_to_others()


def _iteration_began() -> float:
    """Return the time of the loop's last poll of the sockets, in seconds of time.monotonic()."""
    hub = gevent.get_hub()
    iteration = getattr(hub, "switchyard_iteration", None)
    if iteration is None:
        iteration = hub.switchyard_iteration = _LoopIteration(hub.loop)
    return iteration.began


class _LoopIteration:
    """Remembers when the current iteration of the loop began.

    It is an attribute of the hub, because a thread-local variable is local to one greenlet in a patched process.
    """

    def __init__(self, loop: Any):
        self.began = time.monotonic()
        self._watcher = loop.check(ref=False)
        self._watcher.start(self._restart)

    def _restart(self) -> None:
        self.began = time.monotonic()


def _resume_one_per_iteration() -> None:
    while _queue:
        gevent.sleep(NEXT_ITERATION_S)
        _queue.popleft().set()


class TimeSlice:
    """The time that one greenlet may work before it yields.

    Call `restart_if_waited` after each operation that may wait, and `yield_if_over` before more work. `now` returns seconds of a clock
    that never goes back. `worked` returns the seconds that count towards the slice; the default is `now`.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, worked: Callable[[], float] | None = None):
        self._now = now
        self._worked = worked or now
        self._ends = self._worked() + TIME_SLICE_S

    @classmethod
    def of_cpu_time(cls) -> "TimeSlice":
        """Return a slice that counts only the CPU time of this thread.

        While the machine runs other processes, a client's next request may arrive, and then the next read does not wait. Such pauses must
        not use up the slice, or a client with cheap requests would queue behind clients with expensive ones.
        """
        return cls(worked=time.thread_time)

    @classmethod
    def of_loop_iteration(cls) -> "TimeSlice":
        """Return a slice that began with this iteration of the loop, for work that many requests share."""
        time_slice = cls()
        time_slice._ends = _iteration_began() + TIME_SLICE_S
        return time_slice

    def restart_if_waited(self, started: float) -> None:
        """Begin a new slice where the operation that began at `started`, a value of `now`, has waited."""
        if self._now() - started > AT_ONCE_S:
            self._ends = self._worked() + TIME_SLICE_S

    def yield_if_over(self) -> None:
        """Yield to other greenlets where the slice is used up, and begin a new one."""
        if self._worked() >= self._ends:
            yield_to_others()
            self._ends = self._worked() + TIME_SLICE_S
