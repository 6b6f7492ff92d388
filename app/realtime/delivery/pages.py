"""How much is read, sent and merged at once."""

from collections.abc import Iterable

from app.realtime.log import Message
from app.realtime.subscription import MESSAGE_BYTES

PAGE = 64  # messages per read, per turn of a subscription that catches up, and per merged frame
MERGED_BYTES = 65_536


def chunks(messages: list[Message], merged: bool) -> Iterable[list[Message]]:
    """One by one, or in frames of at most PAGE messages and MERGED_BYTES (one message may be more)."""
    if not merged:
        yield from ([message] for message in messages)
        return
    chunk, size = [], 0
    for message in messages:
        if chunk and size + len(message.payload) + MESSAGE_BYTES > MERGED_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += len(message.payload) + MESSAGE_BYTES
    if chunk:
        yield chunk
