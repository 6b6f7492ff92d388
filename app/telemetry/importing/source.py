"""The files that the import reads: plain or compressed ones, pipes and standard input; lines, or JSON over many lines.

A piece is a line, or one value of a JSON document: an element of an array at the top, or an object that is spread over lines (an
answer of GET /api/telemetry/events, what mongoexport writes with --jsonArray or --pretty). The first characters tell which. Every
piece has the offset of its end, from which reading can continue later.

Invariant: everything that can be read of a file becomes pieces, and `trouble` names a file that was cut off or damaged after the last
of them. So the damage costs no event before it, and such a file does not look like a whole one.
"""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from app.storage.segments.segment import lines_from, lock_to_read, size_of
from app.telemetry.importing.json_pieces import BLOCK_BYTES, MAX_PIECE_BYTES, Piece, pieces_of
from app.telemetry.importing.streams import Rewindable, Unpacking
from app.telemetry.spool.event_lines import is_segment
from app.telemetry.spool.progress import PrefixDigest

STDIN = "-"
GZIP_MAGIC = b"\x1f\x8b"


class Source:
    """One file that the command was given. Offsets count the bytes that are read: decompressed ones where it is compressed."""

    def __init__(self, path: Path):
        self.path = path
        self.is_stdin = str(path) == STDIN

    @property
    def is_stream(self) -> bool:
        """Whether it is standard input or a pipe: read once, and without a folder for rejected lines."""
        return self.is_stdin or not self.path.is_file()

    @property
    def name(self) -> bytes:
        """The name that tells events without an id of their own from those in other files; compressing a file does not change it."""
        return os.fsencode(self.path).removesuffix(b".gz")

    @property
    def shown(self) -> str:
        """The name in a sentence; bytes that are not UTF-8 are replaced."""
        return "standard input" if self.is_stdin else os.fsencode(self.path).decode("utf-8", "replace")

    @property
    def size(self) -> int:
        """Bytes on disk; 0 where that is not known."""
        return 0 if self.is_stream else size_of(self.path)

    @property
    def is_of_a_spool(self) -> bool:
        """Whether a server wrote it, by its name, which a copy keeps."""
        return is_segment(self.path.with_suffix("") if self.path.suffix == ".gz" else self.path)

    def open(self) -> "OpenSource":
        """Open it for reading. Raises OSError."""
        if self.is_stream:
            return self._open_stream(sys.stdin.buffer if self.is_stdin else open(self.path, "rb"))
        raw = open(self.path, "rb")  # noqa: SIM115 - OpenSource closes it
        is_complete = lock_to_read(raw.fileno())
        if raw.peek(2)[:2] == GZIP_MAGIC:
            unpacking = Unpacking(raw)
            return OpenSource(Rewindable(io.BufferedReader(unpacking)), unpacking=unpacking, raw=raw, can_resume=False, is_complete=True)
        return OpenSource(raw, raw=raw, can_resume=True, is_complete=is_complete)

    def _open_stream(self, stream: BinaryIO) -> "OpenSource":
        file, unpacking = Rewindable(stream), None
        if file.kept.startswith(GZIP_MAGIC):
            unpacking = Unpacking(file)
            file = Rewindable(io.BufferedReader(unpacking))
        name = b"-" + blake2b(file.kept).digest()
        return OpenSource(file, unpacking=unpacking, pipe=None if self.is_stdin else stream, name=name, can_resume=False, is_complete=True)


class OpenSource:
    """A source that is being read. `raw` is the file on disk, None for a stream. `name` is made of the first bytes of a stream, and
    empty for a file. With `can_resume`, reading can begin at the end of any piece. `trouble` is known after the last piece."""

    def __init__(
        self,
        file: Any,
        *,
        unpacking: Unpacking | None = None,
        raw: BinaryIO | None = None,
        pipe: BinaryIO | None = None,
        name: bytes = b"",
        can_resume: bool,
        is_complete: bool,
    ):
        self._file = file
        self._unpacking = unpacking
        self._pipe = pipe
        self._is_cut = False
        self._is_complete = is_complete
        self.raw = raw
        self.name = name
        self.can_resume = can_resume

    def __enter__(self) -> "OpenSource":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._file, self.raw, self._pipe):
            if file is not None:
                file.close()

    @property
    def inode(self) -> int:
        """The inode of the file; 0 for a stream."""
        return os.fstat(self.raw.fileno()).st_ino if self.raw is not None else 0

    def digest(self, prefix: PrefixDigest, end: int) -> str:
        """Return the digest of the bytes before `end`; empty where reading cannot continue from there. Raises OSError."""
        return prefix.at(self.raw.fileno(), end) if self.can_resume and self.raw is not None else ""

    def read_so_far(self) -> int:
        """Return the bytes on disk that were read, for the progress bar."""
        return self.raw.tell() if self.raw is not None else 0

    def pieces(self, start: int) -> Iterator[Piece]:
        """Yield the pieces from an offset that was the end of one. Raises OSError."""
        for piece in self._pieces(start):
            yield piece._replace(text=piece.text.removeprefix(codecs.BOM_UTF8)) if piece.start == 0 else piece

    @property
    def trouble(self) -> str:
        """Why the file is not whole, such as "the compressed data is cut off"; empty where it is."""
        if self._unpacking is not None and self._unpacking.trouble:
            return self._unpacking.trouble
        return "the JSON is cut off" if self._is_cut else ""

    def _pieces(self, start: int) -> Iterator[Piece]:
        self._file.seek(0)
        head = self._file.read(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
        if head.startswith(b"[") or head.partition(b"\n")[0].strip() == b"{":
            self._is_cut = yield from pieces_of(self._file, start, depth=1 if start and head.startswith(b"[") else 0)
            return
        for end, line in lines_from(self._file, start, is_complete=self._is_complete, longest=MAX_PIECE_BYTES):
            yield Piece(end - len(line), end, line)
