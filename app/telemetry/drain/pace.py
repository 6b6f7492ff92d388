"""How fast the drainer goes. Pure: takes how long things took, returns how long to rest and how much to take next.

Live traffic comes first, and no number that somebody has to guess decides it: after each chunk the drainer rests for a
multiple of the time that the chunk took, so that a MongoDB that is slow, because it is busy or has just come back, is
asked for less, all by itself. The ceiling in events per second is for whoever knows better.
"""

REST_WHEN_IDLE = 0.25  # of the time a chunk took: at most 80 % of one connection
REST_WHEN_BUSY = 3.0  # while live events arrive, at whichever worker: at most a quarter
FULL_CHUNK = 500
SMALLEST_CHUNK = 20
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0


class Pace:
    def __init__(self, max_per_second: int):
        self._max_per_second = max_per_second
        self._wait_s = 0.0
        self.chunk = FULL_CHUNK

    def worked(self, events: int, took_s: float, is_busy: bool) -> float:
        """Seconds to rest after a chunk of so many events was acknowledged."""
        self.chunk, self._wait_s = min(FULL_CHUNK, self.chunk * 2), 0.0
        share = took_s * (REST_WHEN_BUSY if is_busy else REST_WHEN_IDLE)
        return max(share, events / self._max_per_second - took_s)

    def failed(self) -> float:
        """Seconds to wait before MongoDB is asked again, and then for less: it may have been too slow for so much."""
        self.chunk = max(SMALLEST_CHUNK, self.chunk // 2)
        self._wait_s = min(LONGEST_WAIT_S, self._wait_s * 2 or FIRST_WAIT_S)
        return self._wait_s
