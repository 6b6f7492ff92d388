"""The JSON of flags in requests and in stored records, checked strictly, and of answers, for the OpenAPI document.

An unknown field is an error: a misspelt rule or `startsAt` would turn a flag on for all callers. Only `version` and
`updatedAt` are ignored in a request, so that a client may send back the flag that it read.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from marshmallow import INCLUDE, RAISE, Schema, ValidationError, fields, pre_load, validate, validates_schema

from app.flags.flag import Flag
from app.flags.rules import DISABLED, RULES, SPLIT, STATIC, TARGETING_MATCH, UNKNOWN
from app.json_values import MAX_SAFE_INTEGER, is_number, parse_timestamp, timestamp_mistake

KEY_PATTERN = "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
KEY_SENTENCE = "1 to 128 letters, digits and . _ : - of which the first is a letter or a digit."
EMPTY_WINDOW = "Must be later than startAt."
READ_ONLY = ("version", "updatedAt")
MAX_VERSION = MAX_SAFE_INTEGER
MAX_ID_LENGTH = 256
MAX_ROLES = 100


def is_key(value: Any) -> bool:
    """Return whether `value` may be the key of a flag."""
    return isinstance(value, str) and re.fullmatch(KEY_PATTERN, value) is not None


class Key(fields.String):
    """The key of a flag; the OpenAPI document shows its pattern."""

    default_error_messages = {"pattern": KEY_SENTENCE}

    def __init__(self, **kwargs):
        super().__init__(metadata={"pattern": f"^{KEY_PATTERN}$", "description": KEY_SENTENCE}, **kwargs)

    def _deserialize(self, value, attr, data, **kwargs):
        value = super()._deserialize(value, attr, data, **kwargs)
        if not is_key(value):
            raise self.make_error("pattern")
        return value


class OnOff(fields.Boolean):
    """Accepts only true and false of JSON; marshmallow would also accept "no" and 0."""

    def _deserialize(self, value, attr, data, **kwargs):
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class Number(fields.Float):
    """A JSON number that keeps its type: 50 does not become 50.0."""

    def _deserialize(self, value, attr, data, **kwargs):
        if not is_number(value):
            raise self.make_error("invalid")
        return value


class Moment(fields.Field):
    """Loads epoch milliseconds or ISO 8601 (UTC when it names no zone) as epoch milliseconds."""

    OPENAPI = {"oneOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}, {"type": "null"}]}

    def _deserialize(self, value, attr, data, **kwargs):
        if (ms := parse_timestamp(value)) is None:
            raise ValidationError(timestamp_mistake(value))
        return ms


class RulesSchema(Schema):
    """One field for each row of `rules.RULES`."""

    error_messages = {"unknown": f"There is no such rule; there are {', '.join(RULES)}."}

    role = fields.List(
        fields.String(validate=validate.Length(1, MAX_ID_LENGTH)),
        validate=validate.Length(1, MAX_ROLES, error="Name 1 to 100 roles, or leave the rule out."),
        metadata={"description": "Holds for callers that have one of these roles."},
    )
    percent = Number(
        validate=validate.Range(0, 100),
        metadata={"description": "Holds for this share of users (or sessions), always the same ones. Fractions of a percent are ignored."},
    )


class FlagFieldsSchema(Schema):
    """The fields that a client may write; they load as keyword arguments of Flag, which has the defaults."""

    key = Key()
    enabled = OnOff()
    rules = fields.Nested(RulesSchema)
    start_at = Moment(data_key="startAt", allow_none=True, metadata=Moment.OPENAPI)
    end_at = Moment(data_key="endAt", allow_none=True, metadata=Moment.OPENAPI)
    description = fields.String(allow_none=True, validate=validate.Length(max=1000))
    version = fields.Integer(dump_only=True)
    updated_at = fields.String(data_key="updatedAt", dump_only=True)

    @pre_load
    def ignore_read_only(self, data: Any, **kwargs: Any) -> Any:
        """Drop the fields that only the server writes."""
        return {name: value for name, value in data.items() if name not in READ_ONLY} if isinstance(data, Mapping) else data

    @validates_schema
    def refuse_empty_window(self, data: dict[str, Any], **kwargs: Any) -> None:
        """A flag must end after its start."""
        start_at, end_at = data.get("start_at"), data.get("end_at")
        if start_at is not None and end_at is not None and start_at >= end_at:
            raise ValidationError({"endAt": [EMPTY_WINDOW]})


class NewFlagSchema(FlagFieldsSchema):
    """The body that creates a flag."""

    key = Key(required=True)


class _RecordSchema(NewFlagSchema):
    """A stored flag. Manual edits may omit `version` and `updatedAt`."""

    version = fields.Integer(strict=True, validate=validate.Range(0, MAX_VERSION))
    updated_at = Moment(data_key="updatedAt")  # type: ignore[assignment]  # replaces the field of the request

    @pre_load
    def ignore_read_only(self, data: Any, **kwargs: Any) -> Any:
        return data


def read_record(record: Any, written_at: int, unknown: Literal["exclude", "raise"] = RAISE) -> Flag:
    """Return the flag of a stored record; `written_at` (ms) replaces a missing updatedAt. Raises marshmallow's ValidationError."""
    return Flag(**{"updated_at": written_at, **_RECORD.load(record, unknown=unknown)})


def write_records(flags: Mapping[str, Flag]) -> list[dict[str, Any]]:
    """Return the records of `flags`, for the local copy of a database."""
    return [flag.record for flag in flags.values()]


def read_records(records: list[Any]) -> dict[str, Flag]:
    """Return the flags of `records` by their keys. Raises marshmallow's ValidationError."""
    flags = [read_record(record, written_at=0) for record in records]
    return {flag.key: flag for flag in flags}


_RECORD = _RecordSchema()


class ListQuerySchema(Schema):
    """The query of `GET /api/flags`."""

    session_id = fields.String(
        data_key="sessionId",
        validate=validate.Length(max=MAX_ID_LENGTH),
        metadata={"description": "The id that a percentage hashes for a caller without a user; the same id gets the same answer."},
    )
    all = fields.Boolean(load_default=False, metadata={"description": "Include disabled flags, and all fields; for service and admin."})


class _AnswerSchema(Schema):
    class Meta:
        unknown = INCLUDE  # tells clients that fields may be added

    key = Key(required=True)
    enabled = fields.Boolean(required=True)
    rules = fields.Nested(RulesSchema, required=True)
    startAt = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    endAt = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    updatedAt = fields.String(required=True, metadata={"format": "date-time"})
    description = fields.String()


class FlagSchema(_AnswerSchema):
    """A flag as it is stored."""

    version = fields.Integer(required=True)


class EvaluatedFlagSchema(_AnswerSchema):
    """A flag with the decision for the caller."""

    on = fields.Boolean(required=True)
    reason = fields.String(required=True, validate=validate.OneOf([STATIC, TARGETING_MATCH, SPLIT, DISABLED, UNKNOWN]))
    version = fields.Integer()


class FlagListSchema(Schema):
    """The answer of `GET /api/flags`."""

    flags = fields.List(fields.Nested(EvaluatedFlagSchema), required=True)
