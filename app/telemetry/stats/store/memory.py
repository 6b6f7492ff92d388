"""Keeps buckets in memory, for tests. The shortest code that keeps the promises of a store."""

from typing import Any

from app.telemetry.stats.bucket import LEVELS_MS, Bucket, Delta, widened


class MemoryRollups:
    """A RollupStore without limits; the methods are described there."""

    def __init__(self) -> None:
        self._buckets: dict[tuple, Bucket] = {}
        self._applied: dict[str, int] = {}

    def apply(self, delta: Delta) -> None:
        """Add a delta, unless it or a later one of the worker was added."""
        if self._applied.get(delta.worker, 0) >= delta.seq:
            return
        self._applied[delta.worker] = delta.seq
        for level_ms in LEVELS_MS:
            for bucket in widened(delta.buckets, level_ms):
                key = (level_ms, bucket.app, bucket.env, bucket.at)
                self._buckets.setdefault(key, Bucket(bucket.app, bucket.env, bucket.at)).add(bucket)

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> list[Bucket]:
        """Return the buckets of the range."""
        return [
            bucket
            for (level, *_), bucket in self._buckets.items()
            if level == level_ms and bucket.app == app and env in (None, bucket.env) and since <= bucket.at < until
        ]

    def apps(self, at_most: int) -> list[str]:
        """Return the applications, the first ones first."""
        return list(dict.fromkeys(app for _, app, *_ in self._buckets))[:at_most]

    def check(self) -> dict[str, Any]:
        """Return `up`."""
        return {"state": "up"}

    def tend(self) -> None:
        """Do nothing: no bucket is deleted here."""
