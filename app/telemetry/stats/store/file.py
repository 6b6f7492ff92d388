"""Stores buckets in one SQLite file under DATA_DIR, which several processes may use. It is the store where there is no MongoDB.

Each delta is one transaction together with its number. So after a crash the file has all of a delta or nothing of it, and a repeated delta
changes nothing. The file is kept within TELEMETRY_ROLLUPS_MAX_BYTES (`file_size_limit`).
"""

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from app.clock import Clock
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.storage.errors import StorageUnavailable
from app.storage.retention_clock import RetentionClock
from app.telemetry.stats.bucket import DAY_MS, LEVELS_MS, Bucket, Delta, widened
from app.telemetry.stats.store.file_size_limit import make_room, used_bytes
from app.telemetry.stats.store.sqlite_file import SqliteFile

sampled = SampledLog(get_logger(__name__))

# Files of older versions have these names: a cell is a bucket, and `waiting` is the queue of deltas.
TABLES = """
CREATE TABLE IF NOT EXISTS cells (
    level INTEGER, app TEXT, env TEXT, at INTEGER, cell BLOB, updated_at INTEGER, PRIMARY KEY (level, app, env, at)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS apps (app TEXT PRIMARY KEY, since INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cells_updated_at ON cells (updated_at);
CREATE TABLE IF NOT EXISTS applied (worker TEXT PRIMARY KEY, seq INTEGER, made_at INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (worker TEXT, seq INTEGER, delta BLOB, PRIMARY KEY (worker, seq)) WITHOUT ROWID;
"""
KEY = "level = ? AND app = ? AND env = ? AND at = ?"
MAX_BYTES = 536_870_912
FULL_FOR_S = 3600.0  # how long health reports that buckets were deleted
encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Bucket).decode


class FileRollups:
    """Buckets without an event for `ttl_days` are deleted; 0 keeps them. `sqlite` is also the file of the `delta_queue`."""

    def __init__(self, path: Path, *, ttl_days: int, clock: Clock, max_bytes: int = MAX_BYTES):
        self.sqlite = SqliteFile(path, TABLES)
        self.max_bytes = max_bytes
        self._ttl_ms = ttl_days * DAY_MS
        self._time = RetentionClock(path.with_suffix(".clock"), clock)
        self._full_until = 0.0  # monotonic

    def apply(self, delta: Delta) -> None:
        """Add a delta to its buckets. In a full file, buckets of the largest application are deleted first."""
        dropped = self.sqlite.transact(lambda db: _apply(db, delta, self.max_bytes))
        if dropped:
            self._full_until = time.monotonic() + FULL_FOR_S
            most = max(dropped, key=dropped.get)
            sampled.warning("rollups_full", max_bytes=self.max_bytes, buckets_dropped=sum(dropped.values()), most_of=most)

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> list[Bucket]:
        """Return the buckets of the range, without those that cannot be decoded."""
        query = "SELECT cell FROM cells WHERE level = ? AND app = ? AND at >= ? AND at < ?"
        values = [level_ms, app, since, until]
        if env is not None:
            query, values = f"{query} AND env = ?", [*values, env]
        return self.sqlite.read(lambda db: [bucket for row in db.execute(query, values) if (bucket := decode(row[0])) is not None])

    def apps(self, at_most: int) -> list[str]:
        """Return the applications, the first ones first."""
        query = "SELECT app FROM apps ORDER BY since, app LIMIT ?"
        return [app for (app,) in self.sqlite.read(lambda db: db.execute(query, (at_most,)).fetchall())]

    def check(self) -> dict[str, Any]:
        """Return the state for health, with the size of the file."""
        found = self.sqlite.check() | {"maxBytes": self.max_bytes}
        with suppress(StorageUnavailable):
            found["bytes"] = self.sqlite.read(used_bytes)
        if time.monotonic() < self._full_until and "error" not in found:
            found["state"] = "degraded"
            found["error"] = "The file is full (TELEMETRY_ROLLUPS_MAX_BYTES): the oldest minutes of the largest app are deleted."
        return found

    def tend(self) -> None:
        """Run every 10 seconds: delete the buckets without an event for `ttl_days`, as the events themselves are deleted."""
        if self._ttl_ms:
            with suppress(StorageUnavailable):  # the next `apply` fails for the same reason, and reports it
                self.sqlite.transact(self._delete_old)

    def _delete_old(self, db: sqlite3.Connection) -> None:
        (newest,) = db.execute("SELECT MAX(updated_at) FROM cells").fetchone()
        if newest is not None:
            _delete_before(db, self._time.now(newest) - self._ttl_ms)


def decode(text: Any) -> Bucket | None:
    """Return None for a bucket that cannot be decoded: only its own counts are lost."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, TypeError) as error:
        sampled.error("rollup_unreadable", error=str(error))
        return None


def _apply(db: sqlite3.Connection, delta: Delta, max_bytes: int) -> dict[str, int]:
    """Return how many buckets were deleted to make room, by application."""
    last = db.execute("SELECT seq FROM applied WHERE worker = ?", (delta.worker,)).fetchone()
    if last and last[0] >= delta.seq:
        return {}
    dropped = make_room(db, max_bytes)
    apps = {bucket.app for bucket in delta.buckets}
    db.executemany("INSERT OR IGNORE INTO apps VALUES (?, ?)", [(app, delta.made_at) for app in apps])
    for level_ms in LEVELS_MS:
        for bucket in widened(delta.buckets, level_ms):
            _add(db, level_ms, bucket, delta.made_at)
    db.execute("REPLACE INTO applied VALUES (?, ?, ?)", (delta.worker, delta.seq, delta.made_at))
    return dropped


def _add(db: sqlite3.Connection, level_ms: int, bucket: Bucket, now: int) -> None:
    key = (level_ms, bucket.app, bucket.env or "", bucket.at)  # an env is never empty
    found = db.execute(f"SELECT cell FROM cells WHERE {KEY}", key).fetchone()
    if found and (before := decode(found[0])) is not None:
        bucket.add(before)
    db.execute("REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)", (*key, encode(bucket), now))


def _delete_before(db: sqlite3.Connection, oldest: int) -> None:
    db.execute("DELETE FROM cells WHERE updated_at < ?", (oldest,))
    db.execute("DELETE FROM applied WHERE made_at < ?", (oldest,))
    db.execute("DELETE FROM apps WHERE since < ? AND app NOT IN (SELECT DISTINCT app FROM cells)", (oldest,))
