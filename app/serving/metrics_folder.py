"""The folder of the workers' counters, as gunicorn's master looks after it.

Several masters may use one folder: the old and the new one of an upgrade by SIGUSR2, or two servers that were given the
same PROMETHEUS_MULTIPROC_DIR. Invariant: a master removes what its own workers wrote, and everything only while no other
master lives there. Each living master holds a shared lock on `.lock`; the kernel takes it from one that is killed.
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
    def __init__(self, path: Path):
        self._path = path
        self._fd: int | None = None
        self._ended: set[int] = set()

    def open(self) -> None:
        """Counters of a run that was killed belong to the past. Raises SettingsError."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._fd = private(self._path / LOCK, os.O_RDWR | os.O_CREAT)
            if self._is_alone():
                _remove(self._path.glob("*.db"))
            with suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(f"switchyard: PROMETHEUS_MULTIPROC_DIR {self._path} is not usable: {error.strerror}") from None
        _remove(path for path in self._path.glob("gauge_live*.db") if not _is_living(path))

    def leave_to_master(self) -> None:
        """In a worker, after the fork: the lock is its master's alone."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def note_ended(self, pid: int) -> None:
        """Gauges of a worker that ended count no more; its counters do."""
        self._ended.add(pid)
        _remove(self._path.glob(f"gauge_live*_{pid}.db"))

    def close(self) -> None:
        for pid in self._ended:
            _remove(self._path.glob(f"*_{pid}.db"))
        if self._is_alone():
            _remove(self._path.glob("*.db*"))
            _remove([self._path / LOCK])
            with suppress(OSError):
                self._path.rmdir()

    def _is_alone(self) -> bool:
        """True, too, where the file system knows no locks."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return "GUNICORN_PID" not in os.environ  # an upgrade, whose old master still counts
        return True


def make() -> str:
    """Raises SettingsError."""
    try:
        return tempfile.mkdtemp(prefix="switchyard-metrics-")
    except OSError as error:
        raise SettingsError(f"switchyard: no folder for the workers' counters can be made: {error.strerror}; set TMPDIR") from None


at = cache(MetricsFolder)  # the same one after a SIGHUP, which runs gunicorn.conf.py again


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


def _is_living(path: Path) -> bool:
    pid = path.stem.rpartition("_")[2]
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        pass
    return True
