"""The event as everything behind the schema knows it: one compact value, made once, encoded by each sink in its own way."""

from typing import Any

from msgspec import Struct

from app.json_values import to_iso


class StoredEvent(
    Struct,
    omit_defaults=True,
    gc=False,
    rename={"id": "_id", "user_id": "userId", "session_id": "sessionId", "raw_ts": "rawTs", "created_at": "createdAt"},
):
    """Times are epoch milliseconds. `raw_ts` is the client's own ts where its clock was corrected.

    As JSON (`msgspec.json.encode`) this is a line of the spool; absent fields are left out.
    """

    id: str
    app: str
    type: str
    name: str
    props: dict[str, Any]
    ts: int
    created_at: int
    env: str | None = None
    release: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    user: dict[str, Any] | None = None
    raw_ts: int | None = None

    @property
    def position(self) -> tuple[int, str]:
        """What events are sorted by."""
        return self.ts, self.id

    def to_wire(self) -> dict[str, Any]:
        """For an answer: `id`, and times as JavaScript writes them."""
        wire = {name: value for name, value in ((wire, getattr(self, own)) for own, wire in WIRE_NAMES.items()) if value is not None}
        moments = {"ts": self.ts, "createdAt": self.created_at, "updatedAt": self.created_at, "rawTs": self.raw_ts}
        return wire | {name: to_iso(ms) for name, ms in moments.items() if ms is not None}


WIRE_NAMES = {
    "id": "id", "app": "app", "env": "env", "release": "release", "user_id": "userId", "session_id": "sessionId", "user": "user",
    "type": "type", "name": "name", "props": "props",
}  # fmt: skip
