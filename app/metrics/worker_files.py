"""The files that gunicorn's workers count into, one set a worker, which whichever worker is asked adds up.

The folder may lie in /tmp, where something else may empty or remove it. A count must never fail for that reason, and what
a living worker has counted comes back: it is in its memory still.
"""

import os
import tempfile
from collections.abc import Iterable
from functools import partial
from glob import glob
from mmap import ACCESS_WRITE, mmap
from pathlib import Path

from prometheus_client import Metric, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class RestorableFile(MmapedDict):
    """The library's file, which can be written again where it was removed."""

    opened: list["RestorableFile"] = []

    def __init__(self, filename, read_mode=False):
        os.makedirs(os.path.dirname(filename), exist_ok=True)
        super().__init__(filename, read_mode)
        self.opened.append(self)

    def restore(self) -> None:
        """Raises OSError."""
        if self._f is None or _is_at(self._fname, self._f.fileno()):
            return
        os.makedirs(os.path.dirname(self._fname), exist_ok=True)
        file = open(self._fname + ".draft", "w+b")  # noqa: SIM115 - it stays open for as long as the worker counts
        file.write(self._m[:])
        file.flush()
        fresh = mmap(file.fileno(), self._capacity, access=ACCESS_WRITE)
        os.rename(file.name, self._fname)
        self._f.close()
        self._f, self._m = file, fresh


def use() -> bool:
    """Count into files from now on; False where there is no folder for them or it cannot be made. Before any metric is made."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return False
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
    except OSError:
        del os.environ[FOLDER]
        values.ValueClass = values.MutexValue
        return False
    values.MmapedDict = RestorableFile  # type: ignore[misc]  # the library looks the class up in its module
    # The default asks the system who it is at every count; a worker imports this after the fork and stays who it is.
    values.ValueClass = values.MultiProcessValue(process_identifier=partial(int, os.getpid()))
    return True


def restore() -> None:
    """Raises OSError."""
    for file in RestorableFile.opened:
        file.restore()


class AllWorkers:
    """For a registry: everything in the folder, without the files that cannot be read."""

    def collect(self) -> Iterable[Metric]:
        files = glob(str(Path(os.environ[FOLDER]) / "*.db"))
        try:
            return MultiProcessCollector.merge(files)
        except Exception:  # one was removed or cut meanwhile; the library raises whatever it stumbles over
            return MultiProcessCollector.merge(list(filter(_is_readable, files)))


def _is_readable(file: str) -> bool:
    try:
        MultiProcessCollector.merge([file])
    except Exception:
        return False
    return True


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
