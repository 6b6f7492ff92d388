"""Live topics as the rest of the house sees them: publish to a topic, emit to a room, ask how it is."""

from typing import Any

from app.errors import ApiError
from app.realtime.hub import Hub
from app.realtime.log import TopicLog
from app.realtime.protocol import ID_RULE, encode_payload, is_id
from app.realtime.topics import TOPIC_RULE, is_topic
from app.realtime.transport import Transport


class Realtime:
    """Complete without a server: until `bind` there is nobody to send to, and publishing only fills the log."""

    def __init__(self, log: TopicLog, clock, metrics, *, max_topics: int, max_payload_bytes: int):
        self.hub = Hub(log, metrics, max_topics)
        self.max_payload_bytes = max_payload_bytes
        self._clock = clock

    def bind(self, transport: Transport) -> None:
        self.hub.transport = transport

    def publish(self, topic: str, payload: Any, id: str | None = None, user: str | None = None) -> dict[str, Any]:
        """`{ok: true, topic, seq, epoch, duplicate?}` once the message is in the log.

        The same `(topic, user, id)` again gets the first answer. Raises ApiError `bad_request`, `payload_too_large`,
        `unavailable`. Nobody's permission is asked: whoever calls this is the server.
        """
        if not is_topic(topic):
            raise ApiError("bad_request", f"topic must be {TOPIC_RULE}.")
        if id is not None and not is_id(id):
            raise ApiError("bad_request", f"id must be {ID_RULE}.")
        text = encode_payload(payload, self.max_payload_bytes)
        return {"ok": True, **self.hub.publish(topic, text, self._clock(), id, user)}

    def emit(self, event: str, payload: Any, to: str) -> None:
        """A business event to the room `user:<id>` or `role:<role>`, in /realtime and in /, without a log behind it."""
        encode_payload(payload, self.max_payload_bytes)
        self.hub.transport.emit(event, payload, to)

    def check(self) -> dict[str, Any]:
        return {"state": "up", **self.hub.counts()}
