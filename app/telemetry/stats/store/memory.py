"""Cells in memory, gone with the process: for tests, and the plainest reading of what a store promises."""

from app.telemetry.stats.bucket import LEVELS_MS, Bucket, Delta, widened


class MemoryRollups:
    def __init__(self):
        self._cells: dict[tuple, Bucket] = {}
        self._applied: dict[str, int] = {}

    def apply(self, delta: Delta) -> None:
        if self._applied.get(delta.worker, 0) >= delta.seq:
            return
        self._applied[delta.worker] = delta.seq
        for level_ms in LEVELS_MS:
            for bucket in widened(delta.buckets, level_ms):
                place = (level_ms, bucket.app, bucket.env, bucket.at)
                self._cells.setdefault(place, Bucket(bucket.app, bucket.env, bucket.at)).add(bucket)

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> list[Bucket]:
        return [
            bucket
            for (level, *_), bucket in self._cells.items()
            if level == level_ms and bucket.app == app and env in (None, bucket.env) and since <= bucket.at < until
        ]

    def apps(self, at_most: int) -> list[str]:
        return list(dict.fromkeys(app for _, app, *_ in self._cells))[:at_most]

    def check(self) -> dict[str, str]:
        return {"state": "up"}

    def tend(self) -> None:
        """Nothing here grows old."""
