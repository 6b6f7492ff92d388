"""Live topics as the rest of the house sees them: publish to a topic, emit to a room, ask how it is."""

from typing import Any

from app.errors import ApiError
from app.identity.identity import Identity
from app.realtime.archive import Archive, NoArchive
from app.realtime.buckets import MemoryBuckets, Rate
from app.realtime.hub import Hub
from app.realtime.log import Message, TopicLog
from app.realtime.options import Options
from app.realtime.protocol import ID_RULE, Publish, encode_payload, is_id
from app.realtime.topics import TOPIC_RULE, is_topic
from app.realtime.transport import Transport


class Realtime:
    """Complete without a server: until `bind` there is nobody to send to, and publishing only fills the log. `user_rate` is how many
    messages one user may publish through publish_as; a request with more than fit at once is paid for by the ones after it."""

    def __init__(
        self, log: TopicLog, clock, metrics, options: Options | None = None, archive: Archive | None = None, user_rate: str | None = None
    ):
        self.hub = Hub(log, metrics, options or Options(), archive=archive)
        self.max_payload_bytes = self.hub.options.max_payload_bytes
        self._clock = clock
        self._archive = archive or NoArchive()
        self._users = MemoryBuckets(Rate.of(user_rate)) if user_rate else None
        log.listen(self._announce)

    def _announce(self, message: Message) -> None:
        self._archive.add(message)
        self.hub.announce(message, self._clock())

    def bind(self, transport: Transport) -> None:
        self.hub.transport = transport
        transport.listen(self)

    def blocked(self, connection_id: str) -> None:
        self.hub.blocked(connection_id, self._clock())

    def writable(self, connection_id: str) -> None:
        self.hub.writable(connection_id, self._clock())

    def overflowed(self, connection_id: str) -> None:
        self.hub.overflowed(connection_id)

    def publish(self, topic: str, payload: Any, id: str | None = None, user: str | None = None) -> dict[str, Any]:
        """`{ok: true, topic, seq, epoch, duplicate?}` once the message is in the log.

        The same `(topic, user, id)` again gets the first answer. Raises ApiError `bad_request`, `payload_too_large`,
        `unavailable`. Nobody's permission and no rate is asked: whoever calls this is the server, and knows how much it says.
        """
        if not is_topic(topic):
            raise ApiError("bad_request", f"topic must be {TOPIC_RULE}.")
        if id is not None and not is_id(id):
            raise ApiError("bad_request", f"id must be {ID_RULE}.")
        text = encode_payload(payload, self.max_payload_bytes)
        return {"ok": True, **self.hub.publish(topic, text, self._clock(), id, user)}

    def publish_as(self, identity: Identity, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """`[{topic, payload, id?}]` of a caller, who is asked for permission and held to the rates: all are published or none,
        except that the log may fail in between; with an id of its own each can then be sent again. Raises ApiError."""
        frames = [
            Publish(message["topic"], encode_payload(message["payload"], self.max_payload_bytes), message.get("id")) for message in messages
        ]
        if self._users and (wait_ms := self._users.take(identity.user_id, self._clock(), len(frames))):
            raise ApiError("rate_limited", "Too many messages of one user; slow down.", retry_after_ms=wait_ms)
        return self.hub.publish_as(identity, frames, self._clock())

    def emit(self, event: str, payload: Any, to: str) -> None:
        """A business event to the room `user:<id>` or `role:<role>`, in /realtime and in /, without a log behind it."""
        encode_payload(payload, self.max_payload_bytes)
        self.hub.transport.emit(event, payload, to)

    def queued_bytes(self) -> int:
        """What waits in this process to be sent to all connections."""
        return sum(connection.link.queued_bytes for connection in self.hub.members)

    def check(self) -> dict[str, Any]:
        return {"state": "up", **self.hub.counts(), **self._archive.check()}
