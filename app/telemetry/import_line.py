"""What a line of an imported file may be: an event as the spool has it, or one as an SDK would send it, with its `app`.

The second kind has no identity of ours yet. It gets the one it would have had over HTTP where it has an eventId; else one
made from its bytes and its place in the file, so that importing the file again finds it.
"""

from hashlib import blake2b
from typing import Any

from app.errors import ApiError
from app.http.json import decode_json
from app.telemetry.batch import Batch, Envelope, EventMaker, judge
from app.telemetry.event import StoredEvent
from app.telemetry.spool.reading import usable
from app.telemetry.spool.segment import Unusable


class LineReader:
    """`now` is when they arrive (epoch milliseconds): their createdAt, and the ts of those that have none."""

    def __init__(self, now: int):
        self._maker = EventMaker(Envelope(), now)

    def __call__(self, line: bytes, offset: int) -> StoredEvent:
        """Raises Unusable."""
        try:
            return usable(line)
        except Unusable:
            sent = _as_sent(line)
            if sent is None:
                raise
        if sent.get("eventId") is None:
            sent["eventId"] = f"{offset}:{blake2b(line.rstrip(), digest_size=16).hexdigest()}"
        return self._judged(sent)

    def _judged(self, sent: dict[str, Any]) -> StoredEvent:
        batch = Batch([], [])
        judge(sent, 0, self._maker, None, batch)
        if batch.rejected:
            raise Unusable(batch.rejected[0]["message"])
        return batch.events[0]


def _as_sent(line: bytes) -> dict[str, Any] | None:
    """None where it is no object, or one that claims to be the spool's."""
    try:
        sent = decode_json(line)
    except ApiError:
        return None
    return sent if isinstance(sent, dict) and "_id" not in sent else None
