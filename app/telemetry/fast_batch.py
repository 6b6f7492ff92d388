"""The same as `read_batch`, from bytes and many times faster, for whatever is beyond doubt.

msgspec decodes and checks in one pass in C; what is accepted here the schema of record accepts, too, with the same
result (a hypothesis test holds the two together). Whatever is in doubt goes to the schema, which decides and finds the
words: one event by itself, or the whole body where the envelope is in doubt.
"""

from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta, Raw, Struct

from app.http.json import decode_json
from app.telemetry.batch import Batch, Envelope, EventMaker, Rejected, judge, read_batch, refuse_too_many
from app.telemetry.fields import INT64, MAX_MS, to_moment, why_not_storable
from app.telemetry.schemas import MAX_PROPS_BYTES, MAX_USER_BYTES

Short = Annotated[str, Meta(min_length=1, max_length=128)]
Long = Annotated[str, Meta(min_length=1, max_length=256)]
Moment = int | float | str | None

NUL_ESCAPE = b"\\u0000"  # nothing else can put a NUL into a key, and with one somewhere the schema looks closely
MOST_BYTES_A_CHARACTER = 6
MOST_BYTES_A_VALUE = 32


class Doubt(Exception):
    """Not necessarily wrong: the schema of record must look at it."""


class FastEvent(Struct, rename="camel"):
    name: Long
    type: Literal["page", "event", "error", "api", "perf"] | None = None
    ts: Moment = None
    props: dict[str, Any] | None = None
    event_id: Short | None = None
    app: Short | None = None
    env: Short | None = None
    release: Short | None = None
    user_id: Long | int | None = None
    session_id: Long | int | None = None
    user: dict[str, Any] | None = None


class _Envelope(Struct, rename="camel"):
    app: Short | None = None
    env: Short | None = None
    release: Short | None = None
    user_id: Long | int | None = None
    session_id: Long | int | None = None
    user: dict[str, Any] | None = None
    sent_at: Moment = None


class WholeBatch(_Envelope, rename="camel"):
    events: list[FastEvent] = []


class OpenBatch(_Envelope, rename="camel"):
    """The events as they came, to be judged one by one."""

    events: list[Raw] = []


decode_whole = msgspec.json.Decoder(WholeBatch).decode
decode_open = msgspec.json.Decoder(OpenBatch).decode
decode_event = msgspec.json.Decoder(FastEvent).decode
NOT_DECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_batch_bytes(body: bytes, now: int, max_events: int, default_type: str | None = None) -> Batch:
    """Raises what `read_batch` raises, and ApiError `bad_request` for bytes that are not JSON."""
    try:
        if NUL_ESCAPE in body:
            raise Doubt
        try:
            return _read_whole(body, now, max_events, default_type)
        except (Doubt, *NOT_DECODED):
            return _read_one_by_one(body, now, max_events, default_type)
    except (Doubt, *NOT_DECODED):
        return read_batch(decode_json(body), now, max_events, default_type)


def _read_whole(body: bytes, now: int, max_events: int, default_type: str | None) -> Batch:
    sent = decode_whole(body)
    maker = EventMaker(_envelope(sent), now)
    refuse_too_many(len(sent.events), max_events)
    return Batch([_event(event, maker, default_type) for event in sent.events], [])


def _read_one_by_one(body: bytes, now: int, max_events: int, default_type: str | None) -> Batch:
    sent = decode_open(body)
    maker = EventMaker(_envelope(sent), now)
    refuse_too_many(len(sent.events), max_events)
    batch = Batch([], [])
    for index, raw in enumerate(sent.events):
        try:
            batch.events.append(_event(decode_event(raw), maker, default_type))
        except (Doubt, *NOT_DECODED):
            judge(decode_json(bytes(raw)), index, maker, default_type, batch)
    return batch


def _envelope(sent: _Envelope) -> Envelope:
    if sent.user is not None and not _surely_storable(sent.user, MAX_USER_BYTES):
        raise Doubt
    user_id, session_id = _identifier(sent.user_id), _identifier(sent.session_id)
    return Envelope(sent.app, sent.env, sent.release, user_id, session_id, sent.user, _moment(sent.sent_at))


def _event(event: FastEvent, maker: EventMaker, default_type: str | None):
    type_ = event.type or default_type
    if type_ is None or (event.props is not None and not _surely_storable(event.props, MAX_PROPS_BYTES)):
        raise Doubt
    if event.user is not None and not _surely_storable(event.user, MAX_USER_BYTES):
        raise Doubt
    try:
        return maker.make(
            type_,
            event.name,
            event.ts if type(event.ts) is int and 0 <= event.ts <= MAX_MS else _moment(event.ts),
            event.props,
            event.event_id,
            event.app,
            event.env,
            event.release,
            event.user_id if type(event.user_id) is str else _identifier(event.user_id),
            event.session_id if type(event.session_id) is str else _identifier(event.session_id),
            event.user,
        )
    except Rejected:
        raise Doubt from None


def _moment(value: int | float | str | None) -> int | None:
    if value is None:
        return None
    ms = to_moment(value)
    if ms is None:
        raise Doubt
    return ms


def _identifier(value: str | int | None) -> str | None:
    if type(value) is int:
        if not -INT64 <= value < INT64:
            raise Doubt
        return str(value)
    return value


def _surely_storable(value: dict[str, Any], max_bytes: int) -> bool:
    """A bound on its size that takes no encoding, and a close look only at what is nested."""
    bound = 2 + MOST_BYTES_A_VALUE * len(value)
    for key, item in value.items():
        kind = type(item)
        if kind is str:
            bound += MOST_BYTES_A_CHARACTER * (len(key) + len(item))
        elif kind is int:
            if not -INT64 <= item < INT64:
                return False
            bound += MOST_BYTES_A_CHARACTER * len(key)
        elif kind is dict or kind is list:
            return why_not_storable(value) is None and _json_size(value) <= max_bytes
        else:
            bound += MOST_BYTES_A_CHARACTER * len(key)
    return bound <= max_bytes or _json_size(value) <= max_bytes


def _json_size(value: dict[str, Any]) -> int:
    return len(orjson.dumps(value))
