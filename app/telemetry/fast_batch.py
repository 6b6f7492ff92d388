"""The same as `read_batch`, from bytes and twenty times faster, for whatever is beyond doubt.

msgspec decodes and checks in one pass in C; what it accepts here the schema of record accepts, too, with the same
result (a hypothesis test holds the two together). Whatever it refuses, or cannot vouch for, goes to the schema, which
decides and finds the words: the whole body where the envelope is in doubt, else the one event.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from app.clock import to_ms
from app.http.json import decode_json
from app.telemetry.batch import Batch, Envelope, EventMaker, Rejected, judge, read_batch, refuse_too_many
from app.telemetry.fields import INT64, MAX_MS
from app.telemetry.schemas import MAX_PROPS_BYTES

Short = Annotated[str, Meta(min_length=1, max_length=128)]
Long = Annotated[str, Meta(min_length=1, max_length=256)]
EpochMs = Annotated[int, Meta(ge=0, le=MAX_MS)]
WORST_BYTES_A_CHARACTER = 6  # \u0001
WORST_BYTES_A_NUMBER = 32


class FastEvent(Struct, rename="camel"):
    name: Long
    type: Literal["page", "event", "error", "api", "perf"] | None = None
    ts: EpochMs | None = None
    props: dict[str, Any] | None = None
    event_id: Short | None = None
    app: Short | None = None
    env: Short | None = None
    release: Short | None = None
    user_id: Long | None = None
    session_id: Long | None = None
    user: None = None


class FastEnvelope(Struct, rename="camel"):
    """`user` is left to the schema: it is rare, and would have to be looked through."""

    events: list[FastEvent]
    app: Short | None = None
    env: Short | None = None
    release: Short | None = None
    user_id: Long | None = None
    session_id: Long | None = None
    user: None = None
    sent_at: EpochMs | None = None


class OpenEnvelope(FastEnvelope, rename="camel"):
    """The same with each event left as it came, for when one of them is in doubt."""

    events: list[msgspec.Raw]
