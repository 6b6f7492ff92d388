"""Websocket frames (RFC 6455, section 5): from bytes to messages and back. No socket, no clock.

A payload is unmasked as one large number and text is decoded in C. Byte by byte in Python, both would delay all other clients for a
quarter of a second per message.
"""

from app.serving.fairness import NOTICEABLE_BYTES

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KNOWN = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
FINAL, RESERVED, MASKED = 0x80, 0x70, 0x80
MAX_CONTROL_BYTES = 125
MAX_FRAGMENTS = 512  # in one message: empty fragments would never reach the limit of bytes

NORMAL, PROTOCOL_ERROR, NOT_UTF8, TOO_LARGE, TRY_AGAIN_LATER = 1000, 1002, 1007, 1009, 1013
CLOSE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})  # the codes that a client may send: section 7.4


class FrameError(Exception):
    """The client broke the protocol or a limit. The websocket closes with `close_code`."""

    def __init__(self, close_code: int, sentence: str):
        super().__init__(sentence)
        self.close_code = close_code


class MessageReader:
    """Turns received bytes into messages: call `feed` with the bytes, then `next` until it returns None.

    `max_bytes` limits a message, whether it comes in one frame or in fragments. It may change between two messages.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._buffer = bytearray()
        self._at = 0
        self._opcode: int | None = None  # of the message whose fragments are arriving
        self._message = bytearray()
        self._fragments = 0

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        del self._buffer[: self._at]
        self._at = 0
        self._buffer += data

    @property
    def unfinished_bytes(self) -> int:
        """The number of bytes that were fed and that `next` has not returned."""
        return len(self._buffer) - self._at + len(self._message)

    def discard(self) -> None:
        """Free the memory of all bytes that `next` has not returned."""
        self._buffer, self._at, self._message = bytearray(), 0, bytearray()

    @property
    def ready_bytes(self) -> int:
        """The number of bytes that `next` would decode in one piece, or 0 up to NOTICEABLE_BYTES and while the frame is not complete.

        The last fragment of a message is decoded together with the fragments before it."""
        if len(self._buffer) - self._at <= NOTICEABLE_BYTES and len(self._message) <= NOTICEABLE_BYTES:
            return 0
        head = self._next_head()
        if head is None or len(self._buffer) < head[2] + 4 + head[3]:
            return 0
        return head[3] + (len(self._message) if head[1] else 0)

    def next(self) -> tuple[int, str | bytes] | None:
        """Return (opcode, data) of the next message or control frame, or None where more bytes are needed. Raises FrameError.

        The data of a text message is a str, all other data is bytes."""
        while (frame := self._next_frame()) is not None:
            opcode, is_final, payload = frame
            if opcode >= CLOSE:
                return opcode, payload
            if (opcode == CONTINUATION) is (self._opcode is None):
                raise FrameError(PROTOCOL_ERROR, "a message began inside another, or continued before it began")
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
            raise FrameError(TOO_LARGE, f"a message may have at most {MAX_FRAGMENTS} fragments")

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
        """Return (opcode, is final, offset of the mask, length), or None where the head is not complete.

        Raises FrameError as soon as a received part of the head is not allowed."""
        buffer, at = self._buffer, self._at
        if len(buffer) < at + 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        opcode, is_final = first & 0x0F, bool(first & FINAL)
        size_bytes = {126: 2, 127: 8}.get(second & 0x7F, 0)
        if first & RESERVED or opcode not in KNOWN:
            raise FrameError(PROTOCOL_ERROR, "a frame has an unknown opcode or a reserved bit")
        if not second & MASKED:
            raise FrameError(PROTOCOL_ERROR, "a client's frame must be masked")
        if opcode >= CLOSE and (size_bytes or not is_final):
            raise FrameError(PROTOCOL_ERROR, "a control frame must be short and in one piece")
        begin = at + 2 + size_bytes
        if len(buffer) < begin:
            return None
        length = int.from_bytes(buffer[at + 2 : begin], "big") if size_bytes else second & 0x7F
        if opcode < CLOSE and len(self._message) + length > self.max_bytes:
            raise FrameError(TOO_LARGE, f"a message may have at most {self.max_bytes} bytes")
        return opcode, is_final, begin, length


def unmask(mask: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    """Return the payload without its mask (section 5.3)."""
    length = len(payload)
    key = (bytes(mask) * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")


def encode(opcode: int, payload: bytes) -> bytes:
    """Return a complete frame without a mask, as a server sends it."""
    length = len(payload)
    if length <= MAX_CONTROL_BYTES:
        return bytes((FINAL | opcode, length)) + payload
    if length < 65_536:
        return bytes((FINAL | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((FINAL | opcode, 127)) + length.to_bytes(8, "big") + payload


def close_code(payload: bytes) -> int:
    """Return the code with which to answer a close frame: the client's own, where it is valid. Raises FrameError."""
    if not payload:
        return NORMAL
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or code not in CLOSE_CODES:
        raise FrameError(PROTOCOL_ERROR, "the close code is not valid")
    _text(payload[2:])
    return code


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError(NOT_UTF8, "text must be UTF-8") from None
