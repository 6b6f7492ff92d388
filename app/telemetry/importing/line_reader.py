"""Finds the events in a piece of an imported file.

Events that came from a server keep their `_id`:

- a line of the spool, or the row of a `.rejected` file that keeps one;
- an event of GET /api/telemetry/events, or its whole answer;
- a document as mongoexport writes it, in both forms of MongoDB's extended JSON.

Of an answer that was cut off, the whole events are imported, and the rest is rejected with the reason.

An event that an SDK sends is read, too, alone with its `app` or in a batch. With an eventId such an event gets the `_id` that it would
have got over HTTP. Without one, its `_id` is made of the name of the file, its place in the file and its bytes: a second import of the file
finds it, and the same bytes in another file are another event.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec
import orjson
from bson import json_util
from bson.errors import BSONError

from app.errors import ApiError
from app.http.json import decode_json
from app.json_values import parse_timestamp
from app.telemetry.batch import Batch, Envelope, EventMaker, judge
from app.telemetry.event import StoredEvent
from app.telemetry.extended_json import id_to_text
from app.telemetry.importing.json_pieces import pieces_of_a_page
from app.telemetry.spool.chunks import usable, why_unusable
from app.telemetry.spool.event_lines import Unusable

TIMES = ("ts", "createdAt", "updatedAt", "rawTs")
ENVELOPE = ("app", "env", "release", "userId", "sessionId", "user")
NUMBERS = {"$numberInt": int, "$numberLong": int, "$numberDouble": float}
Found = tuple[bytes, StoredEvent | Unusable]


class LineReader:
    """`now` (epoch milliseconds) becomes the createdAt, and the missing ts, of events that an SDK sent."""

    def __init__(self, now: int):
        self._maker = EventMaker(Envelope(), now)

    def read(self, text: bytes, name: bytes, offset: int) -> Iterator[Found]:
        """Yield each event of a piece, or the reason why it is not one, with its own text. `name` and `offset` are those of the
        file and of the piece in it."""
        try:
            yield text, usable(text)
            return
        except Unusable as error:
            trouble = error
        sent = _decoded(text)
        if sent is not None and "_id" not in sent and isinstance(sent.get("events"), list):
            yield from self._of_a_list(sent, trouble, name, offset)
        elif sent is not None and sent.keys() == {"line", "reason"} and isinstance(sent["line"], str):
            yield from self.read(sent["line"].encode("utf-8", "surrogateescape"), name, offset)
        elif sent is None and (found := list(self._of_a_cut_page(text, trouble, name, offset))):
            yield from found
        else:
            yield text, self._event(sent, trouble, name, str(offset), text)

    def _of_a_list(self, sent: dict[str, Any], trouble: Unusable, name: bytes, offset: int) -> Iterator[Found]:
        """Yield the events of a batch, or of an answer of GET /api/telemetry/events, which has a `nextCursor`."""
        shared = {field: sent[field] for field in ENVELOPE if sent.get(field) is not None}
        for index, event in enumerate(sent["events"]):
            own = {**shared, **event} if isinstance(event, dict) else event
            is_ours = "nextCursor" in sent and isinstance(event, dict) and "id" in event
            yield orjson.dumps(own) + b"\n", self._event(own, trouble, name, f"{offset}.{index}", is_ours=is_ours)

    def _of_a_cut_page(self, text: bytes, trouble: Unusable, name: bytes, offset: int) -> Iterator[Found]:
        """Yield the whole events of a cut answer of a server. Yields nothing where none is from a server: the missing end of an SDK's batch
        may have had fields for all its events."""
        head, pieces = pieces_of_a_page(text)
        sent = [_decoded(piece) for piece in pieces]
        whole = [event is not None and _was_given_out(event) for event in sent]
        for piece, event, is_whole in zip(pieces, sent, whole, strict=True):
            if is_whole:
                yield piece + b"\n", self._event(event, trouble, name, str(offset))
        if any(whole):
            rest = head + b"".join(piece for piece, is_whole in zip(pieces, whole, strict=True) if not is_whole)
            yield rest, Unusable(f"a page of events that is cut off; its {sum(whole)} whole events were taken")

    def _event(
        self, sent: Any, trouble: Unusable, name: bytes, place: str, text: bytes | None = None, is_ours: bool = False
    ) -> StoredEvent | Unusable:
        if not isinstance(sent, dict):
            return trouble
        try:
            if is_ours or _was_given_out(sent) or _was_exported(sent):
                return _stored(sent)
            return trouble if "_id" in sent else self._judged(sent, name, place, text)
        except Unusable as error:
            return error

    def _judged(self, sent: dict[str, Any], name: bytes, place: str, text: bytes | None) -> StoredEvent:
        """Raises Unusable."""
        if sent.get("eventId") is None:
            digest = blake2b(text.rstrip() if text is not None else orjson.dumps(sent), digest_size=16, key=_key(name))
            sent = {**sent, "eventId": f"{place}:{digest.hexdigest()}"}
        batch = Batch([], [], 0, [])
        judge(sent, 0, self._maker, None, batch)
        if batch.rejected:
            raise Unusable(batch.rejected[0]["message"])
        return batch.events[0]


def _key(name: bytes) -> bytes:
    return blake2b(name, digest_size=32).digest()


def _decoded(text: bytes) -> dict[str, Any] | None:
    """Return None where it is not a JSON object."""
    try:
        sent = decode_json(text)
    except ApiError:
        return None
    return sent if isinstance(sent, dict) else None


def _was_given_out(sent: dict[str, Any]) -> bool:
    """Whether it comes from GET /api/telemetry/events: an SDK sends neither such times nor the `_id` of another program."""
    if "_id" in sent or not isinstance(sent.get("id"), str):
        return False
    return sent["id"].startswith('{"$') or all(isinstance(sent.get(name), str) for name in ("createdAt", "updatedAt"))


def _was_exported(sent: dict[str, Any]) -> bool:
    return isinstance(sent.get("ts"), dict) and "$date" in sent["ts"]


def _stored(sent: dict[str, Any]) -> StoredEvent:
    """Raises Unusable."""
    fields = {name: _plain(value) for name, value in sent.items() if name not in ("_id", "id", *TIMES)}
    moments = {name: _moment(sent[name]) for name in TIMES if sent.get(name) is not None}
    fields |= {"createdAt": moments.get("ts"), **moments}  # documents of another program may have no createdAt
    fields["_id"] = sent["id"] if "_id" not in sent else sent["_id"] if isinstance(sent["_id"], str) else _id_text(sent["_id"])
    try:
        event = msgspec.convert(fields, StoredEvent)
    except msgspec.ValidationError as error:
        raise Unusable(str(error)) from None
    if (reason := why_unusable(event)) is not None:
        raise Unusable(reason)
    return event


def _id_text(exported: Any) -> str:
    """Return the text of an `_id` in extended JSON. Raises Unusable."""
    try:
        return id_to_text(json_util.loads(orjson.dumps(exported)))
    except (ValueError, TypeError, BSONError) as error:
        raise Unusable(f"_id: {error}") from None


def _moment(value: Any) -> int:
    """Read a time of an answer, or a `{"$date": …}` of either form. Raises Unusable."""
    if isinstance(value, dict):
        value = value.get("$date")
        value = _plain(value)
    ms = parse_timestamp(value)
    if ms is None:
        raise Unusable(f"not a time between 1970 and 9999: {value!r}"[:200])
    return ms


def _plain(value: Any) -> Any:
    """Replace the numbers of canonical extended JSON by numbers. Other types of BSON stay as they are written."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (kind, text), *_ = value.items()
        if kind in NUMBERS and isinstance(text, str):
            try:
                return NUMBERS[kind](text)
            except ValueError:
                return value
    return {name: _plain(item) for name, item in value.items()}
