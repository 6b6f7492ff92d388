"""Who listens to what, and what happens when a client says something. Pure of sockets and of the clock.

A message that is announced goes at once to every subscription whose cursor stands right before it; any other catches up
from the log, so that each sees every message once and in order, whatever was published while it was replaying.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.errors import ApiError
from app.identity import Identity
from app.realtime import protocol
from app.realtime.log import Head, Message, TopicLog
from app.realtime.permissions import may_publish, may_subscribe
from app.realtime.subscription import Subscription, resume_from
from app.realtime.transport import NoTransport, Transport

PAGE = 100  # messages per read while a subscription catches up
ACKED_APART = 256  # how far a client may acknowledge single messages ahead of an older one

Answer = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Connection:
    identity: Identity
    subscriptions: dict[str, Subscription] = field(default_factory=dict)


class Hub:
    def __init__(self, log: TopicLog, metrics, max_topics: int):
        self.transport: Transport = NoTransport()
        self._log = log
        self._metrics = metrics
        self._max_topics = max_topics
        self._connections: dict[str, Connection] = {}
        self._topics: dict[str, dict[str, Subscription]] = {}
        self._handlers = {
            protocol.Subscribe: self._subscribe,
            protocol.Unsubscribe: self._unsubscribe,
            protocol.Publish: self._publish,
            protocol.Ack: self._ack,
            protocol.AckOne: self._ack_one,
        }
        log.listen(self.deliver)

    def connect(self, connection_id: str, identity: Identity) -> None:
        self._connections[connection_id] = Connection(identity)
        self._metrics.realtime_connections.inc()

    def disconnect(self, connection_id: str) -> None:
        connection = self._connections.pop(connection_id, None)
        if connection is None:
            return
        self._metrics.realtime_connections.dec()
        for topic in connection.subscriptions:
            self._leave(topic, connection_id)

    def handle(self, connection_id: str, frame: protocol.Frame, now: int, answer: Answer) -> None:
        """Does what the frame says and answers once, or raises ApiError. What is replayed follows the answer."""
        self._handlers[type(frame)](connection_id, frame, now, answer)

    def counts(self) -> dict[str, int]:
        subscriptions = sum(len(subscribers) for subscribers in self._topics.values())
        return {"connections": len(self._connections), "subscriptions": subscriptions, "topics": len(self._topics)}

    def deliver(self, message: Message) -> None:
        """A message was appended: the log's listener."""
        live, behind = [], []
        for connection_id, subscription in self._topics.get(message.topic, {}).items():
            if subscription.is_next(message) and not subscription.is_catching_up:
                subscription.sent = message.seq
                live.append(connection_id)
            elif not subscription.has_had(message):
                behind.append((connection_id, subscription))
        if live:
            self.transport.send_many(live, protocol.event_frame(message))
            self._metrics.realtime_delivered_total.inc(len(live))
        for connection_id, subscription in behind:
            self._catch_up(connection_id, subscription)

    def _subscribe(self, connection_id: str, frame: protocol.Subscribe, _now: int, answer: Answer) -> None:
        connection = self._connections[connection_id]
        if not may_subscribe(connection.identity, frame.topic):
            raise ApiError("forbidden", "The token does not allow subscribing to this topic.")
        head = self._log.head(frame.topic)
        subscription = connection.subscriptions.get(frame.topic)
        if subscription is None:
            if len(connection.subscriptions) >= self._max_topics:
                raise ApiError("limit_exceeded", f"A connection may subscribe to at most {self._max_topics} topics.")
            subscription = Subscription(frame.topic, head.epoch, head.seq, head.seq)
            connection.subscriptions[frame.topic] = subscription
            self._topics.setdefault(frame.topic, {})[connection_id] = subscription
            self._metrics.realtime_subscriptions.inc()
        subscription.ack, subscription.mode, subscription.batch = frame.ack, frame.mode, frame.batch
        if frame.since is None:
            answer(protocol.ack_frame(frame.id, topic=frame.topic, seq=subscription.sent, epoch=subscription.epoch))
        else:
            self._resume(connection_id, subscription, frame, head, answer)

    def _resume(self, connection_id: str, subscription: Subscription, frame: protocol.Subscribe, head: Head, answer: Answer) -> None:
        begin = resume_from(frame.since, frame.epoch, head)
        subscription.move_to(head.epoch, begin.seq)
        facts = {"topic": frame.topic, "seq": begin.seq, "epoch": head.epoch, "head": head.seq, "recovered": begin.reason is None}
        if begin.reason:
            facts["reason"] = begin.reason
        answer(protocol.ack_frame(frame.id, **facts))
        if begin.reason:
            self._tell(connection_id, ApiError(begin.reason), id=frame.id, topic=frame.topic, span=begin.span)
        self._catch_up(connection_id, subscription)

    def _unsubscribe(self, connection_id: str, frame: protocol.Unsubscribe, _now: int, answer: Answer) -> None:
        subscription = self._connections[connection_id].subscriptions.pop(frame.topic, None)
        if subscription is None:
            raise ApiError("unknown_topic")
        self._leave(frame.topic, connection_id)
        answer(protocol.ack_frame(frame.id, topic=frame.topic, seq=subscription.sent, epoch=subscription.epoch))

    def _publish(self, connection_id: str, frame: protocol.Publish, now: int, answer: Answer) -> None:
        identity = self._connections[connection_id].identity
        if not may_publish(identity, frame.topic):
            raise ApiError("forbidden", "The token does not allow publishing to this topic.")
        answer(protocol.ack_frame(frame.id, **self.publish(frame.topic, frame.payload, now, frame.id, identity.user_id)))

    def publish(self, topic: str, payload: bytes, now: int, id: str | None, user: str | None) -> dict[str, Any]:
        """`{topic, seq, epoch, duplicate?}`, after the message is in the log. Permission is the caller's business."""
        appended = self._log.append(topic, payload, now, id, user)
        facts: dict[str, Any] = {"topic": topic, "seq": appended.seq, "epoch": appended.epoch}
        if appended.duplicate:
            return {**facts, "duplicate": True}
        self._metrics.realtime_published_total.inc()
        return facts

    def _ack(self, connection_id: str, frame: protocol.Ack, _now: int, answer: Answer) -> None:
        """All or nothing: one wrong position and none of the frame's counts."""
        subscriptions = self._connections[connection_id].subscriptions
        for topic, seq in frame.positions.items():
            if topic not in subscriptions:
                raise ApiError("bad_ack", f"There is no subscription to {topic}.")
            if seq > subscriptions[topic].sent:
                raise ApiError("bad_ack", f"Nothing after {subscriptions[topic].sent} was sent on {topic}.")
        for topic, seq in frame.positions.items():
            subscriptions[topic].acknowledge(seq)
        answer(protocol.ack_frame())

    def _ack_one(self, connection_id: str, frame: protocol.AckOne, _now: int, answer: Answer) -> None:
        for subscription in self._connections[connection_id].subscriptions.values():
            for message in self._log.read(subscription.topic, subscription.acked, ACKED_APART).messages:
                if message.id == frame.id and message.seq <= subscription.sent:
                    subscription.acknowledge_one(message.seq)
                    answer(protocol.ack_frame(frame.id, topic=subscription.topic, seq=message.seq, epoch=message.epoch))
                    return
        raise ApiError("bad_ack", "No message with this id waits to be acknowledged.")

    def _catch_up(self, connection_id: str, subscription: Subscription) -> None:
        """Send what the log has after the cursor, until nothing is left. Only one at a time does it for a subscription:
        what is announced meanwhile is in the log before the last page is read."""
        if subscription.is_catching_up:
            return
        subscription.is_catching_up = True
        try:
            while self._is_subscribed(connection_id, subscription) and self._send_page(connection_id, subscription):
                pass
        finally:
            subscription.is_catching_up = False

    def _send_page(self, connection_id: str, subscription: Subscription) -> bool:
        """False when there is nothing more. Where messages are gone, or the epoch is another one, it is said first."""
        page = self._log.read(subscription.topic, subscription.sent, PAGE)
        if page.epoch != subscription.epoch:
            if subscription.sent:
                self._tell(connection_id, ApiError("epoch_changed"), topic=subscription.topic)
            subscription.move_to(page.epoch, 0)
            return True
        if page.gone:
            self._tell(connection_id, ApiError("history_gap"), topic=subscription.topic, span=page.gone)
            subscription.move_to(page.epoch, page.gone[1])
        for message in page.messages:
            if not subscription.is_next(message):
                return True  # the client has moved its cursor: what was read is not what it wants
            subscription.sent = message.seq
            self.transport.send(connection_id, protocol.event_frame(message))
            self._metrics.realtime_delivered_total.inc()
        return bool(page.messages)

    def _is_subscribed(self, connection_id: str, subscription: Subscription) -> bool:
        return self._topics.get(subscription.topic, {}).get(connection_id) is subscription

    def _tell(self, connection_id: str, error: ApiError, **places) -> None:
        self._metrics.realtime_errors_total.labels(error.code).inc()
        self.transport.send(connection_id, protocol.error_frame(error, **places))

    def _leave(self, topic: str, connection_id: str) -> None:
        subscribers = self._topics.get(topic, {})
        if subscribers.pop(connection_id, None) is not None:
            self._metrics.realtime_subscriptions.dec()
        if not subscribers:
            self._topics.pop(topic, None)
