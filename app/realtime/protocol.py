"""The frames of /realtime: parses what a client sends and builds what the server sends. Pure.

A new command is a dataclass, a parser and a row in PARSERS. For every JSON value `parse` returns a frame or raises ApiError, and
nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from app.errors import ApiError
from app.json_values import MAX_SAFE_INTEGER, is_whole_number
from app.realtime.topics import TOPIC_RULE, is_topic

MAX_ID_LENGTH = 128
MAX_SEQ = MAX_SAFE_INTEGER
MODES = ("all", "latest")
PAYLOAD_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
ENVELOPE_DEPTH = 8  # levels of nesting that frames may put around a payload


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe to a topic. `ack` None means the server's default; `since` and `epoch` are the last position that the client has."""

    topic: str
    id: str | None = None
    since: int | None = None
    epoch: str | None = None
    ack: bool | None = None
    mode: str = "all"
    batch: bool = False


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """End a subscription."""

    topic: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a message. `payload` is JSON text; `id` is None only over HTTP; `seq` is the publisher's own count, which is ignored."""

    topic: str
    payload: bytes
    id: str | None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    """Acknowledge every message up to `positions[topic]`."""

    positions: dict[str, int]


@dataclass(frozen=True, slots=True)
class AckOne:
    """Acknowledge the one message with this id."""

    id: str


@dataclass(frozen=True, slots=True)
class Auth:
    """Replace the token of an open connection."""

    token: str
    id: str | None = None


Frame = Subscribe | Unsubscribe | Publish | Ack | AckOne | Auth


def parse(value: Any, max_payload_bytes: int) -> Frame:
    """Return the frame that a decoded JSON value describes. Raises ApiError `bad_request` or `payload_too_large`."""
    if not isinstance(value, dict):
        raise ApiError("bad_request", "A frame is an object with a type.")
    kind = value.get("type")
    parser = PARSERS.get(kind) if isinstance(kind, str) else None
    if parser is None:
        raise ApiError("bad_request", f"type must be one of {', '.join(PARSERS)}.")
    return parser(value, max_payload_bytes)


def refuse_too_many_acks(value: dict, max_topics: int) -> None:
    """Raise `bad_request` if the frame acknowledges more topics than a connection may have.

    Called before `parse`, which checks each topic.
    """
    acks = value.get("acks")
    if isinstance(acks, dict) and len(acks) > max_topics:
        raise ApiError("bad_request", f"acks has {len(acks)} topics; a connection may subscribe to at most {max_topics}.")


def encode_payload(payload: Any, max_bytes: int) -> bytes:
    """Return the payload as JSON text of at most `max_bytes`.

    orjson rejects binary values, and values so deep that they could not be encoded again inside a frame. Raises ApiError
    `bad_request` or `payload_too_large`.
    """
    deep = payload
    for _ in range(ENVELOPE_DEPTH):
        deep = [deep]
    try:
        text = orjson.dumps(deep, option=PAYLOAD_OPTIONS)[ENVELOPE_DEPTH:-ENVELOPE_DEPTH]
    except (TypeError, ValueError, RecursionError) as error:
        raise ApiError("bad_request", f"payload must be JSON: {error}.") from None
    if len(text) > max_bytes:
        raise ApiError("payload_too_large", f"The payload has {len(text)} bytes as JSON; {max_bytes} are allowed.")
    return text


def _parse_subscribe(value: dict, _max_payload_bytes: int) -> Subscribe:
    return Subscribe(
        topic=_required(value, "topic", is_topic, TOPIC_RULE),
        id=_optional(value, "id", is_id, ID_RULE),
        since=_optional(value, "since", is_seq, SEQ_RULE),
        epoch=_optional(value, "epoch", is_id, ID_RULE),
        ack=_optional(value, "ack", _is_bool, BOOL_RULE),
        mode=_optional(value, "mode", _is_mode, f"one of {', '.join(MODES)}") or "all",
        batch=_optional(value, "batch", _is_bool, BOOL_RULE) or False,
    )


def _parse_unsubscribe(value: dict, _max_payload_bytes: int) -> Unsubscribe:
    return Unsubscribe(_required(value, "topic", is_topic, TOPIC_RULE), _optional(value, "id", is_id, ID_RULE))


def _parse_publish(value: dict, max_payload_bytes: int) -> Publish:
    topic = _required(value, "topic", is_topic, TOPIC_RULE)
    id = _required(value, "id", is_id, ID_RULE)
    seq = _optional(value, "seq", is_seq, SEQ_RULE)
    if "payload" not in value:
        raise ApiError("bad_request", "payload is missing; it may be null.")
    return Publish(topic, encode_payload(value["payload"], max_payload_bytes), id, seq)


def _parse_ack(value: dict, _max_payload_bytes: int) -> Ack | AckOne:
    if "acks" in value:
        acks = _required(value, "acks", _is_acks, f"an object of topic: seq, where seq is {SEQ_RULE}")
        return Ack(dict(acks))
    if "topic" in value or "seq" in value:
        topic = _required(value, "topic", is_topic, TOPIC_RULE)
        return Ack({topic: _required(value, "seq", is_seq, SEQ_RULE)})
    return AckOne(_required(value, "id", is_id, ID_RULE))


def _parse_auth(value: dict, _max_payload_bytes: int) -> Auth:
    return Auth(_required(value, "token", _is_token, "a token's text"), _optional(value, "id", is_id, ID_RULE))


def parse_resume(value: Any) -> dict[str, Any]:
    """Return the `{topic: position}` that a client sends in `auth` when it connects.

    The positions are not checked yet: an invalid one fails its own topic only. Raises ApiError `bad_request`.
    """
    if not isinstance(value, dict):
        raise ApiError("bad_request", "resume must be an object of topic: {since, epoch}.")
    return value


def parse_position(topic: str, position: Any) -> Subscribe:
    """Return the Subscribe frame for one entry of `resume`: `{since?, epoch?, ack?, mode?, batch?}`. Raises ApiError `bad_request`."""
    if not isinstance(position, dict):
        raise ApiError("bad_request", "A position is an object like {since, epoch}.")
    return _parse_subscribe({**position, "topic": topic, "id": None}, 0)


PARSERS: dict[str, Callable[[dict, int], Frame]] = {
    "subscribe": _parse_subscribe,
    "unsubscribe": _parse_unsubscribe,
    "publish": _parse_publish,
    "ack": _parse_ack,
    "auth": _parse_auth,
}


def _optional(value: dict, name: str, is_right: Callable[[Any], bool], rule: str) -> Any:
    """Return the field, or None if it is missing or null: JavaScript clients send either for no value."""
    given = value.get(name)
    if given is not None and not is_right(given):
        raise ApiError("bad_request", f"{name} must be {rule}.")
    return given


def _required(value: dict, name: str, is_right: Callable[[Any], bool], rule: str) -> Any:
    given = _optional(value, name, is_right, rule)
    if given is None:
        raise ApiError("bad_request", f"{name} is missing; it must be {rule}.")
    return given


ID_RULE = f"a string of 1 to {MAX_ID_LENGTH} printable characters"
SEQ_RULE = "an integer from 0 to 2^53 - 1"
BOOL_RULE = "true or false"


def is_id(value: Any) -> bool:
    """Whether the value can be the id of a message or frame, or an epoch."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and value.isprintable()


def is_seq(value: Any) -> bool:
    return is_whole_number(value) and 0 <= value <= MAX_SEQ


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_mode(value: Any) -> bool:
    return isinstance(value, str) and value in MODES


def _is_acks(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(is_topic(topic) and is_seq(seq) for topic, seq in value.items())


def ack_frame(id: str | None = None, **facts: Any) -> dict[str, Any]:
    """Return `{type: "ack", id?, ok: true, …facts}`. Facts that are None are left out."""
    frame: dict[str, Any] = {"type": "ack", "id": id, "ok": True, **facts}
    return {name: fact for name, fact in frame.items() if fact is not None}


def error_frame(
    error: ApiError,
    *,
    id: str | None = None,
    topic: str | None = None,
    span: tuple[int, int] | None = None,
    epoch: str | None = None,
    grace_ms: int | None = None,
) -> dict[str, Any]:
    """Return `{type: "error", code, message, retryable, retryAfterMs?, id?, topic?, from?, to?, epoch?, graceMs?}`.

    `span` becomes from and to. `epoch` is the new epoch of the topic. `grace_ms` is the time until the connection is closed, unless
    the client renews its token.
    """
    places = {"id": id, "topic": topic, "from": span and span[0], "to": span and span[1], "epoch": epoch, "graceMs": grace_ms}
    return {"type": "error", **error.to_dict(), **{name: place for name, place in places.items() if place is not None}}


def refusal_frame(error: ApiError, received: Any) -> dict[str, Any]:
    """Return the error frame that answers a rejected frame. It repeats the id and the topic if they are valid."""
    received = received if isinstance(received, dict) else {}
    id, topic = received.get("id"), received.get("topic")
    return error_frame(error, id=id if is_id(id) else None, topic=topic if is_topic(topic) else None)
