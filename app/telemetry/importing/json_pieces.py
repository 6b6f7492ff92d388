"""Cuts JSON that spreads over many lines into pieces, block by block, so that a file of any size is read in limited memory.

A piece is an object at the top of the document, or in an array at the top. This module looks only at strings and brackets: the reader of a
piece finds out whether it is JSON. Any text between two objects that is not a comma is a piece, too.
"""

import codecs
import re
from collections.abc import Generator, Iterator
from typing import BinaryIO, NamedTuple

MAX_PIECE_BYTES = 67_108_864  # a page of 1000 of the largest events, on one line
BLOCK_BYTES = 65_536
TOKENS = re.compile(rb'\\.|["{}\[\]]', re.DOTALL)
BETWEEN = b" \t\r\n,"
EVENTS_OF_A_PAGE = re.compile(rb'[\s,]*\{[^{}\[\]]*"events"\s*:\s*\[')


class Piece(NamedTuple):
    """`text` stands from `start` to `end`, byte offsets in the file."""

    start: int
    end: int
    text: bytes


def pieces_of(file: BinaryIO, start: int, depth: int) -> Generator[Piece, None, bool]:
    """Yield the pieces of a JSON document from an offset that is the end of one. `depth` is 1 where the offset is within the array
    at the top. Return True where an array or an object has no end."""
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
    """Split a page of events whose end is missing: the text before the first event, then the pieces of its list. The list is empty
    where the text is not such a page."""
    head = EVENTS_OF_A_PAGE.match(text)
    if head is None:
        return b"", []
    scan = _Scan(head.end(), 1)
    return head[0], [piece.text for piece in (*scan.feed(text[head.end() :]), *scan.rest())]


class _Scan:
    """The state of reading a document. `text` begins at the offset `_at`; everything before `_done` has been yielded; `_base` is the
    depth of the objects that are pieces."""

    def __init__(self, at: int, base: int):
        self.text = bytearray()
        self._at = at
        self._base = self._depth = base
        self._done = 0
        self._next = 0  # the place in `text` up to which tokens were read
        self._is_in_string = False

    def feed(self, block: bytes) -> Iterator[Piece]:
        """Yield the pieces that end in this block."""
        self.text += block
        end = len(self.text) - self._ends_with_escape()  # the escaped byte comes with the next block
        for token in TOKENS.finditer(self.text, self._next, end):
            sign, place = token[0], token.start()
            if sign == b'"':
                self._is_in_string = not self._is_in_string
            elif self._is_in_string or len(sign) == 2:
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
        """Yield the text after the last piece, if there is any."""
        yield from self._gap(0, len(self.text))
