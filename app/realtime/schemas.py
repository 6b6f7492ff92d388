"""Bodies of the HTTP door: what is checked here is what /openapi.json shows."""

import re

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from app.realtime.protocol import ID_RULE, MAX_ID_LENGTH, is_id
from app.realtime.topics import TOPIC_PATTERN, TOPIC_RULE, is_topic
from app.realtime.transport.wire import RESERVED_EVENTS

OUR_EVENTS = frozenset({"message", "ping", "pong"})  # they mean something in /realtime already
ROOM_PATTERN = r"^(role|user):.{1,256}$"


def _check(is_right, sentence):
    def validator(value):
        if not is_right(value):
            raise ValidationError(sentence)

    return validator


def _is_free_event(name: str) -> bool:
    return is_id(name) and name not in RESERVED_EVENTS and name not in OUR_EVENTS


def _is_room(name: str) -> bool:
    return re.fullmatch(ROOM_PATTERN, name) is not None


class PublishSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    topic = fields.String(required=True, validate=_check(is_topic, f"Must be {TOPIC_RULE}."), metadata={"pattern": TOPIC_PATTERN})
    payload = fields.Raw(required=True, allow_none=True, metadata={"description": "Any JSON."})
    id = fields.String(
        validate=_check(is_id, f"Must be {ID_RULE}."),
        metadata={"minLength": 1, "maxLength": MAX_ID_LENGTH, "description": "Makes a repeated request harmless."},
    )


class PublishedSchema(Schema):
    ok = fields.Boolean(required=True)
    topic = fields.String(required=True)
    seq = fields.Integer(required=True)
    epoch = fields.String(required=True)
    duplicate = fields.Boolean()


class EmitSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    event = fields.String(
        required=True,
        validate=_check(_is_free_event, f"Must be {ID_RULE}, and none of {', '.join(sorted(RESERVED_EVENTS | OUR_EVENTS))}."),
        metadata={"minLength": 1, "maxLength": MAX_ID_LENGTH, "example": "reservation:update"},
    )
    to = fields.String(required=True, validate=_check(_is_room, "Must be role:<role> or user:<id>."), metadata={"pattern": ROOM_PATTERN})
    payload = fields.Raw(required=True, allow_none=True, metadata={"description": "Any JSON."})


class OkSchema(Schema):
    ok = fields.Boolean(required=True)
