"""A bucket has the counts of one application and env for one minute, hour or day. Buckets are stored, sent and added up. Pure.

Hours and days are stored beside the minutes, so that a year by days reads 365 buckets and not half a million.
"""

from collections.abc import Iterable

from msgspec import Struct

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
LEVELS_MS = (MINUTE_MS, HOUR_MS, DAY_MS)
BUCKETS_A_DELTA = 100  # a store writes so many at once

Counts = dict[str, dict[str, int]]
Sketches = dict[str, dict[str, dict[int, int]]]


class Bucket(Struct):
    """`at` is its first millisecond. `counts` has events by type and name, `failed` the failed api events by name, and `values` a
    sketch of the values of perf and api events by type and name. In a delta, `narrowest_ms` is the narrowest level that the bucket is
    added to: events of long ago are counted in their day, and in no hour or minute."""

    app: str
    env: str | None
    at: int
    counts: Counts = {}
    failed: dict[str, int] = {}
    values: Sketches = {}
    narrowest_ms: int = MINUTE_MS

    def add(self, other: "Bucket") -> None:
        """Add the counts of the other bucket to this one."""
        for type_, names in other.counts.items():
            _add(self.counts.setdefault(type_, {}), names)
        _add(self.failed, other.failed)
        for type_, sketches in other.values.items():
            mine = self.values.setdefault(type_, {})
            for name, sketch in sketches.items():
                _add(mine.setdefault(name, {}), sketch)

    def without(self, other: "Bucket") -> "Bucket":
        """Return the counts of this bucket less those of the other, all of which it includes."""
        left = Bucket(self.app, self.env, self.at, {}, {}, {})
        left.counts = {type_: rest for type_, names in self.counts.items() if (rest := _less(names, other.counts.get(type_, {})))}
        left.failed = _less(self.failed, other.failed)
        for type_, sketches in self.values.items():
            minus = other.values.get(type_, {})
            found = {name: rest for name, sketch in sketches.items() if (rest := _less(sketch, minus.get(name, {})))}
            if found:
                left.values[type_] = found
        return left

    def __bool__(self) -> bool:
        return bool(self.counts or self.failed or self.values)


class Delta(Struct, rename={"buckets": "cells"}):  # the older name, in deltas that wait in files
    """The counts of one flush, which a store adds to its buckets once: the same (worker, seq) again changes nothing. The deltas of a
    worker are applied in the order of `seq`. `made_at` is in epoch milliseconds."""

    worker: str
    seq: int
    made_at: int
    buckets: list[Bucket]


def widened(buckets: Iterable[Bucket], level_ms: int) -> list[Bucket]:
    """Return the same counts in the buckets of a wider level. Leaves out the buckets whose narrowest level is wider than that."""
    wide: dict[tuple, Bucket] = {}
    for bucket in buckets:
        if bucket.narrowest_ms <= level_ms:
            at = bucket.at - bucket.at % level_ms
            wide.setdefault((bucket.app, bucket.env, at), Bucket(bucket.app, bucket.env, at)).add(bucket)
    return list(wide.values())


def _add(mine: dict, theirs: dict) -> None:
    for key, count in theirs.items():
        mine[key] = mine.get(key, 0) + count


def _less(mine: dict, theirs: dict) -> dict:
    return {key: left for key, count in mine.items() if (left := count - theirs.get(key, 0)) > 0}
