"""The files of a spool and the lines in them.

A writer holds its file by flock, alone, for as long as it lives, and no file is ever written to again afterwards. So
whoever gets the lock knows that what stands in the file is all there will be. The kernel lets go with the process,
however that ended.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from app.storage import disk

MAX_LINE_BYTES = 1_048_576  # many times what the largest line that is let in needs; a longer line is read in pieces
_begun = itertools.count()


def new_name(kind: str, now_ms: int) -> str:
    """Sorts by the time at which the file was begun, and within a millisecond by the order."""
    return f"{kind}-{now_ms:013d}-{os.getpid()}-{next(_begun):06x}{os.urandom(4).hex()}.jsonl"


def segments(folder: Path, kind: str) -> list[Path]:
    """Every segment, the oldest first."""
    return sorted(folder.glob(f"{kind}-*.jsonl"))


def started_at(path: Path) -> int:
    """When it was begun, in epoch milliseconds, by its name; 0 where the name does not say."""
    digits = path.name.split("-")[1] if path.name.count("-") else ""
    return int(digits) if digits.isdigit() else 0


def writer_of(path: Path) -> str:
    """The process id of whoever began it, by its name."""
    return next(iter(path.name.split("-")[2:]), "?")


def lock_alone(fd: int) -> bool:
    """True when it is ours alone, until the file is closed."""
    return disk.lock(fd)


def lock_to_read(fd: int) -> bool:
    """True when no writer is left, and nobody else may change the file until it is closed."""
    return disk.lock(fd, shared=True)


def has_writer(path: Path) -> bool:
    """False where it is gone, too; True where nobody can tell."""
    try:
        with open(path, "rb") as file:
            return not lock_to_read(file.fileno())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def lines_from(file: BinaryIO, start: int, *, is_complete: bool, longest: int | None = None) -> Iterator[tuple[int, bytes]]:
    """(the offset behind it, the line) from an offset that is a line's beginning. A last line without a newline is given
    only where `is_complete`: else its writer may be in the middle of it. A line over `longest`
    (MAX_LINE_BYTES) comes in pieces."""
    longest = longest or MAX_LINE_BYTES
    file.seek(start)
    while line := file.readline(longest):
        if not is_complete and not line.endswith(b"\n") and len(line) < longest:
            return
        start += len(line)
        yield start, line


def whole_lines(path: Path, start: int = 0) -> Iterator[bytes]:
    """The lines that end in a newline, from a byte offset that is a line's beginning. Nothing where the file is gone."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        file.seek(start)
        for line in file:
            if line.endswith(b"\n"):
                yield line


def size_of(path: Path) -> int:
    """Bytes on disk; 0 where it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
