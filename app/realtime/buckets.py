"""Token buckets: so many a second on average, so many at once. Pure; whoever asks brings the time.

Buckets of topics are remembered for the most recently used names only. One that is forgotten begins full again, so
whoever talks on more topics than that is held by the limit of the connection alone.
"""

from collections import OrderedDict
from dataclasses import dataclass

from limits import parse

MAX_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    per_ms: float
    burst: float

    @classmethod
    def of(cls, text: str, burst: int | None = None) -> "Rate":
        """`50/second`; without a burst of its own a bucket holds what comes in together in one of the rate's periods, at most a second."""
        rate = parse(text)
        per_ms = rate.amount / (rate.get_expiry() * 1000)
        return cls(per_ms, burst or max(1.0, min(rate.amount, per_ms * 1000)))


class Bucket:
    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: Rate, now: int):
        self._rate = rate
        self._left = rate.burst
        self._since = now

    def take(self, now: int, count: int = 1) -> int:
        """0 where there were as many, which are taken; else in how many milliseconds there will be. A request for more than
        the bucket holds is served when it is full, and its debt is waited for by the next."""
        self._refill(now)
        needed = min(count, self._rate.burst)
        if self._left < needed:
            return int((needed - self._left) / self._rate.per_ms) + 1
        self._left -= count
        return 0

    def _refill(self, now: int) -> None:
        self._left = min(self._rate.burst, self._left + max(0, now - self._since) * self._rate.per_ms)
        self._since = now


class MemoryBuckets:
    """Named buckets of one rate, in this process."""

    def __init__(self, rate: Rate, max_buckets: int = MAX_BUCKETS):
        self._rate = rate
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, name: str, now: int, count: int = 1) -> int:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(self._rate, now)
            if len(self._buckets) > self._max_buckets:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        return bucket.take(now, count)
