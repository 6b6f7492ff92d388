"""What the import reads, piece by piece: a file, one that is compressed, or standard input; lines, or JSON over many lines.

A piece is a line, or one value of a JSON document: an element of an array at the top, or an object that is spread over lines
(the answer of GET /api/telemetry/events, what mongoexport makes with --jsonArray or --pretty). Which of the two it is shows at the
first characters. Every piece has the offset behind it, from which reading can go on later.
"""

import codecs
import gzip
import os
import re
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

from app.spool.segment import lines_from, lock_to_read, size_of
from app.telemetry.spool.segment import is_segment

STDIN = "-"
GZIP_MAGIC = b"\x1f\x8b"
MAX_PIECE_BYTES = 67_108_864  # a page of 1000 of the largest events, on one line
BLOCK_BYTES = 65_536
TOKENS = re.compile(rb'\\.|["{}\[\]]', re.DOTALL)
BETWEEN = b" \t\r\n,"


class Piece(NamedTuple):
    start: int
    end: int
    text: bytes


class Source:
    """One of what the command was given. An `offset` counts bytes of what is read, decompressed ones where it is compressed."""

    def __init__(self, path: Path):
        self.path = path
        self.is_stdin = str(path) == STDIN

    @property
    def name(self) -> bytes:
        """Tells events without an identity of their own in this file from those in others; a compressed file is the same one."""
        return os.fsencode(self.path).removesuffix(b".gz")

    @property
    def shown(self) -> str:
        """For a sentence; a name that is no UTF-8 is shown as far as it goes."""
        return "standard input" if self.is_stdin else os.fsencode(self.path).decode("utf-8", "replace")

    @property
    def size(self) -> int:
        """Bytes on disk; 0 where that is not known."""
        return 0 if self.is_stdin else size_of(self.path)

    @property
    def is_of_a_spool(self) -> bool:
        """By its name, which stays with a copy."""
        return is_segment(self.path.with_suffix("") if self.path.suffix == ".gz" else self.path)

    def open(self) -> "OpenSource":
        """Raises OSError."""
        if self.is_stdin:
            stream = _standard_input()
            return OpenSource(stream, name=b"-" + blake2b(stream.kept).digest(), can_resume=False, is_complete=True)
        raw = open(self.path, "rb")  # noqa: SIM115 - the source is closed by who opened it
        is_complete = lock_to_read(raw.fileno())
        if raw.peek(2)[:2] == GZIP_MAGIC:
            return OpenSource(gzip.GzipFile(fileobj=raw), raw=raw, can_resume=False, is_complete=True)
        return OpenSource(raw, raw=raw, can_resume=True, is_complete=is_complete)


class OpenSource:
    """`raw` is the file on disk, None where there is none; `name` tells what has none by its first bytes; `can_resume` is False
    where reading can only begin at the beginning."""

    def __init__(self, file, *, raw: BinaryIO | None = None, name: bytes = b"", can_resume: bool, is_complete: bool):
        self._file = file
        self.raw = raw
        self.name = name
        self.can_resume = can_resume
        self._is_complete = is_complete

    def __enter__(self) -> "OpenSource":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        if self.raw is not None:
            self.raw.close()

    @property
    def inode(self) -> int:
        return os.fstat(self.raw.fileno()).st_ino if self.raw is not None else 0

    def read_so_far(self) -> int:
        """Bytes on disk, for showing the progress."""
        return self.raw.tell() if self.raw is not None else 0

    def pieces(self, start: int) -> Iterator[Piece]:
        """From an offset that was a piece's end. Raises OSError, also for a compressed file that is damaged."""
        try:
            for piece in self._pieces(start):
                yield piece._replace(text=piece.text.removeprefix(codecs.BOM_UTF8)) if piece.start == 0 else piece
        except (EOFError, gzip.BadGzipFile) as error:
            raise OSError(0, f"the compressed data ends early or is damaged: {error}") from error

    def _pieces(self, start: int) -> Iterator[Piece]:
        self._file.seek(0)
        head = self._file.read(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
        if head.startswith(b"[") or head.partition(b"\n")[0].strip() == b"{":
            yield from values_from(self._file, start, depth=1 if start and head.startswith(b"[") else 0)
            return
        for end, line in lines_from(self._file, start, is_complete=self._is_complete, longest=MAX_PIECE_BYTES):
            yield Piece(end - len(line), end, line)


def values_from(file: BinaryIO, start: int, depth: int) -> Iterator[Piece]:
    """The objects of a JSON document from an offset that is the end of one: those at the top, and those in an array at the top.
    `depth` is 1 where the offset is within that array. Whatever else stands between them is a piece, too."""
    file.seek(start)
    scan = _Scan(start, depth)
    while block := file.read(BLOCK_BYTES):
        yield from scan.feed(block)
        if len(scan.text) > MAX_PIECE_BYTES:
            break
    yield from scan.rest()


class _Scan:
    """Where it is within a document: `text` begins at the offset `at`, and up to `done` it is settled; `base` is how deep the
    objects that are asked for stand."""

    def __init__(self, at: int, base: int):
        self.text = bytearray()
        self._at = at
        self._base = self._depth = base
        self._done = 0
        self._next = 0  # place in `text` that was not looked at yet
        self._is_in_text = False

    def feed(self, block: bytes) -> Iterator[Piece]:
        self.text += block
        end = len(self.text) - self._ends_with_escape()  # what it escapes comes with the next block
        for token in TOKENS.finditer(self.text, self._next, end):
            sign, place = token[0], token.start()
            if sign == b'"':
                self._is_in_text = not self._is_in_text
            elif self._is_in_text or len(sign) == 2:
                continue
            elif sign in b"{[":
                yield from self._opened(sign, place)
            else:
                yield from self._closed(place)
        self._next = end - self._done
        self._at += self._done
        del self.text[: self._done]
        self._done = 0

    def _ends_with_escape(self) -> bool:
        return (len(self.text) - len(self.text.rstrip(b"\\"))) % 2 == 1

    def _opened(self, sign: bytes, place: int) -> Iterator[Piece]:
        if self._depth == self._base:
            yield from self._gap(self._done, place)
            self._done = place
        self._depth += 1
        if sign == b"[" and self._base == 0 and self._depth == 1:  # the array at the top
            self._base, self._done = 1, place + 1

    def _closed(self, place: int) -> Iterator[Piece]:
        self._depth -= 1
        if self._depth == self._base:
            start, self._done = self._done, place + 1
            yield Piece(self._at + start, self._at + self._done, bytes(self.text[start : self._done]))
        elif self._depth < self._base:  # the array at the top ends
            yield from self._gap(self._done, place)
            self._base, self._depth, self._done = 0, 0, place + 1

    def _gap(self, start: int, end: int) -> Iterator[Piece]:
        gap = bytes(self.text[start:end]).removeprefix(codecs.BOM_UTF8 if self._at + start == 0 else b"")
        if gap.strip(BETWEEN):
            yield Piece(self._at + start, self._at + end, gap)

    def rest(self) -> Iterator[Piece]:
        yield from self._gap(0, len(self.text))


def _standard_input() -> "_Buffered":
    stream = _Buffered(sys.stdin.buffer)
    return _Buffered(gzip.GzipFile(fileobj=stream)) if stream.kept.startswith(GZIP_MAGIC) else stream


class _Buffered:
    """Standard input, which cannot go back: its beginning is kept until it has been read from there."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.kept = stream.read(BLOCK_BYTES)
        self._place = 0

    def seek(self, offset: int) -> None:
        """Only to the beginning, and only before reading on."""
        self._place = offset

    def read(self, size: int) -> bytes:
        if self._place < len(self.kept):
            found = self.kept[self._place : self._place + size]
            self._place += len(found)
            return found
        return self._stream.read(size)

    def readline(self, longest: int) -> bytes:
        if self._place >= len(self.kept):
            return self._stream.readline(longest)
        end = self.kept.find(b"\n", self._place) + 1 or len(self.kept)
        found = self.kept[self._place : min(end, self._place + longest)]
        self._place += len(found)
        if found.endswith(b"\n") or self._place < len(self.kept):
            return found
        return found + self._stream.readline(longest - len(found))

    def close(self) -> None:
        """Standard input stays open."""
