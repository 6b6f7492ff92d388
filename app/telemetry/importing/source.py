"""What the import reads, piece by piece: a file, one that is compressed, a pipe, or standard input; lines, or JSON over many lines.

A piece is a line, or one value of a JSON document: an element of an array at the top, or an object that is spread over lines
(the answer of GET /api/telemetry/events, what mongoexport makes with --jsonArray or --pretty). Which of the two it is shows at the
first characters. Every piece has the offset behind it, from which reading can go on later.

Invariant: all that can be read of a file becomes pieces, and a file that was cut off or damaged is named in `trouble` after the last
of them. So it costs no event before the cut, and does not end like a whole file.
"""

import codecs
import gzip
import io
import os
import re
import sys
import zlib
from collections.abc import Generator, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

from app.storage.segments.segment import lines_from, lock_to_read, size_of
from app.telemetry.spool.event_lines import is_segment

STDIN = "-"
GZIP_MAGIC = b"\x1f\x8b"
MAX_PIECE_BYTES = 67_108_864  # a page of 1000 of the largest events, on one line
BLOCK_BYTES = 65_536
TOKENS = re.compile(rb'\\.|["{}\[\]]', re.DOTALL)
BETWEEN = b" \t\r\n,"
EVENTS_OF_A_PAGE = re.compile(rb'[\s,]*\{[^{}\[\]]*"events"\s*:\s*\[')


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
    def is_stream(self) -> bool:
        """Standard input or a pipe: it is read once, and has no folder for rejected lines."""
        return self.is_stdin or not self.path.is_file()

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
        return 0 if self.is_stream else size_of(self.path)

    @property
    def is_of_a_spool(self) -> bool:
        """By its name, which stays with a copy."""
        return is_segment(self.path.with_suffix("") if self.path.suffix == ".gz" else self.path)

    def open(self) -> "OpenSource":
        """Raises OSError."""
        if self.is_stream:
            return self._open_stream(sys.stdin.buffer if self.is_stdin else open(self.path, "rb"))
        raw = open(self.path, "rb")  # noqa: SIM115 - the source is closed by who opened it
        is_complete = lock_to_read(raw.fileno())
        if raw.peek(2)[:2] == GZIP_MAGIC:
            unpacking = Unpacking(raw)
            return OpenSource(_Buffered(io.BufferedReader(unpacking)), unpacking=unpacking, raw=raw, can_resume=False, is_complete=True)
        return OpenSource(raw, raw=raw, can_resume=True, is_complete=is_complete)

    def _open_stream(self, stream: BinaryIO) -> "OpenSource":
        file, unpacking = _Buffered(stream), None
        if file.kept.startswith(GZIP_MAGIC):
            unpacking = Unpacking(file)
            file = _Buffered(io.BufferedReader(unpacking))
        name = b"-" + blake2b(file.kept).digest()
        return OpenSource(file, unpacking=unpacking, pipe=None if self.is_stdin else stream, name=name, can_resume=False, is_complete=True)


class OpenSource:
    """`raw` is the file on disk, None where there is none, and `pipe` is closed with it; `name` tells what has none by its first
    bytes; `can_resume` is False where reading can only begin at the beginning. `trouble` says what is wrong with the whole, "" where
    nothing is; it is known after the last piece."""

    def __init__(
        self,
        file,
        *,
        unpacking: "Unpacking | None" = None,
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
        self.raw = raw
        self.name = name
        self.can_resume = can_resume
        self._is_complete = is_complete

    def __enter__(self) -> "OpenSource":
        return self

    def __exit__(self, *_) -> None:
        for file in (self._file, self.raw, self._pipe):
            if file is not None:
                file.close()

    @property
    def inode(self) -> int:
        return os.fstat(self.raw.fileno()).st_ino if self.raw is not None else 0

    def read_so_far(self) -> int:
        """Bytes on disk, for showing the progress."""
        return self.raw.tell() if self.raw is not None else 0

    def pieces(self, start: int) -> Iterator[Piece]:
        """From an offset that was a piece's end. Raises OSError."""
        for piece in self._pieces(start):
            yield piece._replace(text=piece.text.removeprefix(codecs.BOM_UTF8)) if piece.start == 0 else piece

    @property
    def trouble(self) -> str:
        """Such as "the compressed data is cut off"."""
        if self._unpacking is not None and self._unpacking.trouble:
            return self._unpacking.trouble
        return "the JSON is cut off" if self._is_cut else ""

    def _pieces(self, start: int) -> Iterator[Piece]:
        self._file.seek(0)
        head = self._file.read(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
        if head.startswith(b"[") or head.partition(b"\n")[0].strip() == b"{":
            self._is_cut = yield from values_from(self._file, start, depth=1 if start and head.startswith(b"[") else 0)
            return
        for end, line in lines_from(self._file, start, is_complete=self._is_complete, longest=MAX_PIECE_BYTES):
            yield Piece(end - len(line), end, line)


def values_from(file: BinaryIO, start: int, depth: int) -> Generator[Piece, None, bool]:
    """The objects of a JSON document from an offset that is the end of one: those at the top, and those in an array at the top.
    `depth` is 1 where the offset is within that array. Whatever else stands between them is a piece, too. Returns True where an
    array or an object has no end."""
    file.seek(start)
    scan = _Scan(start, depth)
    while block := file.read(BLOCK_BYTES):
        yield from scan.feed(block)
        if len(scan.text) > MAX_PIECE_BYTES:
            break
    is_cut = scan.is_open
    yield from scan.rest()
    return is_cut


def pieces_of_a_page(text: bytes) -> tuple[bytes, list[bytes]]:
    """Of a page of events without an end: what stands before the first event, then the objects of its list and what stands between
    them. An empty list where the text is no such page."""
    head = EVENTS_OF_A_PAGE.match(text)
    if head is None:
        return b"", []
    scan = _Scan(head.end(), 1)
    return head[0], [piece.text for piece in (*scan.feed(text[head.end() :]), *scan.rest())]


class Unpacking(io.RawIOBase):
    """Decompresses. Where the data ends early or is damaged it ends like a file, and `trouble` says so."""

    def __init__(self, file):
        self._file = gzip.GzipFile(fileobj=file)
        self.trouble = ""

    def readable(self) -> bool:
        return True

    def readinto(self, into) -> int:
        try:
            found = self._file.read1(len(into)) if not self.trouble else b""
        except EOFError:
            found, self.trouble = b"", "the compressed data is cut off"
        except (gzip.BadGzipFile, zlib.error) as error:
            found, self.trouble = b"", f"the compressed data is damaged, or something else follows it: {error}"
        into[: len(found)] = found
        return len(found)


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

    @property
    def is_open(self) -> bool:
        return self._depth > 0

    def rest(self) -> Iterator[Piece]:
        yield from self._gap(0, len(self.text))


class _Buffered:
    """A stream, which cannot go back: its beginning is kept until it has been read from there."""

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
        """The stream stays open: standard input is not ours, and a pipe is closed by its source."""
