"""Frames of a websocket (RFC 6455, section 5): bytes in, messages out, and back. No socket, no clock.

A mask is taken off as one large number and text is decoded by C, since both byte by byte in Python would hold up every
other client for a quarter of a second a message.
"""

from app.serving.fairness import NOTICEABLE_BYTES

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KNOWN = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
FINAL, RESERVED, MASKED = 0x80, 0x70, 0x80
MAX_CONTROL_BYTES = 125
MAX_FRAGMENTS = 512  # of one message; more would be read in one go, and empty ones are never too large

NORMAL, PROTOCOL_ERROR, NOT_UTF8, TOO_LARGE, TRY_AGAIN_LATER = 1000, 1002, 1007, 1009, 1013
CLOSE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})  # what a client may say: section 7.4


class FrameError(Exception):
    """What came is no websocket; the connection ends with `close_code`."""

    def __init__(self, close_code: int, sentence: str):
        super().__init__(sentence)
        self.close_code = close_code


class MessageReader:
    """`feed` it what arrives, then ask for `next` until that is None. A message may have `max_bytes`, in fragments or not; the
    limit may change between two messages."""

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._buffer = bytearray()
        self._at = 0
        self._opcode: int | None = None  # of the message whose fragments are coming
        self._message = bytearray()
        self._fragments = 0

    def feed(self, data: bytes) -> None:
        del self._buffer[: self._at]
        self._at = 0
        self._buffer += data

    @property
    def unfinished_bytes(self) -> int:
        """What was fed and is not part of a message that `next` has returned."""
        return len(self._buffer) - self._at + len(self._message)

    def discard(self) -> None:
        self._buffer, self._at, self._message = bytearray(), 0, bytearray()

    @property
    def ready_bytes(self) -> int:
        """What `next` would decode in one piece, where that takes noticeably long: a whole frame, and the fragments before it."""
        if len(self._buffer) - self._at <= NOTICEABLE_BYTES and len(self._message) <= NOTICEABLE_BYTES:
            return 0
        head = self._next_head()
        if head is None or len(self._buffer) < head[2] + 4 + head[3]:
            return 0
        return head[3] + (len(self._message) if head[1] else 0)

    def next(self) -> tuple[int, str | bytes] | None:
        """(opcode, data) of the next message or control frame, text as str; None where more bytes are needed first."""
        while (frame := self._next_frame()) is not None:
            opcode, is_final, payload = frame
            if opcode >= CLOSE:
                return opcode, payload
            if (opcode == CONTINUATION) is (self._opcode is None):
                raise FrameError(PROTOCOL_ERROR, "a message began inside another, or went on before it began")
            if self._opcode is None:
                self._opcode = opcode
            if not is_final:
                self._add_fragment(payload)
                continue
            opcode, self._opcode, self._fragments = self._opcode, None, 0
            if self._message:
                payload = bytes(self._message + payload)
                self._message = bytearray()
            return opcode, _text(payload) if opcode == TEXT else payload
        return None

    def _add_fragment(self, payload: bytes) -> None:
        self._message += payload
        self._fragments += 1
        if self._fragments > MAX_FRAGMENTS:
            raise FrameError(TOO_LARGE, f"a message in more than {MAX_FRAGMENTS} fragments")

    def _next_frame(self) -> tuple[int, bool, bytes] | None:
        head = self._next_head()
        if head is None:
            return None
        opcode, is_final, begin, length = head
        end = begin + 4 + length
        if len(self._buffer) < end:
            return None
        payload = unmask(self._buffer[begin : begin + 4], self._buffer[begin + 4 : end])
        self._at = end
        return opcode, is_final, payload

    def _next_head(self) -> tuple[int, bool, int, int] | None:
        """(opcode, final, where the mask begins, length), refused as soon as it is known to be wrong."""
        buffer, at = self._buffer, self._at
        if len(buffer) < at + 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        opcode, is_final = first & 0x0F, bool(first & FINAL)
        size_bytes = {126: 2, 127: 8}.get(second & 0x7F, 0)
        if first & RESERVED or opcode not in KNOWN:
            raise FrameError(PROTOCOL_ERROR, "a frame of a kind that was not agreed on")
        if not second & MASKED:
            raise FrameError(PROTOCOL_ERROR, "a client's frame has to be masked")
        if opcode >= CLOSE and (size_bytes or not is_final):
            raise FrameError(PROTOCOL_ERROR, "a control frame is short, and whole")
        begin = at + 2 + size_bytes
        if len(buffer) < begin:
            return None
        length = int.from_bytes(buffer[at + 2 : begin], "big") if size_bytes else second & 0x7F
        if opcode < CLOSE and len(self._message) + length > self.max_bytes:
            raise FrameError(TOO_LARGE, f"a message of more than {self.max_bytes} bytes")
        return opcode, is_final, begin, length


def unmask(mask: bytes, payload: bytes) -> bytes:
    """Section 5.3, all of it in one operation."""
    length = len(payload)
    key = (bytes(mask) * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")


def encode(opcode: int, payload: bytes) -> bytes:
    """One whole frame, not masked, as a server sends it."""
    length = len(payload)
    if length <= MAX_CONTROL_BYTES:
        return bytes((FINAL | opcode, length)) + payload
    if length < 65_536:
        return bytes((FINAL | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((FINAL | opcode, 127)) + length.to_bytes(8, "big") + payload


def close_code(payload: bytes) -> int:
    """The code with which to answer a close frame: its own, where it is a right one."""
    if not payload:
        return NORMAL
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or code not in CLOSE_CODES:
        raise FrameError(PROTOCOL_ERROR, "this is no code to close with")
    _text(payload[2:])
    return code


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError(NOT_UTF8, "a text that is not UTF-8") from None
