"""What an application's overrides may be, and the answers about them. A misspelt field is an error: it would change nothing, silently."""

from typing import Any

from marshmallow import RAISE, Schema, fields, post_load, validate

from app.telemetry.fields import Share, WholeNumber

MAX_PATTERNS = 200
PATTERN_SENTENCE = "Names of events, in which * stands for any characters."


def _patterns(description: str) -> fields.List:
    pattern = fields.String(validate=validate.Length(1, 256))
    limit = validate.Length(max=MAX_PATTERNS)
    return fields.List(pattern, allow_none=True, validate=limit, metadata={"description": f"{PATTERN_SENTENCE} {description}"})


class OverridesSchema(Schema):
    """Loads into what is overridden; null is the same as not given: what the settings say."""

    class Meta:
        unknown = RAISE

    sample_rate = Share(
        data_key="sampleRate",
        allow_none=True,
        metadata={"description": "The share of sessions that SDKs send. 0 takes nothing: the server refuses what is sent all the same."},
    )
    max_batch = WholeNumber(data_key="maxBatch", allow_none=True, validate=validate.Range(min=1))
    flush_interval_ms = WholeNumber(data_key="flushIntervalMs", allow_none=True, validate=validate.Range(100, 3_600_000))
    allow = _patterns("Empty allows all.")
    deny = _patterns("Wins over allow.")

    @post_load
    def leave_out_nulls(self, data, **kwargs):
        return {name: value for name, value in data.items() if value is not None}


def dump_apps(apps: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Overrides by application, as JSON has them."""
    return {app: _OVERRIDES.dump(overrides) for app, overrides in apps.items()}


def load_apps(apps: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The reverse. Raises ValidationError."""
    return {app: _OVERRIDES.load(overrides) for app, overrides in apps.items()}


_OVERRIDES = OverridesSchema()


class ConfigSchema(Schema):
    sample_rate = fields.Float(data_key="sampleRate")
    max_batch = fields.Integer(data_key="maxBatch")
    flush_interval_ms = fields.Integer(data_key="flushIntervalMs")
    allow = fields.List(fields.String(), metadata={"description": f"{PATTERN_SENTENCE} Empty allows all."})
    deny = fields.List(fields.String(), metadata={"description": f"{PATTERN_SENTENCE} Wins over allow."})


class AppConfigSchema(Schema):
    """For an administrator: what is overridden, and what it comes to."""

    ok = fields.Boolean()
    app = fields.String()
    overrides = fields.Nested(OverridesSchema)
    config = fields.Nested(ConfigSchema)
