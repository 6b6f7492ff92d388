"""Builds the AsyncAPI document of /realtime, the body of `GET /asyncapi.json`.

The frames are generated from the dataclasses and limits of protocol.py, so the document cannot differ from the parser.
https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from dataclasses import MISSING, fields
from typing import Any

from app.errors import CATALOGUE
from app.realtime import protocol
from app.realtime.topics import MAX_TOPIC_LENGTH, TOPIC_PATTERN
from app.realtime.transport import REALTIME

TOPIC = {"type": "string", "pattern": TOPIC_PATTERN, "maxLength": MAX_TOPIC_LENGTH}
ID = {"type": "string", "minLength": 1, "maxLength": protocol.MAX_ID_LENGTH}
SEQ = {"type": "integer", "minimum": 0, "maximum": protocol.MAX_SEQ}
FIELDS: dict[str, dict[str, Any]] = {
    "topic": TOPIC,
    "id": ID,
    "since": SEQ,
    "epoch": ID,
    "seq": SEQ,
    "ack": {"type": "boolean"},
    "mode": {"enum": list(protocol.MODES)},
    "batch": {"type": "boolean"},
    "payload": {"description": "Any JSON."},
    "token": {"type": "string"},
}
NUMBER = {"type": "integer"}
SKIPPED = {"type": "array", "items": SEQ, "minItems": 2, "maxItems": 2}
ONE = {"payload": FIELDS["payload"], "id": ID, "seq": SEQ, "ts": NUMBER}


def _object(kind: str | None, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    head = {"type": {"const": kind}} if kind else {}
    return {"type": "object", "properties": {**head, **properties}, "required": [*head, *required]}


def _from_frame(kind: str, frame: type) -> dict[str, Any]:
    """Return the schema of a frame that a client sends. Fields without a default are required."""
    required = [field.name for field in fields(frame) if field.default is MISSING]
    return _object(kind, {field.name: FIELDS[field.name] for field in fields(frame)}, required)


CLIENT_FRAMES: dict[str, dict[str, Any]] = {
    "subscribe": _from_frame("subscribe", protocol.Subscribe),
    "unsubscribe": _from_frame("unsubscribe", protocol.Unsubscribe),
    "publish": _from_frame("publish", protocol.Publish),
    "auth": _from_frame("auth", protocol.Auth),
    "ack": {
        "oneOf": [
            _object("ack", {"topic": TOPIC, "seq": SEQ}, ["topic", "seq"]),
            _object("ack", {"acks": {"type": "object", "propertyNames": TOPIC, "additionalProperties": SEQ, "minProperties": 1}}, ["acks"]),
            _object("ack", {"id": ID}, ["id"]),
        ]
    },
}

SERVER_FRAMES: dict[str, dict[str, Any]] = {
    "event": _object("event", {"topic": TOPIC, **ONE, "epoch": ID, "skipped": SKIPPED}, ["topic", *ONE, "epoch"]),
    "events": _object(
        "event",
        {"topic": TOPIC, "epoch": ID, "first": SEQ, "last": SEQ, "events": {"type": "array", "items": _object(None, ONE, [*ONE])}},
        ["topic", "epoch", "first", "last", "events"],
    ),
    "acked": _object(
        "ack",
        {
            **{"id": ID, "ok": {"const": True}, "topic": TOPIC, "seq": SEQ, "epoch": ID, "head": SEQ},
            **{"duplicate": {"const": True}, "recovered": {"type": "boolean"}, "reason": {"enum": ["epoch_changed", "history_gap"]}},
        },
        ["ok"],
    ),
    "error": _object(
        "error",
        {
            **{"code": {"enum": list(CATALOGUE)}, "message": {"type": "string"}, "retryable": {"type": "boolean"}, "retryAfterMs": NUMBER},
            **{"id": ID, "topic": TOPIC, "from": SEQ, "to": SEQ, "epoch": ID, "graceMs": NUMBER},
        },
        ["code", "message", "retryable"],
    ),
}


def document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0.0 document."""
    messages = {**CLIENT_FRAMES, **SERVER_FRAMES}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Switchyard live topics", "version": "1"},
        "defaultContentType": "application/json",
        "channels": {
            "realtime": {
                "address": REALTIME,
                "description": "A Socket.IO namespace. Every frame is the one argument of the event `message`; with a callback the answer "
                "goes there. `auth` is {token, resume?: {topic: {since, epoch, ack?, mode?, batch?}}}. `ping` is answered by `pong` {ts}.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "say": _operation("receive", CLIENT_FRAMES),
            "hear": _operation("send", SERVER_FRAMES),
        },
        "components": {"messages": {name: {"name": name, "payload": schema} for name, schema in messages.items()}},
    }


def _operation(action: str, frames: dict[str, Any]) -> dict[str, Any]:
    references = [{"$ref": f"#/channels/realtime/messages/{name}"} for name in frames]
    return {"action": action, "channel": {"$ref": "#/channels/realtime"}, "messages": references}
