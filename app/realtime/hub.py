"""Who is there, who listens to what, and what happens when a client says something. Pure of sockets and of the clock."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from app.errors import ApiError
from app.identity import Identity
from app.realtime import protocol
from app.realtime.buckets import Bucket, MemoryBuckets, Rate
from app.realtime.delivery import Delivery
from app.realtime.log import Archive, Head, Message, NoArchive, TopicLog
from app.realtime.permissions import may_publish, may_subscribe
from app.realtime.rules import Rules
from app.realtime.subscription import Resumption, Subscription, resume_from
from app.realtime.timers import Timers
from app.realtime.transport import Transport

MAX_REFUSALS = 20  # frames over the rate within REFUSALS_MS; whoever goes on then is not listening
REFUSALS_MS = 5000

Answer = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Connection:
    identity: Identity
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    bucket: Bucket | None = None
    refusals: deque[int] = field(default_factory=lambda: deque(maxlen=MAX_REFUSALS))
    has_expired: bool = False


class Hub:
    """`connection_buckets` makes the bucket of one connection, `topic_buckets` are shared by all that publish."""

    def __init__(self, log: TopicLog, metrics, rules: Rules, random: Random | None = None, archive: Archive | None = None):
        self.timers = Timers()
        self.rules = rules
        self._log = log
        self._metrics = metrics
        self._archive = archive or NoArchive()
        self._delivery = Delivery(log, metrics, rules, self.timers, random or Random(), self._archive)
        self._connections: dict[str, Connection] = {}
        self._connection_rate = Rate.of(rules.connection_rate, rules.connection_burst)
        self._topic_buckets = MemoryBuckets(Rate.of(rules.topic_rate))
        self._handlers = {
            protocol.Subscribe: self._subscribe,
            protocol.Unsubscribe: self._unsubscribe,
            protocol.Publish: self._publish,
            protocol.Ack: self._ack,
            protocol.AckOne: self._ack_one,
        }
        self._deadlines = {
            "ack": self._delivery.on_ack_timeout,
            "merge": self._delivery.merge,
            "stall": self._delivery.on_stall,
            "token": self._on_token_expired,
            "grace": self._on_grace_over,
        }

    @property
    def transport(self) -> Transport:
        return self._delivery.transport

    @transport.setter
    def transport(self, transport: Transport) -> None:
        self._delivery.transport = transport

    def connect(self, connection_id: str, identity: Identity) -> None:
        self._connections[connection_id] = Connection(identity)
        self._metrics.realtime_connections.inc()
        self._watch_token(connection_id, identity)

    def disconnect(self, connection_id: str) -> None:
        connection = self._connections.pop(connection_id, None)
        if connection is None:
            return
        self._metrics.realtime_connections.dec()
        for subscription in connection.subscriptions.values():
            self._leave(subscription)
        self._delivery.forget(connection_id)
        for kind in ("token", "grace"):
            self.timers.cancel((kind, connection_id))

    def admit(self, connection_id: str, now: int) -> None:
        """Takes a token for one frame, or raises `rate_limited`. One refusal too many closes the connection."""
        connection = self._connections[connection_id]
        if connection.bucket is None:
            connection.bucket = Bucket(self._connection_rate, now)
        wait_ms = connection.bucket.take(now)
        if not wait_ms:
            return
        refusals = connection.refusals
        if len(refusals) == MAX_REFUSALS and refusals[0] > now - REFUSALS_MS:
            self.transport.close(connection_id)
        refusals.append(now)
        raise ApiError("rate_limited", "Too many frames; slow down.", retry_after_ms=wait_ms)

    def handle(self, connection_id: str, frame: protocol.Frame, now: int, answer: Answer) -> None:
        """Does what the frame says and answers once, or raises ApiError. What is replayed follows the answer."""
        self._handlers[type(frame)](connection_id, frame, now, answer)

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
        self._delivery.tick(now)
        return now if self._delivery.has_work else self.timers.next

    def counts(self) -> dict[str, int]:
        subscriptions = sum(len(connection.subscriptions) for connection in self._connections.values())
        return {"connections": len(self._connections), "subscriptions": subscriptions, **self._delivery.counts()}

    # Subscriptions

    def _subscribe(self, connection_id: str, frame: protocol.Subscribe, now: int, answer: Answer) -> None:
        connection = self._connections[connection_id]
        if not may_subscribe(self._valid_identity(connection), frame.topic):
            raise ApiError("forbidden", "The token does not allow subscribing to this topic.")
        head = self._log.head(frame.topic)
        subscription = connection.subscriptions.get(frame.topic)
        if subscription is None:
            if len(connection.subscriptions) >= self.rules.max_topics:
                raise ApiError("limit_exceeded", f"A connection may subscribe to at most {self.rules.max_topics} topics.")
            subscription = Subscription(connection_id, frame.topic, head.epoch, head.seq)
            connection.subscriptions[frame.topic] = subscription
            self._delivery.join(subscription)
            self._metrics.realtime_subscriptions.inc()
        self._set_manner(subscription, frame)
        if frame.since is None:
            answer(protocol.ack_frame(frame.id, topic=frame.topic, seq=subscription.delivered, epoch=subscription.epoch))
        else:
            self._resume(subscription, frame, head, answer)
        self._delivery.pump(subscription, now)

    def _set_manner(self, subscription: Subscription, frame: protocol.Subscribe) -> None:
        subscription.mode, subscription.batch = frame.mode, frame.batch
        subscription.ack = self.rules.ack_default if frame.ack is None else frame.ack
        if not subscription.ack:
            subscription.forget_unacked()
            subscription.sent = subscription.delivered

    def _resume(self, subscription: Subscription, frame: protocol.Subscribe, head: Head, answer: Answer) -> None:
        """The cursor goes to where the client says, wherever it was."""
        begin = resume_from(frame.since, frame.epoch, head)
        if begin.reason == "history_gap" and self._archive.keeps(frame.topic, head.epoch, frame.since):
            begin = Resumption(frame.since)
        subscription.move_to(head.epoch, begin.seq)
        self._metrics.realtime_replays_total.labels(begin.reason or "yes").inc()
        facts = {"topic": frame.topic, "seq": begin.seq, "epoch": head.epoch, "head": head.seq, "recovered": begin.reason is None}
        if begin.reason:
            facts["reason"] = begin.reason
        answer(protocol.ack_frame(frame.id, **facts))
        if begin.reason:
            epoch = head.epoch if begin.reason == "epoch_changed" else None
            places = {"id": frame.id, "topic": frame.topic, "span": begin.span, "epoch": epoch}
            self._delivery.tell(subscription.connection_id, ApiError(begin.reason), **places)

    def _unsubscribe(self, connection_id: str, frame: protocol.Unsubscribe, _now: int, answer: Answer) -> None:
        subscription = self._connections[connection_id].subscriptions.pop(frame.topic, None)
        if subscription is None:
            raise ApiError("unknown_topic")
        self._leave(subscription)
        answer(protocol.ack_frame(frame.id, topic=frame.topic, seq=subscription.delivered, epoch=subscription.epoch))

    def _leave(self, subscription: Subscription) -> None:
        self._delivery.leave(subscription)
        self._metrics.realtime_subscriptions.dec()

    # Publishing

    def _publish(self, connection_id: str, frame: protocol.Publish, now: int, answer: Answer) -> None:
        identity = self._valid_identity(self._connections[connection_id])
        (facts,) = self.publish_as(identity, [frame], now)
        answer(protocol.ack_frame(frame.id, **facts))

    def publish_as(self, identity: Identity, messages: list[protocol.Publish], now: int) -> list[dict[str, Any]]:
        """`[{topic, seq, epoch, duplicate?}]`. Where one is not permitted, or over its topic's rate, none is published."""
        counts: dict[str, int] = {}
        for message in messages:
            if not may_publish(identity, message.topic):
                raise ApiError("forbidden", f"The token does not allow publishing to {message.topic}.")
            counts[message.topic] = counts.get(message.topic, 0) + 1
        for topic, count in counts.items():
            if wait_ms := self._topic_buckets.take(topic, now, count):
                raise ApiError("rate_limited", f"Too many messages on {topic}; slow down.", retry_after_ms=wait_ms)
        return [self.publish(message.topic, message.payload, now, message.id, identity.user_id) for message in messages]

    def publish(self, topic: str, payload: bytes, now: int, id: str | None, user: str | None) -> dict[str, Any]:
        """`{topic, seq, epoch, duplicate?}`, after the message is in the log. Nobody's permission and no rate is asked."""
        appended = self._log.append(topic, payload, now, id, user)
        facts: dict[str, Any] = {"topic": topic, "seq": appended.seq, "epoch": appended.epoch}
        if appended.duplicate:
            return {**facts, "duplicate": True}
        self._metrics.realtime_published_total.inc()
        return facts

    # Acknowledgements

    def _ack(self, connection_id: str, frame: protocol.Ack, now: int, answer: Answer) -> None:
        """All or nothing: one wrong position and none of the frame's counts. What is no news costs a token, as any frame."""
        subscriptions = self._connections[connection_id].subscriptions
        for topic, seq in frame.positions.items():
            if topic not in subscriptions:
                raise ApiError("bad_ack", f"There is no subscription to {topic}.")
            if seq > subscriptions[topic].delivered:
                raise ApiError("bad_ack", f"Nothing after {subscriptions[topic].delivered} was sent on {topic}.")
        moved = [subscriptions[topic] for topic, seq in frame.positions.items() if subscriptions[topic].acknowledge(seq)]
        if not moved:
            self.admit(connection_id, now)
        answer(protocol.ack_frame())
        for subscription in moved:
            self._delivery.acknowledged(subscription, now)

    def _ack_one(self, connection_id: str, frame: protocol.AckOne, now: int, answer: Answer) -> None:
        for subscription in self._connections[connection_id].subscriptions.values():
            message = self._find_unacked(subscription, frame.id)
            if message is not None:
                subscription.acknowledge_one(message.seq)
                answer(protocol.ack_frame(frame.id, topic=subscription.topic, seq=message.seq, epoch=message.epoch))
                self._delivery.acknowledged(subscription, now)
                return
        raise ApiError("bad_ack", "No message with this id waits to be acknowledged.")

    def _find_unacked(self, subscription: Subscription, id: str) -> Message | None:
        if not subscription.unacked:
            return None
        span = subscription.delivered - subscription.acked
        messages = self._log.read(subscription.topic, subscription.acked, span).messages
        return next((message for message in messages if message.id == id and message.seq in subscription.unacked), None)

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
        for topic, subscription in list(connection.subscriptions.items()):
            if not may_subscribe(identity, topic):
                del connection.subscriptions[topic]
                self._leave(subscription)
                self._delivery.tell(connection_id, ApiError("forbidden", "The new token does not allow this topic."), topic=topic)
        return before

    def _watch_token(self, connection_id: str, identity: Identity) -> None:
        if identity.expires_at is not None:
            self.timers.set(("token", connection_id), identity.expires_at)

    def _on_token_expired(self, connection_id: str, now: int) -> None:
        """Told, and given some time to send a fresh one; what it listens to goes on until then, but nothing new begins."""
        self._connections[connection_id].has_expired = True
        self.timers.set(("grace", connection_id), now + self.rules.token_grace_ms)
        self._delivery.tell(connection_id, ApiError("token_expired", retry_after_ms=self.rules.token_grace_ms))

    def _on_grace_over(self, connection_id: str, _now: int) -> None:
        self.transport.close(connection_id)

    @staticmethod
    def _valid_identity(connection: Connection) -> Identity:
        if connection.has_expired:
            raise ApiError("token_expired")
        return connection.identity
