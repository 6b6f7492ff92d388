"""Programs and packages that take long to build, built once per machine and kept in a cache folder."""

import fcntl
import os
import pathlib
import shutil


def cache_root():
    """Return the cache folder. Root uses /var/cache, because CI may delete root's home after every run."""
    base = pathlib.Path("/var/cache") if os.geteuid() == 0 else pathlib.Path.home() / ".cache"
    return base / "switchyard-tests"


def cached(name):
    """Return the path of the entry `name`, which may not exist yet."""
    return cache_root() / name


def made(name, make):
    """Return the folder `name` of the cache; call `make(folder)` to fill it if it does not exist yet.

    The lock serialises two runs on one machine. The rename at the end keeps a killed run from leaving an incomplete entry.
    """
    finished, incomplete = cached(name), cached(f"{name}.making")
    cache_root().mkdir(parents=True, exist_ok=True)
    with open(cached(f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            shutil.rmtree(incomplete, ignore_errors=True)
            incomplete.mkdir()
            make(incomplete)
            incomplete.rename(finished)
    return finished
