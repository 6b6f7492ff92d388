"""One SQLite file that several processes use, and that is replaced when it is deleted or damaged while they run.

Each piece of work runs in a thread, on a connection of its own, so that a slow disk delays no other greenlet. A deleted file is made
again by the next work. A file that SQLite cannot read is moved to NAME.damaged for an operator to inspect, and a new one is made. A
second damaged file replaces the first, so that a failing disk does not fill up with copies. `check` reports the damaged file until it is
removed.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from app.logs import get_logger
from app.storage.disk import lock, make_file, private
from app.storage.errors import StorageUnavailable
from app.storage.thread_pool import in_thread

log = get_logger(__name__)

LOCK_TIMEOUT_S = 2.0  # how long to wait for a transaction of another process
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
OTHER_TABLES = ("no such column", "table ")  # "table x has 3 columns but 6 values were supplied"
NO_TABLE = "no such table"
Work = Callable[[sqlite3.Connection], Any]


class SqliteFile:
    """`tables` is the SQL that makes the tables where they are missing. Work is a function of a connection."""

    def __init__(self, path: Path, tables: str):
        self.path = path
        self._tables = tables
        self._ready: tuple[int, int] | None = None  # the inode of the file that has the tables
        self._damaged = path.with_name(f"{path.name}.damaged")

    def transact(self, work: Work) -> Any:
        """Return what the work returns, as one transaction that may write. Raises StorageUnavailable."""
        return self._do(work, "BEGIN IMMEDIATE")

    def read(self, work: Work) -> Any:
        """Return what the work returns, as one transaction that only reads and delays no writer. Raises StorageUnavailable."""
        return self._do(work, "BEGIN DEFERRED")

    def check(self) -> dict[str, Any]:
        """Return the state for health: `degraded` while a damaged file lies beside this one."""
        if self._damaged.exists():
            error = f"{self.path.name} was damaged and replaced by a new file. Remove {self._damaged} when you do not need it any more."
            return {"state": "degraded", "error": error}
        return {"state": "up"}

    def _do(self, work: Work, begin: str) -> Any:
        try:
            return in_thread(self._in_thread, work, begin)
        except (sqlite3.Error, OSError) as error:
            raise StorageUnavailable(f"{self.path.name}: {error}") from error

    def _in_thread(self, work: Work, begin: str) -> Any:
        """Invariants: work is repeated only after its transaction was rolled back; the file that is moved away is the one that was found
        damaged, and never the new one that another process has made since."""
        opened = self._existing()
        try:
            return self._once(work, begin, opened)
        except sqlite3.Error as error:
            if _is_damage(error):
                self._move_away(opened, error)
            elif not str(error).startswith(NO_TABLE):
                raise
            self._ready = None
            return self._once(work, begin, self._existing())

    def _existing(self) -> tuple[int, int] | None:
        """Return the inode of the file, which is made where there is none."""
        if (found := _inode(self.path)) is None:
            make_file(self.path)
            found = _inode(self.path)
        return found

    def _once(self, work: Work, begin: str, opened: tuple[int, int] | None) -> Any:
        with closing(sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_S, isolation_level=None)) as db:
            if self._ready is None or self._ready != opened:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(self._tables)
                self._ready = opened
            with _transaction(db, begin):
                return work(db)

    def _move_away(self, inode: tuple[int, int] | None, error: sqlite3.Error) -> None:
        """Move the damaged file, unless another process has moved it: then another file has its name."""
        with open(self.path.with_name(f".{self.path.name}.lock"), "w", opener=private) as file:
            if not lock(file.fileno()) or inode is None or _inode(self.path) != inode:
                return
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + suffix).replace(f"{self._damaged}{suffix}")
        log.error("rollups_damaged", file=str(self.path), moved_to=str(self._damaged), error=str(error))


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str) -> Iterator[None]:
    db.execute(begin)
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # after some errors SQLite has rolled back by itself
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF in DAMAGED or (code == sqlite3.SQLITE_ERROR and str(error).startswith(OTHER_TABLES)))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
