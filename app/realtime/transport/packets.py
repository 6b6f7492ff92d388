"""Encodes events of /realtime as Socket.IO packets, once for all their receivers. Pure.

A payload is JSON text already, so a packet is put together from pieces of bytes and no JSON value is made. Every packet is framed
for websockets at once; the other transports read the text out of the frame.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import orjson

from app.realtime.log import Message

FINAL_TEXT = 0x81  # RFC 6455, section 5.2: the only frame of a text message
BEGIN = b'2/realtime,["message",{"type":"event","topic":"'  # a topic needs no escapes, see topics.py
SHORT, MEDIUM = 126, 65_536


class Batch:
    """Encoded packets that leave together, in their order. Made once, and written to any number of links.

    `packets` are Socket.IO packets as text, without Engine.IO's leading 4. `frames` are the same packets as websocket text frames, one
    after another. `bytes` is the size of `frames`. The safe link keeps its Engine.IO packets in `queued`, for the next client.
    """

    __slots__ = ("_each", "_frames", "_packets", "bytes", "queued")

    def __init__(self, frames: Sequence[bytes]):
        self._each = frames
        self._frames: bytes | None = frames[0] if len(frames) == 1 else None
        self._packets: tuple[str, ...] | None = None
        self.bytes = sum(map(len, frames))
        self.queued: Any = None

    @property
    def frames(self) -> bytes:
        """The websocket frames, joined at the first use."""
        if self._frames is None:
            self._frames = b"".join(self._each)
        return self._frames

    @property
    def packets(self) -> tuple[str, ...]:
        """The packets as text, decoded at the first use."""
        if self._packets is None:
            self._packets = tuple(_packet_of(frame) for frame in self._each)
        return self._packets


def event_frame(message: Message, skipped: tuple[int, int] | None = None) -> bytes:
    """Return the websocket frame of one message.

    `skipped` is the span (from, to) of older messages that a subscriber with `mode: latest` does not receive.
    """
    end = b',"skipped":[%d,%d]}]' % skipped if skipped else b"}]"
    return _frame(b'%b%b","payload":%b,"epoch":%b%b' % (BEGIN, message.topic.encode(), _entry(message), _quoted(message.epoch), end))


def events_frame(messages: Sequence[Message]) -> bytes:
    """Return the websocket frame of several messages of one topic and epoch, for subscribers with `batch`.

    A resend may leave out acknowledged messages between the first and the last.
    """
    first, last = messages[0], messages[-1]
    events = b",".join(b'{"payload":%b}' % _entry(message) for message in messages)
    place = (_quoted(first.epoch), first.seq, last.seq)
    return _frame(b'%b%b","epoch":%b,"first":%d,"last":%d,"events":[%b]}]' % (BEGIN, first.topic.encode(), *place, events))


def _entry(message: Message) -> bytes:
    return b'%b,"id":%b,"seq":%d,"ts":%d' % (message.payload, orjson.dumps(message.id), message.seq, message.ts)


@lru_cache(maxsize=1024)
def _quoted(text: str) -> bytes:
    return orjson.dumps(text)


def _frame(packet: bytes) -> bytes:
    """Return a websocket text frame with the packet as an Engine.IO message."""
    length = len(packet) + 1
    if length < SHORT:
        return b"%c%c4%b" % (FINAL_TEXT, length, packet)
    if length < MEDIUM:
        return b"%c\x7e%b4%b" % (FINAL_TEXT, length.to_bytes(2, "big"), packet)
    return b"%c\x7f%b4%b" % (FINAL_TEXT, length.to_bytes(8, "big"), packet)


def _packet_of(frame: bytes) -> str:
    head_bytes = {126: 4, 127: 10}.get(frame[1], 2)
    return frame[head_bytes + 1 :].decode()
