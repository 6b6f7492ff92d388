"""How much one transport session may send, across all namespaces that it joins and leaves. Pure: the caller passes the time.

Invariants:
- In any period a session executes at most the burst plus the rate times the period. Leaving a namespace is always allowed.
  Leaving, joining again and joining a second namespace give no tokens back.
- A frame over the rate is rejected with an answer, and rejections alone end no session. A session is ended only if it sends
  FLOOD_FACTOR times the rate in every second for RT_FLOOD_MS.
"""

from functools import lru_cache

from app.realtime.buckets import Bucket, Rate
from app.realtime.options import Options

FLOOD_FACTOR = 4  # times the rate; a client that only retries too early stays below
READ_FACTOR = 8  # times the rate is the most that is read: enough to detect a flood, while the rest waits in the sender's system
LONGEST_PAUSE_MS = 100
LONGEST_ADVICE_MS = 10_000
MAX_REFUSED_CONNECTS = 5  # in a row

_rate_of = lru_cache(maxsize=16)(Rate.of)


class Allowance:
    """The rate of one transport session, with its detection of floods and of refused connects."""

    __slots__ = ("_advised", "_bucket", "_flood_count", "_flood_seconds", "_flooded", "_in_second", "_rate", "_refused_connects",
                 "_second", "has_resumed", "pause_ms")  # fmt: skip

    def __init__(self, options: Options, now: int):
        self._rate = _rate_of(options.connection_rate, options.connection_burst)
        self._bucket = Bucket(self._rate, now)
        self._advised = now  # when the last rejected frame was advised to be sent again
        self._flood_count = FLOOD_FACTOR * max(1, 1000 * self._rate.per_ms)  # frames of one second
        self._flood_seconds = -(-options.flood_ms // 1000) + 1  # the first one may have been half over
        self._second, self._in_second, self._flooded = now // 1000, 0, 0
        self._refused_connects = 0
        self.pause_ms = 0.0  # after a rejection: how long the transport stops reading
        self.has_resumed = False  # the first resume of a session costs no more than its CONNECT

    def take(self, now: int) -> int:
        """Return 0 if one more frame is within the rate, else the milliseconds after which the client should send it again.

        Frames that are rejected together get successive times, so that a client that waits as advised sends them at the rate.
        """
        self._count(now)
        wait_ms = self._bucket.take(now)
        if not wait_ms:
            return 0
        self.pause_ms = min(LONGEST_PAUSE_MS, wait_ms / READ_FACTOR)
        self._advised = min(max(now + wait_ms, self._advised + 1 / self._rate.per_ms), now + max(wait_ms, LONGEST_ADVICE_MS))
        return int(self._advised - now) + 1

    @property
    def is_flooding(self) -> bool:
        """Whether the session has sent many times its rate for RT_FLOOD_MS."""
        return self._flooded >= self._flood_seconds

    def note_connect(self, was_let_in: bool) -> bool:
        """Count a CONNECT. Returns whether the session has had too many refused ones in a row."""
        self._refused_connects = 0 if was_let_in else self._refused_connects + 1
        return self._refused_connects >= MAX_REFUSED_CONNECTS

    def _count(self, now: int) -> None:
        second = now // 1000
        if second != self._second:
            is_flood = self._in_second >= self._flood_count and second == self._second + 1
            self._flooded = self._flooded + 1 if is_flood else 0
            self._second, self._in_second = second, 0
        self._in_second += 1
