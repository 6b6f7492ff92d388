"""The folder of the workers' metric files. gunicorn's master creates it and cleans it up.

Several masters may use one folder: the old and the new one of an upgrade by SIGUSR2, or two servers with the same
PROMETHEUS_MULTIPROC_DIR. Invariant: a master removes the files of its own workers, and all files only while no other master uses the
folder. Each running master holds a shared lock on `.lock`; the kernel releases the lock of a killed master.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from app.settings import SettingsError
from app.storage.disk import private

LOCK = ".lock"


class MetricsFolder:
    """gunicorn.conf.py calls `open` and `close` at the start and end of the master, and the other methods from gunicorn's hooks."""

    def __init__(self, path: Path):
        self._path = path
        self._fd: int | None = None
        self._ended: set[int] = set()

    def open(self) -> None:
        """Create and lock the folder, and remove the files that a killed master left behind. Raises SettingsError."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._fd = private(self._path / LOCK, os.O_RDWR | os.O_CREAT)
            if self._is_alone():
                _remove(self._path.glob("*.db"))
            with suppress(OSError):  # some network file systems have no locks; see `_is_alone`
                fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(f"switchyard: PROMETHEUS_MULTIPROC_DIR {self._path} is not usable: {error.strerror}") from None
        _remove(path for path in self._path.glob("gauge_live*.db") if not _is_process_running(path))

    def close_in_worker(self) -> None:
        """Close the inherited lock after the fork, so that only the master holds the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def worker_ended(self, pid: int) -> None:
        """Remove the gauges of a worker that has ended. Its counters stay in the sums until the master ends."""
        self._ended.add(pid)
        _remove(self._path.glob(f"gauge_live*_{pid}.db"))

    def close(self) -> None:
        """Remove the files of this master's workers, and the folder where no other master uses it."""
        for pid in self._ended:
            _remove(self._path.glob(f"*_{pid}.db"))
        if self._is_alone():
            _remove(self._path.glob("*.db*"))
            _remove([self._path / LOCK])
            with suppress(OSError):  # somebody removed the folder, or it contains other files
                self._path.rmdir()

    def _is_alone(self) -> bool:
        """Return whether no other master holds the lock. Without locks in the file system, return whether this is not an upgrade."""
        if self._fd is None:
            return False  # the folder was never opened
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return "GUNICORN_PID" not in os.environ  # gunicorn sets it for the new master of an upgrade
        return True


def make_folder() -> str:
    """Create a temporary folder and return its path. Raises SettingsError."""
    try:
        return tempfile.mkdtemp(prefix="switchyard-metrics-")
    except OSError as error:
        raise SettingsError(f"switchyard: no folder for the workers' counters can be made: {error.strerror}; set TMPDIR") from None


folder_at = cache(MetricsFolder)  # returns the same object after a SIGHUP, which runs gunicorn.conf.py again


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):  # another master may have removed it; a file that stays adds old counts to the sums, and does no other harm
            path.unlink()


def _is_process_running(path: Path) -> bool:
    """Return whether the process runs whose id is at the end of the file's name."""
    pid = path.stem.rpartition("_")[2]
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass  # the process belongs to another user
    return True
