"""Deltas that wait in the file of the statistics until MongoDB answers again.

Deltas keep their numbers here. When a server gets a MongoDB for the first time, the buckets that it counted in the file become deltas too
(`put_buckets`).
"""

import os
import sqlite3
from functools import partial
from typing import Any

import msgspec

from app.clock import Clock
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.telemetry.stats.bucket import BUCKETS_A_DELTA, DAY_MS, HOUR_MS, LEVELS_MS, MINUTE_MS, Bucket, Delta, widened
from app.telemetry.stats.store.file import FileRollups, decode, encode
from app.telemetry.stats.store.file_size_limit import used_bytes

sampled = SampledLog(get_logger(__name__))

DAY = "level IN (?, ?, ?) AND app = ? AND env = ? AND at >= ? AND at < ?"
_decode_delta = msgspec.json.Decoder(Delta).decode


class DeltaQueue:
    """Each method may raise StorageUnavailable."""

    def __init__(self, file: FileRollups, clock: Clock):
        self._sqlite = file.sqlite
        self._max_bytes = file.max_bytes
        self._clock = clock

    def put(self, delta: Delta) -> None:
        """Add a delta. A full file takes none."""
        self._sqlite.transact(lambda db: _put(db, delta, self._max_bytes))

    def first(self) -> list[Delta]:
        """Return some deltas, those of each worker in their order; none where the queue is empty."""
        query = "SELECT worker, seq, delta FROM waiting ORDER BY worker, seq LIMIT 20"
        while rows := self._sqlite.read(lambda db: db.execute(query).fetchall()):
            if deltas := [delta for row in rows if (delta := self._decoded(*row)) is not None]:
                return deltas
        return []

    def remove(self, delta: Delta) -> None:
        """Remove a delta that MongoDB has applied."""
        self._remove(delta.worker, delta.seq)

    def put_buckets(self) -> None:
        """Turn the buckets of the file into deltas, one day of an application and env after the other."""
        worker, seq = f"file-{os.urandom(6).hex()}", 1
        while seq:
            seq = self._sqlite.transact(partial(_put_a_day, worker=worker, seq=seq, now=self._clock()))

    def _decoded(self, worker: str, seq: int, text: Any) -> Delta | None:
        """Remove a delta that cannot be decoded: all deltas after it would wait for ever."""
        try:
            return _decode_delta(text)
        except (msgspec.DecodeError, TypeError) as error:
            sampled.error("rollup_delta_unreadable", worker=worker, seq=seq, error=str(error))
            self._remove(worker, seq)
            return None

    def _remove(self, worker: str, seq: int) -> None:
        self._sqlite.transact(lambda db: db.execute("DELETE FROM waiting WHERE worker = ? AND seq = ?", (worker, seq)))


def _put(db: sqlite3.Connection, delta: Delta, max_bytes: int) -> None:
    if used_bytes(db) > max_bytes:
        raise OSError(f"the file is full of deltas that wait for MongoDB ({max_bytes} bytes, TELEMETRY_ROLLUPS_MAX_BYTES)")
    db.execute("REPLACE INTO waiting VALUES (?, ?, ?)", (delta.worker, delta.seq, encode(delta)))


def _put_a_day(db: sqlite3.Connection, worker: str, seq: int, now: int) -> int:
    """Turn one day of an application and env into deltas; return the next `seq`, 0 when no bucket is left. Counts that an hour or a day
    has beyond its minutes (events of long ago, and minutes that were deleted) stay counts of the hour or the day."""
    row = db.execute("SELECT app, env, at FROM cells ORDER BY level DESC LIMIT 1").fetchone()
    if row is None:
        return 0
    app, env, at = row
    start = at - at % DAY_MS
    key = (*LEVELS_MS, app, env, start, start + DAY_MS)
    by_level: dict[int, list[Bucket]] = {level_ms: [] for level_ms in LEVELS_MS}
    for level, text in db.execute(f"SELECT level, cell FROM cells WHERE {DAY}", key).fetchall():
        if (bucket := decode(text)) is not None:
            by_level[level].append(bucket)
    buckets = [*by_level[MINUTE_MS], *_beyond(by_level, HOUR_MS, MINUTE_MS), *_beyond(by_level, DAY_MS, HOUR_MS)]
    for first in range(0, len(buckets), BUCKETS_A_DELTA):
        delta = Delta(worker, seq, now, buckets[first : first + BUCKETS_A_DELTA])
        db.execute("INSERT INTO waiting VALUES (?, ?, ?)", (worker, seq, encode(delta)))
        seq += 1
    db.execute(f"DELETE FROM cells WHERE {DAY}", key)
    return seq


def _beyond(by_level: dict[int, list[Bucket]], level_ms: int, narrower_ms: int) -> list[Bucket]:
    """Return the counts that the buckets of a level have beyond the buckets of the narrower level."""
    counted = {bucket.at: bucket for bucket in widened(by_level[narrower_ms], level_ms)}
    buckets = [bucket.without(counted[bucket.at]) if bucket.at in counted else bucket for bucket in by_level[level_ms]]
    for bucket in buckets:
        bucket.narrowest_ms = level_ms
    return [bucket for bucket in buckets if bucket]
