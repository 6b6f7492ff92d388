"""Lines that cannot become events, kept beside the file they stood in: `<file>.rejected`, a JSON object `{line, reason}` each.

Nothing is thrown away because we could not read it, and nothing waits behind it either. A line that is there already
is not added again, so that work which is done twice after a crash leaves one copy.
"""

import json
import os
from hashlib import blake2b
from pathlib import Path

from app.disk import private, sync_folder

REJECTED = ".rejected"


class RejectedFile:
    """The one beside `path`; made with its first line."""

    def __init__(self, path: Path):
        self.path = path.with_name(path.name + REJECTED)
        self._seen: set[bytes] | None = None

    def add(self, lines: list[tuple[bytes, str]]) -> int:
        """Durable when it returns; how many of them are new. Raises OSError."""
        if not lines:
            return 0
        seen = self._known()
        fresh = {key: row for key, row in ((_key(line), _row(line, reason)) for line, reason in lines) if key not in seen}
        if fresh:
            is_new = not self.path.exists()
            with open(self.path, "ab", opener=private) as file:
                file.write(b"".join(fresh.values()))
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(self.path.parent)
            seen.update(fresh)
        return len(fresh)

    def _known(self) -> set[bytes]:
        if self._seen is None:
            self._seen = set()
            if self.path.exists():
                _mend(self.path)
                with open(self.path, "rb") as file:
                    self._seen.update(_key(line) for line in map(_line_of, file) if line is not None)
        return self._seen


def _row(line: bytes, reason: str) -> bytes:
    """Bytes that are no UTF-8 become lone surrogates, as Python itself writes them, and come back from there."""
    text = line.rstrip(b"\n").decode("utf-8", "surrogateescape")
    return json.dumps({"line": text, "reason": reason}).encode() + b"\n"


def _line_of(row: bytes) -> bytes | None:
    """As it stood in the file; None where somebody edited the row beyond recognition."""
    try:
        return json.loads(row)["line"].encode("utf-8", "surrogateescape")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _key(line: bytes) -> bytes:
    return blake2b(line.rstrip(b"\n"), digest_size=16).digest()


def _mend(path: Path) -> None:
    """Cuts off a last row that a crash cut through; the line it was about is still where it came from."""
    with open(path, "rb+") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)
