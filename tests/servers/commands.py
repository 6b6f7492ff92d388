"""Runs programs of the machine, and raises Unavailable with a sentence when one is missing or fails."""

import shutil
import subprocess

from tests.servers.real import Unavailable


def on_path(*names, otherwise):
    """Return the path of the first of these programs that exists; raise Unavailable(otherwise) if none does."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise Unavailable(otherwise)
    return found


def run(*command, timeout_s=600, **options):
    """Return what the command prints. Raise Unavailable with the end of its output if it fails."""
    words = [str(part) for part in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, **options)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"`{' '.join(words)}` did not end within {timeout_s} s") from None
    if done.returncode != 0:
        raise Unavailable(f"`{' '.join(words)}` failed: {(done.stderr or done.stdout).strip()[-1000:]}")
    return done.stdout.strip()
