"""Kills the processes and removes the folders of the tests when the tests end, even by `kill -9` of pytest.

A second process reads a pipe from the test process. The kernel closes the pipe when the test process ends, whatever ended it.
Then the second process kills the registered process groups and removes the registered folders. Linux's PR_SET_PDEATHSIG is
no alternative: it fires when the *thread* that started the child ends, and macOS does not have it.
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

_process = None


def new_folder(name):
    """Return a new empty folder that is removed when the tests end, if not before."""
    path = pathlib.Path(tempfile.mkdtemp(prefix=f"switchyard-{name}-"))
    _send("folder", path)
    return path


def kill_at_end(group):
    """Kill this process group when the tests end. Call `forget` after waiting for it, because the system reuses numbers."""
    _send("group", group)


def forget(group):
    """Do not kill this process group any more."""
    _send("forget", group)


def remove(path):
    """Remove a folder, and retry for up to 5 s: a process that was just killed may still be finishing a write in it."""
    deadline = time.monotonic() + 5
    while os.path.exists(path) and time.monotonic() < deadline:
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.02)


def _send(command, what):
    global _process
    if _process is None:
        # Isolated (-I), or this folder's redis.py would hide the package `redis`. In a session of its own, so that Ctrl-C ends
        # the tests and not this process.
        _process = subprocess.Popen(
            [sys.executable, "-I", __file__], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
        )
        atexit.register(_end, _process)
    print(command, what, file=_process.stdin, flush=True)


def _end(process):
    process.stdin.close()
    process.wait()


def _clean_up_at_the_end_of_input():
    groups, folders = set(), set()
    for line in sys.stdin:
        command, what = line.rstrip("\n").split(" ", 1)
        if command == "group":
            groups.add(int(what))
        elif command == "forget":
            groups.discard(int(what))
        else:
            folders.add(what)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended, and the test process was killed before it sent `forget`
    for path in folders:
        remove(path)


if __name__ == "__main__":
    _clean_up_at_the_end_of_input()
