"""Token buckets of bytes, one for each name: so many a second on average, so many at once. The caller brings the time, from a
monotonic clock, in seconds.

What can fill up: the buckets of names. Only the most recently used are remembered; one that is forgotten begins full again, so a
sender with more addresses than that is held by the budget of its write key alone.
"""

from collections import OrderedDict

MAX_PARTIES = 10_000


class TokenBucket:
    """`left` is valid for the time of the last look at it; below zero it is a debt."""

    __slots__ = ("left", "since")

    def __init__(self, left: float, since: float):
        self.left = left
        self.since = since


class TokenBuckets:
    def __init__(self, bytes_per_s: float, burst_s: float, max_parties: int = MAX_PARTIES):
        self.bytes_per_s = bytes_per_s
        self._burst = bytes_per_s * burst_s
        self._max_parties = max_parties
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def bucket(self, name: str, now: float) -> TokenBucket:
        """As full as it is now."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(self._burst, now)
            if len(self._buckets) > self._max_parties:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(name)
        left = bucket.left + (now - bucket.since) * self.bytes_per_s
        bucket.left = left if left < self._burst else self._burst
        bucket.since = now
        return bucket

    def wait_s(self, bucket: TokenBucket, size: int) -> float:
        """0 where so many bytes may be taken now. More than a bucket holds may be taken when it is full: the debt is waited for by
        the next."""
        if bucket.left >= size:
            return 0.0
        return max(0.0, min(size, self._burst) - bucket.left) / self.bytes_per_s

    def __len__(self) -> int:
        return len(self._buckets)
