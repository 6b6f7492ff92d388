"""Looks after the files of the spool by hand: what is there, whether every line is sound, and putting aside what is not."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from app.storage.disk import private, sync_folder
from app.storage.segments.rejected import REJECTED, RejectedFile
from app.storage.segments.segment import has_writer, lines_from, lock_alone, size_of
from app.telemetry.spool.chunks import usable
from app.telemetry.spool.event_lines import Unusable, segments

BLOCK_BYTES = 1_048_576


class SegmentStatus(NamedTuple):
    path: Path
    bytes: int
    events: int
    is_held: bool


class Problem(NamedTuple):
    """`number` counts the lines of the file from 1, `end` is the offset behind it."""

    number: int
    end: int
    line: bytes
    reason: str


def status(folder: Path) -> list[SegmentStatus]:
    return [SegmentStatus(path, size_of(path), _count_lines(path), has_writer(path)) for path in segments(folder)]


def rejected_lines(folder: Path) -> dict[Path, int]:
    """The `.rejected` files, and how many lines each has kept."""
    return {path: _count_lines(path) for path in sorted(folder.glob(f"*{REJECTED}"))}


def problems(path: Path) -> list[Problem]:
    """Every line that is no event. The line that a living writer is in the middle of is none."""
    with open(path, "rb") as file:
        return list(_problems(file, is_complete=not has_writer(path)))


def repair(path: Path) -> list[Problem] | None:
    """What was moved to the `.rejected` file; None where a living process holds the file, which is then left alone.

    First what is put aside is durable, then a new file without it is, and then the new one takes the place of the old:
    wherever it is cut short, nothing is missing and it can be done again. Raises OSError.
    """
    with open(path, "rb") as file:
        if not lock_alone(file.fileno()):
            return None
        found = list(_problems(file, is_complete=True))
        if found:
            RejectedFile(path).add([(problem.line, problem.reason) for problem in found])
            _rewrite(path, file, {problem.end for problem in found})
        return found


def _rewrite(path: Path, file: BinaryIO, without: set[int]) -> None:
    half = path.with_name(f".{path.name}.repair")
    with open(half, "wb", opener=private) as repaired:
        os.fchmod(repaired.fileno(), os.fstat(file.fileno()).st_mode & 0o777)
        for end, line in lines_from(file, 0, is_complete=True):
            if end not in without:
                repaired.write(line if line.endswith(b"\n") else line + b"\n")
        repaired.flush()
        os.fsync(repaired.fileno())
    half.rename(path)
    sync_folder(path.parent)


def _problems(file: BinaryIO, *, is_complete: bool) -> Iterator[Problem]:
    number = 1
    for end, line in lines_from(file, 0, is_complete=is_complete):
        try:
            if line.strip():
                usable(line)
        except Unusable as error:
            yield Problem(number, end, line, str(error))
        number += line.endswith(b"\n")  # an overlong line comes in pieces that share its number


def _count_lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK_BYTES), b""))
