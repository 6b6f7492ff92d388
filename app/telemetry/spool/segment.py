"""The files of the spool and the lines in them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

PATTERN = "events-*.jsonl"
TIMES = ("ts", "createdAt", "updatedAt", "rawTs")
REQUIRED = ("_id", "app", "type", "name", "ts", "createdAt", "updatedAt")
OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


class Unusable(ValueError):
    """A whole line that is no event; the message says why."""


def encode(event: dict[str, Any]) -> bytes:
    """One line, its newline included."""
    return orjson.dumps(event, option=OPTIONS)


def decode(line: bytes) -> dict[str, Any]:
    """The document that was encoded. Raises Unusable."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Unusable(f"not JSON: {error}") from None
    if not isinstance(event, dict) or any(not event.get(name) for name in REQUIRED):
        raise Unusable("not an event: a required field is missing")
    try:
        for name in TIMES:
            if name in event:
                event[name] = datetime.fromisoformat(event[name]).replace(tzinfo=None)
    except (ValueError, TypeError):
        raise Unusable(f"not an event: {name} is not a time") from None
    return event


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
