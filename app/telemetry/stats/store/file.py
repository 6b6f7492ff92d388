"""Cells in one SQLite file under DATA_DIR: the store where there is no MongoDB, for several processes at once. Where there
is one, deltas wait here while it is away.

Each delta is one transaction together with its number, so that a crash leaves all of it or nothing, and a repeated one
changes nothing. Work is done in a thread with a connection of its own: a slow disk holds up nobody who does not wait for it.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import msgspec

from app.clock import Clock
from app.disk import make_file
from app.telemetry.stats.cell import CELLS_A_DELTA, DAY_MS, LEVELS_MS, MINUTE_MS, Cell, Delta, widened
from app.telemetry.stats.store import RollupsUnavailable
from app.trusted_time import TrustedTime

PATIENCE_S = 2.0  # for another process's transaction
TABLES = """
CREATE TABLE IF NOT EXISTS cells (
    level INTEGER, app TEXT, env TEXT, at INTEGER, cell BLOB, updated_at INTEGER, PRIMARY KEY (level, app, env, at)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cells_updated_at ON cells (updated_at);
CREATE TABLE IF NOT EXISTS applied (worker TEXT PRIMARY KEY, seq INTEGER, made_at INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (worker TEXT, seq INTEGER, delta BLOB, PRIMARY KEY (worker, seq)) WITHOUT ROWID;
"""
PLACE = "level = ? AND app = ? AND env = ? AND at = ?"
Work = Callable[[sqlite3.Connection], Any]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Cell).decode
_decode_delta = msgspec.json.Decoder(Delta).decode


class FileRollups:
    def __init__(self, path: Path, *, ttl_days: int, clock: Clock):
        self._path = path
        self._ttl_ms = ttl_days * DAY_MS
        self._clock = clock
        self._time = TrustedTime(path.with_suffix(".clock"), clock)
        self._has_tables = False

    def apply(self, delta: Delta) -> None:
        self._transact(lambda db: _apply(db, delta))

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> list[Cell]:
        query = "SELECT cell FROM cells WHERE level = ? AND app = ? AND at >= ? AND at < ?"
        values = [level_ms, app, since, until]
        if env is not None:
            query, values = f"{query} AND env = ?", [*values, env]
        return self._ask(lambda db: [_decode(row[0]) for row in db.execute(query, values)])

    def tend(self) -> None:
        """Now and then: what no event was added to for the time of the TTL goes, as the events themselves do."""
        if self._ttl_ms:
            with suppress(RollupsUnavailable):  # whoever applies meets the same trouble, and says so
                self._transact(self._forget_old)

    def _forget_old(self, db: sqlite3.Connection) -> None:
        (newest,) = db.execute("SELECT MAX(updated_at) FROM cells").fetchone()
        if newest is not None:
            _forget(db, self._time.now(newest) - self._ttl_ms)

    # While MongoDB is away: deltas wait here as they are, with their numbers

    def park(self, delta: Delta) -> None:
        row = (delta.worker, delta.seq, _encode(delta))
        self._transact(lambda db: db.execute("REPLACE INTO waiting VALUES (?, ?, ?)", row))

    def waiting(self) -> list[Delta]:
        """Some of those of every worker, each worker's in their order; [] when there are none."""
        return self._ask(
            lambda db: [_decode_delta(row[0]) for row in db.execute("SELECT delta FROM waiting ORDER BY worker, seq LIMIT 20")]
        )

    def forget(self, delta: Delta) -> None:
        self._transact(lambda db: db.execute("DELETE FROM waiting WHERE worker = ? AND seq = ?", (delta.worker, delta.seq)))

    def pack(self) -> None:
        """What was counted here before there was a MongoDB becomes deltas that wait."""
        worker = f"file-{os.urandom(6).hex()}"
        seq = 1
        while self._transact(partial(_pack_some, worker=worker, seq=seq, now=self._clock())):
            seq += 1

    def _transact(self, work: Work) -> Any:
        return self._do(work, "BEGIN IMMEDIATE")

    def _ask(self, work: Work) -> Any:
        """Holds up nobody who writes."""
        return self._do(work, "BEGIN DEFERRED")

    def _do(self, work: Work, begin: str) -> Any:
        """Raises RollupsUnavailable."""
        try:
            return gevent.get_hub().threadpool.apply(self._in_thread, (work, begin))
        except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
            raise RollupsUnavailable(f"{self._path.name}: {error}") from error

    def _in_thread(self, work: Work, begin: str) -> Any:
        if not self._has_tables:
            make_file(self._path)
        with closing(sqlite3.connect(self._path, timeout=PATIENCE_S, isolation_level=None)) as db:
            if not self._has_tables:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(TABLES)
                self._has_tables = True
            with _transaction(db, begin):
                return work(db)


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str) -> Iterator[None]:
    db.execute(begin)
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _apply(db: sqlite3.Connection, delta: Delta) -> None:
    last = db.execute("SELECT seq FROM applied WHERE worker = ?", (delta.worker,)).fetchone()
    if last and last[0] >= delta.seq:
        return
    for level_ms in LEVELS_MS:
        for cell in widened(delta.cells, level_ms):
            _add(db, level_ms, cell, delta.made_at)
    db.execute("REPLACE INTO applied VALUES (?, ?, ?)", (delta.worker, delta.seq, delta.made_at))


def _add(db: sqlite3.Connection, level_ms: int, cell: Cell, now: int) -> None:
    place = (level_ms, cell.app, cell.env or "", cell.at)  # an env is never empty
    if found := db.execute(f"SELECT cell FROM cells WHERE {PLACE}", place).fetchone():
        cell.add(_decode(found[0]))
    db.execute("REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)", (*place, _encode(cell), now))


def _pack_some(db: sqlite3.Connection, worker: str, seq: int, now: int) -> bool:
    """False when no minute is left; what is wider is made from the minutes again."""
    found = "SELECT app, env, at, cell FROM cells WHERE level = ? LIMIT ?"
    rows = db.execute(found, (MINUTE_MS, CELLS_A_DELTA)).fetchall()
    if not rows:
        db.execute("DELETE FROM cells")
        return False
    delta = Delta(worker, seq, now, [_decode(row[-1]) for row in rows])
    db.execute("INSERT INTO waiting VALUES (?, ?, ?)", (worker, seq, _encode(delta)))
    db.executemany(f"DELETE FROM cells WHERE {PLACE}", [(MINUTE_MS, *row[:3]) for row in rows])
    return True


def _forget(db: sqlite3.Connection, too_old: int) -> None:
    db.execute("DELETE FROM cells WHERE updated_at < ?", (too_old,))
    db.execute("DELETE FROM applied WHERE made_at < ?", (too_old,))
