"""Cells in one SQLite file under DATA_DIR: the store where there is no MongoDB, for several processes at once. Where there
is one, deltas wait here while it is away.

Each delta is one transaction together with its number, so that a crash leaves all of it or nothing, and a repeated one
changes nothing. The file is bounded by TELEMETRY_ROLLUPS_MAX_BYTES: then the oldest minutes of the application that has most go
(`room`, `eviction`), and no delta is taken to wait here.
"""

import os
import sqlite3
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from app.clock import Clock
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.storage.errors import StorageUnavailable
from app.storage.retention_clock import RetentionClock
from app.telemetry.stats.bucket import BUCKETS_A_DELTA, DAY_MS, HOUR_MS, LEVELS_MS, MINUTE_MS, Bucket, Delta, widened
from app.telemetry.stats.store.file_size_limit import make_room, used_bytes
from app.telemetry.stats.store.sqlite_file import SqliteFile, Work

sampled = SampledLog(get_logger(__name__))

TABLES = """
CREATE TABLE IF NOT EXISTS cells (
    level INTEGER, app TEXT, env TEXT, at INTEGER, cell BLOB, updated_at INTEGER, PRIMARY KEY (level, app, env, at)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS apps (app TEXT PRIMARY KEY, since INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cells_updated_at ON cells (updated_at);
CREATE TABLE IF NOT EXISTS applied (worker TEXT PRIMARY KEY, seq INTEGER, made_at INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (worker TEXT, seq INTEGER, delta BLOB, PRIMARY KEY (worker, seq)) WITHOUT ROWID;
"""
PLACE = "level = ? AND app = ? AND env = ? AND at = ?"
DAY = "level IN (?, ?, ?) AND app = ? AND env = ? AND at >= ? AND at < ?"
MAX_BYTES = 536_870_912
FULL_FOR_S = 3600.0  # so long health says that buckets went
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Bucket).decode
_decode_delta = msgspec.json.Decoder(Delta).decode


class FileRollups:
    def __init__(self, path: Path, *, ttl_days: int, clock: Clock, max_bytes: int = MAX_BYTES):
        self._file = SqliteFile(path, TABLES)
        self._ttl_ms = ttl_days * DAY_MS
        self._clock = clock
        self._time = RetentionClock(path.with_suffix(".clock"), clock)
        self._max_bytes = max_bytes
        self._full_until = 0.0  # monotonic

    def apply(self, delta: Delta) -> None:
        gone = self._transact(lambda db: _apply(db, delta, self._max_bytes))
        if gone:
            self._full_until = time.monotonic() + FULL_FOR_S
            most = max(gone, key=gone.get)
            sampled.warning("rollups_full", max_bytes=self._max_bytes, buckets_dropped=sum(gone.values()), most_of=most)

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> list[Bucket]:
        query = "SELECT cell FROM cells WHERE level = ? AND app = ? AND at >= ? AND at < ?"
        values = [level_ms, app, since, until]
        if env is not None:
            query, values = f"{query} AND env = ?", [*values, env]
        return self._ask(lambda db: [bucket for row in db.execute(query, values) if (bucket := _readable(row[0])) is not None])

    def apps(self, at_most: int) -> list[str]:
        query = "SELECT app FROM apps ORDER BY since, app LIMIT ?"
        return [app for (app,) in self._ask(lambda db: db.execute(query, (at_most,)).fetchall())]

    def check(self) -> dict[str, Any]:
        found = self._file.check() | {"maxBytes": self._max_bytes}
        with suppress(StorageUnavailable):
            found["bytes"] = self._ask(used_bytes)
        if time.monotonic() < self._full_until and "error" not in found:
            found["state"] = "degraded"
            found["error"] = "The file is full (TELEMETRY_ROLLUPS_MAX_BYTES): the oldest minutes of the app that has most are dropped."
        return found

    def tend(self) -> None:
        """Every 10 seconds: what no event was added to for the time of the TTL goes, as the events themselves do."""
        if self._ttl_ms:
            with suppress(StorageUnavailable):  # the next `apply` meets the same trouble, and reports it
                self._transact(self._forget_old)

    def _forget_old(self, db: sqlite3.Connection) -> None:
        (newest,) = db.execute("SELECT MAX(updated_at) FROM cells").fetchone()
        if newest is not None:
            _forget(db, self._time.now(newest) - self._ttl_ms)

    # While MongoDB is away: deltas wait here as they are, with their numbers

    def park(self, delta: Delta) -> None:
        """Raises StorageUnavailable where the file is full, too."""
        self._transact(lambda db: _park(db, delta, self._max_bytes))

    def waiting(self) -> list[Delta]:
        """Some of those of every worker, each worker's in their order; [] when there are none."""
        query = "SELECT worker, seq, delta FROM waiting ORDER BY worker, seq LIMIT 20"
        while found := self._ask(lambda db: db.execute(query).fetchall()):
            if deltas := [delta for row in found if (delta := self._readable_delta(*row)) is not None]:
                return deltas
        return []

    def forget(self, delta: Delta) -> None:
        self._forget_waiting(delta.worker, delta.seq)

    def _forget_waiting(self, worker: str, seq: int) -> None:
        self._transact(lambda db: db.execute("DELETE FROM waiting WHERE worker = ? AND seq = ?", (worker, seq)))

    def pack(self) -> None:
        """What was counted here before there was a MongoDB becomes deltas that wait."""
        worker, seq = f"file-{os.urandom(6).hex()}", 1
        while seq:
            seq = self._transact(partial(_pack_a_day, worker=worker, seq=seq, now=self._clock()))

    def _readable_delta(self, worker: str, seq: int, text: Any) -> Delta | None:
        try:
            return _decode_delta(text)
        except (msgspec.DecodeError, TypeError) as error:
            sampled.error("rollup_delta_unreadable", worker=worker, seq=seq, error=str(error))
            self._forget_waiting(worker, seq)  # it would keep all behind it from MongoDB
            return None

    def _transact(self, work: Work) -> Any:
        return self._do(self._file.transact, work)

    def _ask(self, work: Work) -> Any:
        return self._do(self._file.ask, work)

    def _do(self, do: Any, work: Work) -> Any:
        try:
            return do(work)
        except (sqlite3.Error, OSError) as error:
            raise StorageUnavailable(f"{self._file.path.name}: {error}") from error


def _apply(db: sqlite3.Connection, delta: Delta, max_bytes: int) -> dict[str, int]:
    """The buckets that went for it, by application."""
    last = db.execute("SELECT seq FROM applied WHERE worker = ?", (delta.worker,)).fetchone()
    if last and last[0] >= delta.seq:
        return {}
    gone = make_room(db, max_bytes)
    apps = {bucket.app for bucket in delta.buckets}
    db.executemany("INSERT OR IGNORE INTO apps VALUES (?, ?)", [(app, delta.made_at) for app in apps])
    for level_ms in LEVELS_MS:
        for bucket in widened(delta.buckets, level_ms):
            _add(db, level_ms, bucket, delta.made_at)
    db.execute("REPLACE INTO applied VALUES (?, ?, ?)", (delta.worker, delta.seq, delta.made_at))
    return gone


def _add(db: sqlite3.Connection, level_ms: int, bucket: Bucket, now: int) -> None:
    place = (level_ms, bucket.app, bucket.env or "", bucket.at)  # an env is never empty
    found = db.execute(f"SELECT cell FROM cells WHERE {PLACE}", place).fetchone()
    if found and (before := _readable(found[0])) is not None:
        bucket.add(before)
    db.execute("REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)", (*place, _encode(bucket), now))


def _readable(text: Any) -> Bucket | None:
    """None for one that something spoilt: it costs its own numbers and no others."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, TypeError) as error:
        sampled.error("rollup_unreadable", error=str(error))
        return None


def _park(db: sqlite3.Connection, delta: Delta, max_bytes: int) -> None:
    if used_bytes(db) > max_bytes:
        raise OSError(f"the deltas that wait for MongoDB have filled it ({max_bytes} bytes, TELEMETRY_ROLLUPS_MAX_BYTES)")
    db.execute("REPLACE INTO waiting VALUES (?, ?, ?)", (delta.worker, delta.seq, _encode(delta)))


def _pack_a_day(db: sqlite3.Connection, worker: str, seq: int, now: int) -> int:
    """One day of one application and env becomes deltas; the next seq, 0 when none is left. What its hours and minutes do not count
    (times long ago, minutes that had no room) stays with the hour or the day."""
    row = db.execute("SELECT app, env, at FROM cells ORDER BY level DESC LIMIT 1").fetchone()
    if row is None:
        return 0
    app, env, at = row
    start = at - at % DAY_MS
    here = (*LEVELS_MS, app, env, start, start + DAY_MS)
    found = db.execute(f"SELECT level, cell FROM cells WHERE {DAY}", here).fetchall()
    by_level: dict[int, list[Bucket]] = {level_ms: [] for level_ms in LEVELS_MS}
    for level, text in found:
        if (bucket := _readable(text)) is not None:
            by_level[level].append(bucket)
    buckets = [*by_level[MINUTE_MS], *_beyond(by_level, HOUR_MS, MINUTE_MS), *_beyond(by_level, DAY_MS, HOUR_MS)]
    for first in range(0, len(buckets), BUCKETS_A_DELTA):
        delta = Delta(worker, seq, now, buckets[first : first + BUCKETS_A_DELTA])
        db.execute("INSERT INTO waiting VALUES (?, ?, ?)", (worker, seq, _encode(delta)))
        seq += 1
    db.execute(f"DELETE FROM cells WHERE {DAY}", here)
    return seq


def _beyond(by_level: dict[int, list[Bucket]], level_ms: int, narrower_ms: int) -> list[Bucket]:
    """What the buckets of a level count beyond those of the narrower one."""
    counted = {bucket.at: bucket for bucket in widened(by_level[narrower_ms], level_ms)}
    buckets = [bucket.without(counted[bucket.at]) if bucket.at in counted else bucket for bucket in by_level[level_ms]]
    for bucket in buckets:
        bucket.narrowest_ms = level_ms
    return [bucket for bucket in buckets if bucket]


def _forget(db: sqlite3.Connection, too_old: int) -> None:
    db.execute("DELETE FROM cells WHERE updated_at < ?", (too_old,))
    db.execute("DELETE FROM applied WHERE made_at < ?", (too_old,))
    db.execute("DELETE FROM apps WHERE since < ? AND app NOT IN (SELECT DISTINCT app FROM cells)", (too_old,))
