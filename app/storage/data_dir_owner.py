"""Which store the running processes of a DATA_DIR move its files into: one, the same for all of them.

Events, flags and statistics that wait in DATA_DIR belong to the store of the server that took them. The drainer of a second
server with another MONGO_URI would move them into its own database, and one beside an embedded server would take away the
files that this one reads from. So each process holds a shared lock on `owner`, which names its store.

Invariant: while a process lives, `owner` names its store. It is changed only under the exclusive lock, which is to be had
only when no other process holds it. So a server may come back with another store, and two stores are never used at once.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.logs import get_logger
from app.settings import SettingsError
from app.storage import disk

log = get_logger(__name__)

NAME = "owner"
FILES = "files in DATA_DIR, without MONGO_URI"
LOOK_AGAIN_S = 0.1


class DataDirOwner:
    """`store` is FILES or the place of a MongoDB, without its login."""

    def __init__(self, data_dir: Path, store: str):
        self._path = data_dir / NAME
        self._store = store
        self._fd: int | None = None

    def claim(self, patience_s: float) -> None:
        """Held until the process ends. Raises SettingsError where others with another store still live after `patience_s`."""
        deadline = time.monotonic() + patience_s
        try:
            while (other := self._try()) is not None:
                if time.monotonic() >= deadline:
                    raise SettingsError(
                        f"switchyard: DATA_DIR {self._path.parent} is in use by a server whose events go to {other}, and these would go "
                        f"to {self._store}; stop that one first, or give each a DATA_DIR of its own"
                    )
                time.sleep(LOOK_AGAIN_S)
        except OSError as error:  # the spool reports what is wrong with this disk
            log.warning("data_dir_not_claimed", file=str(self._path), error=error.strerror)

    def look_after(self) -> None:
        """Every 10 seconds: claims `owner` again where it, or all of DATA_DIR, was removed under this server. Never raises."""
        if self._is_there() or not self._path.parent.is_dir():
            return
        if self._fd is not None:
            os.close(self._fd)  # the lock of a file that no other process can find
            self._fd = None
        try:
            self.claim(0)
        except SettingsError as error:
            log.error("data_dir_not_claimed", file=str(self._path), error=str(error))
            os.close(self._fd)
            self._fd = None  # so that the next look tries again

    def _is_there(self) -> bool:
        with suppress(OSError):
            return self._fd is not None and os.path.samestat(os.fstat(self._fd), self._path.stat())
        return False

    def _try(self) -> str | None:
        """The store of the others, or None where it is ours now."""
        with self._turn():
            if self._fd is None:
                self._fd = disk.open_lock(self._path)
            before = os.pread(self._fd, 4096, 0).decode(errors="replace").strip()
            if before == self._store:
                disk.lock(self._fd, shared=True)
            elif disk.lock(self._fd):
                self._write(before)
                disk.lock(self._fd, shared=True)
            else:
                return before
        return None

    def _write(self, before: str) -> None:
        with open(self._path, "rb+", opener=disk.private) as file:  # `_fd`, which is held for long, can only read
            file.write(f"{self._store}\n".encode())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        if before:
            log.warning("data_dir_changes_store", folder=str(self._path.parent), before=before, now=self._store)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """From reading `owner` until it is locked; a process needs milliseconds for that."""
        fd = disk.open_lock(self._path.with_name(f".{NAME}.lock"))
        try:
            while not disk.lock(fd):
                time.sleep(LOOK_AGAIN_S / 10)
            yield
        finally:
            os.close(fd)
