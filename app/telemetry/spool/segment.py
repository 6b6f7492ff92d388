"""The files of the spool and the lines in them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from app.telemetry.event import StoredEvent

PATTERN = "events-*.jsonl"
_encode = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder(StoredEvent).decode


class Unusable(ValueError):
    """A whole line that is no event; the message says why."""


def encode(events: list[StoredEvent]) -> bytes:
    """One line each, the newlines included."""
    return _encode(events)


def decode(line: bytes) -> StoredEvent:
    """The event that was encoded. Raises Unusable."""
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(str(error)) from None


def new_name(now_ms: int) -> str:
    """Sorts by the time at which the file was begun."""
    return f"events-{now_ms:013d}-{os.getpid()}-{os.urandom(4).hex()}.jsonl"


def segments(folder: Path) -> list[Path]:
    """Every segment, the oldest first."""
    return sorted(folder.glob(PATTERN))


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
