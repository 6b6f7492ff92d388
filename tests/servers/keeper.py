"""Ends what the tests started, however the tests end: a `kill -9` of pytest leaves no server and no folder behind.

A second process waits at the other end of a pipe. The kernel closes the pipe when the owner dies, whatever killed it,
and then the keeper kills the process groups and removes the folders it was told of. Linux's "signal on the parent's
death" was not used since it is tied to the *thread* that started the child, and macOS has none.
"""

import atexit
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

_keeper = None


def folder(name):
    """A new empty folder that is removed when the owner ends, if not before."""
    path = pathlib.Path(tempfile.mkdtemp(prefix=f"switchyard-{name}-"))
    _tell("folder", path)
    return path


def keep(group):
    """Kill this process group when the owner ends; `forget` it once it was waited for, since its number may come again."""
    _tell("group", group)


def forget(group):
    _tell("forget", group)


def remove(path):
    """Remove a folder in which a process that was just killed may still be finishing a write."""
    deadline = time.monotonic() + 5
    while os.path.exists(path) and time.monotonic() < deadline:
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.02)


def _tell(word, what):
    global _keeper
    if _keeper is None:
        # Isolated (-I), or this folder's own redis.py would stand before the packages; in a session of its own, so that
        # Ctrl-C reaches the tests and not the one who clears up after them.
        _keeper = subprocess.Popen(
            [sys.executable, "-I", __file__], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
        )
        atexit.register(_let_go, _keeper)
    print(word, what, file=_keeper.stdin, flush=True)


def _let_go(keeper):
    keeper.stdin.close()
    keeper.wait()


def _wait_for_the_owners_end():
    groups, folders = set(), set()
    for line in sys.stdin:
        word, what = line.rstrip("\n").split(" ", 1)
        if word == "group":
            groups.add(int(what))
        elif word == "forget":
            groups.discard(int(what))
        else:
            folders.add(what)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it went by itself, and its owner had no time to say so
    for path in folders:
        remove(path)


if __name__ == "__main__":
    _wait_for_the_owners_end()
