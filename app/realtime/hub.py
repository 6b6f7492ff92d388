"""Who is there, and what happens when something does: a client says something, a message is announced, time passes.

Pure of sockets and of the clock. What a client says goes by a table to `subscribing`, `publishing` and `acknowledging`;
what it is sent is decided by `delivery`.
"""

from random import Random

from app.errors import ApiError
from app.identity import Identity
from app.realtime import protocol
from app.realtime.acknowledging import Acknowledging
from app.realtime.archive import Archive, NoArchive
from app.realtime.buckets import MemoryBuckets, Rate
from app.realtime.connection import Answer, Connection
from app.realtime.delivery import Delivery
from app.realtime.log import Message, TopicLog
from app.realtime.publishing import Publishing
from app.realtime.rules import Rules
from app.realtime.subscribing import Subscribing
from app.realtime.timers import Timers
from app.realtime.transport import Transport


class Hub:
    def __init__(self, log: TopicLog, metrics, rules: Rules, random: Random | None = None, archive: Archive | None = None):
        self.timers = Timers()
        self.rules = rules
        self._metrics = metrics
        self._connections: dict[str, Connection] = {}
        self._connection_rate = Rate.of(rules.connection_rate, rules.connection_burst)
        archive = archive or NoArchive()
        self._delivery = Delivery(log, metrics, rules, self.timers, random or Random(), archive)
        self._subscribing = Subscribing(log, archive, self._delivery, metrics, rules)
        self._publishing = Publishing(log, MemoryBuckets(Rate.of(rules.topic_rate)), metrics)
        acknowledging = Acknowledging(log, self._delivery, self.admit)
        self._handlers = {
            protocol.Subscribe: self._subscribing.subscribe,
            protocol.Unsubscribe: self._subscribing.unsubscribe,
            protocol.Publish: self._publish,
            protocol.Ack: acknowledging.ack,
            protocol.AckOne: acknowledging.ack_one,
        }
        self._deadlines = {**self._delivery.deadlines, "token": self._on_token_expired, "grace": self._on_grace_over}
        self.publish_as = self._publishing.publish_as
        self.publish = self._publishing.publish

    @property
    def transport(self) -> Transport:
        return self._delivery.out.transport

    @transport.setter
    def transport(self, transport: Transport) -> None:
        self._delivery.out.transport = transport

    def connect(self, connection_id: str, identity: Identity) -> None:
        self._connections[connection_id] = Connection(connection_id, identity)
        self._metrics.realtime_connections.inc()
        self._watch_token(connection_id, identity)

    def disconnect(self, connection_id: str) -> None:
        connection = self._connections.pop(connection_id, None)
        if connection is None:
            return
        self._metrics.realtime_connections.dec()
        for subscription in list(connection.subscriptions.values()):
            self._subscribing.end(connection, subscription)
        self._delivery.forget(connection_id)
        for kind in ("token", "grace"):
            self.timers.cancel((kind, connection_id))

    def admit(self, connection_id: str, now: int) -> None:
        """Takes a token for one frame, or raises `rate_limited`. One refusal too many closes the connection."""
        connection = self._connections[connection_id]
        wait_ms = connection.wait_for_token(self._connection_rate, now)
        if wait_ms:
            if connection.note_refusal(now):
                self.transport.close(connection_id)
            raise ApiError("rate_limited", "Too many frames; slow down.", retry_after_ms=wait_ms)

    def handle(self, connection_id: str, frame: protocol.Frame, now: int, answer: Answer) -> None:
        """Does what the frame says and answers once, or raises ApiError. What is replayed follows the answer."""
        self._handlers[type(frame)](self._connections[connection_id], frame, now, answer)

    def announce(self, message: Message, now: int) -> None:
        """A message was appended to the log."""
        self._delivery.announce(message, now)

    def writable(self, connection_id: str, now: int) -> None:
        """The transport has room again for this connection, who had none."""
        self._delivery.writable(connection_id, now)

    def overflowed(self, connection_id: str) -> None:
        """More was queued for this connection than it may hold back, by answers and events that no window bounds."""
        if connection_id in self._connections:
            self._delivery.end_slow_consumer(connection_id)

    def tick(self, now: int) -> int | None:
        """Does what is due. When to call again: now, at a time, or when `timers.on_earlier` is called."""
        for kind, *names in self.timers.due(now):
            self._deadlines[kind](*names, now)
        return now if self._delivery.tick(now) else self.timers.next

    def counts(self) -> dict[str, int]:
        subscriptions = sum(len(connection.subscriptions) for connection in self._connections.values())
        return {"connections": len(self._connections), "subscriptions": subscriptions, **self._delivery.counts()}

    def _publish(self, connection: Connection, frame: protocol.Publish, now: int, answer: Answer) -> None:
        (facts,) = self.publish_as(connection.valid_identity, [frame], now)
        answer(protocol.ack_frame(frame.id, **facts))

    # Tokens that expire while a connection is open

    def reauthenticate(self, connection_id: str, identity: Identity, id: str | None, answer: Answer) -> Identity:
        """A fresh token of the same user. Subscriptions that it does not permit end, with `forbidden`. Returns the old identity."""
        connection = self._connections[connection_id]
        before = connection.identity
        if identity.user_id != before.user_id:
            raise ApiError("forbidden", "The token is of another user; connect anew with it.")
        connection.identity, connection.has_expired = identity, False
        self.timers.cancel(("grace", connection_id))
        self._watch_token(connection_id, identity)
        answer(protocol.ack_frame(id))
        self._subscribing.end_what_is_forbidden(connection)
        return before

    def _watch_token(self, connection_id: str, identity: Identity) -> None:
        if identity.expires_at is not None:
            self.timers.set(("token", connection_id), identity.expires_at)

    def _on_token_expired(self, connection_id: str, now: int) -> None:
        """Told, and given some time to send a fresh one; what it listens to goes on until then, but nothing new begins."""
        self._connections[connection_id].has_expired = True
        self.timers.set(("grace", connection_id), now + self.rules.token_grace_ms)
        self._delivery.out.tell(connection_id, ApiError("token_expired", retry_after_ms=self.rules.token_grace_ms))

    def _on_grace_over(self, connection_id: str, _now: int) -> None:
        self.transport.close(connection_id)
