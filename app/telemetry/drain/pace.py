"""Decides how fast the drainer works. Pure: it takes durations, and returns how long to rest and how many events to take next.

Live traffic comes first, without a figure that an operator has to guess: after each chunk the drainer rests for a multiple of the
time that the chunk took. So a MongoDB that is slow, because it is busy or has just started, gets less to do. An operator who needs a
limit sets SPOOL_DRAIN_EVENTS_PER_SECOND.
"""

REST_WHEN_IDLE = 0.25  # of the time that the chunk took: the drainer uses at most 80 % of one connection
REST_WHEN_BUSY = 3.0  # while live events arrive at any worker: at most a quarter
FULL_CHUNK = 500
SMALLEST_CHUNK = 20
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0


class Pace:
    """`chunk` is how many events to take next."""

    def __init__(self, max_per_second: int):
        self._max_per_second = max_per_second
        self._wait_s = 0.0
        self.chunk = FULL_CHUNK

    def worked(self, events: int, took_s: float, is_busy: bool) -> float:
        """Return the seconds to rest after MongoDB acknowledged a chunk of so many events."""
        self.chunk, self._wait_s = min(FULL_CHUNK, self.chunk * 2), 0.0
        share = took_s * (REST_WHEN_BUSY if is_busy else REST_WHEN_IDLE)
        return max(share, events / self._max_per_second - took_s)

    def failed(self) -> float:
        """Return the seconds to wait before the next attempt. It takes a smaller chunk: MongoDB may have been too slow for this one."""
        self.chunk = max(SMALLEST_CHUNK, self.chunk // 2)
        self._wait_s = min(LONGEST_WAIT_S, self._wait_s * 2 or FIRST_WAIT_S)
        return self._wait_s
