"""Encodes a message as one line of JSON, and decodes it."""

from typing import Annotated

import msgspec

from app.json_values import MAX_TIMESTAMP_MS
from app.realtime.log import Message
from app.realtime.protocol import MAX_SEQ


class _Line(msgspec.Struct, rename="camel", omit_defaults=True):
    topic: str
    epoch: str
    seq: Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]
    id: str
    ts: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMESTAMP_MS)]
    payload: msgspec.Raw
    user_id: str | None = None


def encode(message: Message) -> bytes:
    """Return the line with its newline. The payload is copied as it is."""
    payload = msgspec.Raw(message.payload)
    line = _Line(message.topic, message.epoch, message.seq, message.id, message.ts, payload, message.user)
    return msgspec.json.encode(line) + b"\n"


def decode(line: bytes) -> Message:
    """Return the message of a line. Raises ValueError, also for a message that MongoDB would never accept."""
    found = msgspec.json.decode(line, type=_Line)
    bytes(found.payload).decode()
    return Message(found.topic, found.epoch, found.seq, found.id, found.ts, bytes(found.payload), found.user_id)
