"""Token buckets: a rate on average, a burst at once. Pure: the caller passes the time.

Only the buckets of the most recently used names are remembered. A forgotten bucket starts full again, so a client that
publishes to more topics than that is limited by the rate of its connection alone.
"""

from collections import OrderedDict
from dataclasses import dataclass

from limits import parse

MAX_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per millisecond on average, and at once."""

    per_ms: float
    burst: float

    @classmethod
    def of(cls, text: str, burst: int | None = None) -> "Rate":
        """Parse a rate like `50/second`. Without `burst` a bucket holds the tokens of one period of the rate, of a second at most."""
        rate = parse(text)
        per_ms = rate.amount / (rate.get_expiry() * 1000)
        return cls(per_ms, burst or max(1.0, min(rate.amount, per_ms * 1000)))


class Bucket:
    """One bucket. It starts full."""

    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: Rate, now: int):
        self._rate = rate
        self._left = rate.burst
        self._since = now

    def take(self, now: int, count: int = 1) -> int:
        """Take `count` tokens and return 0, or return the milliseconds until there are enough and take none.

        A request for more than the bucket can hold is served when it is full. The next request waits for the debt.
        """
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
    """Buckets of one rate by name, in this process."""

    def __init__(self, rate: Rate, max_buckets: int = MAX_BUCKETS):
        self._rate = rate
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, name: str, now: int, count: int = 1) -> int:
        """Take tokens from the bucket of this name, as `Bucket.take` does."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(self._rate, now)
            if len(self._buckets) > self._max_buckets:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        return bucket.take(now, count)
