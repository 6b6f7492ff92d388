"""One SQLite file, for several processes, that may disappear or break under them and is then begun again.

Work is done in a thread with a connection of its own: a slow disk delays no greenlet that does not wait for it. A file that was
deleted is made again by the next work. One that SQLite cannot read is moved to NAME.damaged, where a person may look at it (an
earlier one there is replaced, so that a failing disk does not fill up with them), and a new one is begun; until that file is
removed, `check` names it.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from app.logs import get_logger
from app.storage.disk import lock, make_file, private
from app.storage.thread_pool import in_thread

log = get_logger(__name__)

PATIENCE_S = 2.0  # for another process's transaction
DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
OTHER_SHAPE = ("no such column", "table ")  # "table x has 3 columns but 6 values were supplied"
NO_TABLE = "no such table"
Work = Callable[[sqlite3.Connection], Any]


class SqliteFile:
    def __init__(self, path: Path, tables: str):
        self.path = path
        self._tables = tables
        self._ready: tuple[int, int] | None = None  # which file, by its inode, has the tables
        self._damaged = path.with_name(f"{path.name}.damaged")

    def transact(self, work: Work) -> Any:
        return self._do(work, "BEGIN IMMEDIATE")

    def ask(self, work: Work) -> Any:
        """Delays no writer."""
        return self._do(work, "BEGIN DEFERRED")

    def check(self) -> dict[str, Any]:
        if self._damaged.exists():
            error = f"{self.path.name} was damaged: moved to {self._damaged}, a new one begun; remove that file when done with it"
            return {"state": "degraded", "error": error}
        return {"state": "up"}

    def _do(self, work: Work, begin: str) -> Any:
        """Raises sqlite3.Error, OSError."""
        return in_thread(self._in_thread, work, begin)

    def _in_thread(self, work: Work, begin: str) -> Any:
        """Invariants: work is repeated only where its transaction was rolled back; what is moved aside is the very file that was
        found damaged, and never the new one that another process has begun since."""
        opened = self._there()
        try:
            return self._once(work, begin, opened)
        except sqlite3.Error as error:
            if _is_damage(error):
                self._move_aside(opened, error)
            elif not str(error).startswith(NO_TABLE):
                raise
            self._ready = None
            return self._once(work, begin, self._there())

    def _there(self) -> tuple[int, int] | None:
        """Which file it is, by its inode; made where there is none."""
        if (found := _inode(self.path)) is None:
            make_file(self.path)
            found = _inode(self.path)
        return found

    def _once(self, work: Work, begin: str, opened: tuple[int, int] | None) -> Any:
        with closing(sqlite3.connect(self.path, timeout=PATIENCE_S, isolation_level=None)) as db:
            if self._ready is None or self._ready != opened:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(self._tables)
                self._ready = opened
            with _transaction(db, begin):
                return work(db)

    def _move_aside(self, inode: tuple[int, int] | None, error: sqlite3.Error) -> None:
        """Once, however many processes find it: those that come later find another file there."""
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
        with suppress(sqlite3.Error):  # SQLite has rolled back by itself after some errors
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF in DAMAGE or (code == sqlite3.SQLITE_ERROR and str(error).startswith(OTHER_SHAPE)))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
