"""Files that the import reads and that are not plain: compressed ones, pipes and standard input."""

import gzip
import io
import zlib
from typing import Any, BinaryIO

BLOCK_BYTES = 65_536


class Unpacking(io.RawIOBase):
    """Decompresses gzip. Where the data ends early or is damaged, the stream ends like a file, and `trouble` has the reason."""

    def __init__(self, file: Any):
        self._file = gzip.GzipFile(fileobj=file)
        self.trouble = ""

    def readable(self) -> bool:
        """Return True: io.BufferedReader asks."""
        return True

    def readinto(self, into: Any) -> int:
        """Fill the buffer; 0 at the end of the data, or where it cannot be read further."""
        try:
            found = self._file.read1(len(into)) if not self.trouble else b""
        except EOFError:
            found, self.trouble = b"", "the compressed data is cut off"
        except (gzip.BadGzipFile, zlib.error) as error:
            found, self.trouble = b"", f"the compressed data is damaged, or something else follows it: {error}"
        into[: len(found)] = found
        return len(found)


class Rewindable:
    """A stream cannot be read twice: this keeps its first bytes (`kept`) and reads them again after `seek(0)`."""

    def __init__(self, stream: Any):
        self._stream: BinaryIO = stream
        self.kept = self._stream.read(BLOCK_BYTES)
        self._place = 0

    def seek(self, offset: int) -> None:
        """Go back to the beginning. Only possible before more than `kept` has been read."""
        self._place = offset

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, empty at the end."""
        if self._place < len(self.kept):
            found = self.kept[self._place : self._place + size]
            self._place += len(found)
            return found
        return self._stream.read(size)

    def readline(self, longest: int) -> bytes:
        """Return a line with its newline, or its first `longest` bytes."""
        if self._place >= len(self.kept):
            return self._stream.readline(longest)
        end = self.kept.find(b"\n", self._place) + 1 or len(self.kept)
        found = self.kept[self._place : min(end, self._place + longest)]
        self._place += len(found)
        if found.endswith(b"\n") or self._place < len(self.kept):
            return found
        return found + self._stream.readline(longest - len(found))

    def close(self) -> None:
        """Leave the stream open: standard input is not ours, and its source closes a pipe."""
