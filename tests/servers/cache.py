"""Things that take long to make and are the same for every run: made once per machine, kept in a cache folder."""

import fcntl
import os
import pathlib
import shutil


def cache_root():
    """Root's home may be thrown away after every run (CI, `env -i HOME=…`), so root keeps them where systems keep caches."""
    base = pathlib.Path("/var/cache") if os.geteuid() == 0 else pathlib.Path.home() / ".cache"
    return base / "switchyard-tests"


def cached(name):
    """Where `made` keeps or would keep it."""
    return cache_root() / name


def made(name, make):
    """The folder `name` of the cache, filled by `make(folder)` where it is not there yet.

    The lock is for two runs at once; the rename keeps a run that was killed half-way from leaving half a thing.
    """
    finished, half_made = cached(name), cached(f"{name}.making")
    cache_root().mkdir(parents=True, exist_ok=True)
    with open(cached(f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            shutil.rmtree(half_made, ignore_errors=True)
            half_made.mkdir()
            make(half_made)
            half_made.rename(finished)
    return finished
