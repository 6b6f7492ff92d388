"""Subscriptions begin, go to where a client left off, and end."""

from app.errors import ApiError
from app.realtime import protocol
from app.realtime.archive import Archive
from app.realtime.connection import Answer, Connection
from app.realtime.delivery import Delivery
from app.realtime.log import Head, TopicLog
from app.realtime.options import Options
from app.realtime.permissions import may_subscribe
from app.realtime.subscription import Resumption, Subscription, resume_from


class Subscribing:
    def __init__(self, log: TopicLog, archive: Archive, delivery: Delivery, metrics, options: Options):
        self._log = log
        self._archive = archive
        self._delivery = delivery
        self._metrics = metrics
        self._options = options

    def subscribe(self, connection: Connection, frame: protocol.Subscribe, now: int, answer: Answer) -> None:
        if not may_subscribe(connection.valid_identity, frame.topic):
            raise ApiError("forbidden", "The token does not allow subscribing to this topic.")
        head = self._log.head(frame.topic)
        subscription = connection.subscriptions.get(frame.topic) or self._begin(connection, frame.topic, head)
        self._set_manner(subscription, frame)
        if frame.since is None:
            self._answer_place(subscription, frame, answer)
        else:
            self._resume(subscription, frame, head, answer)
        self._delivery.go_on(subscription, now)

    def unsubscribe(self, connection: Connection, frame: protocol.Unsubscribe, _now: int, answer: Answer) -> None:
        subscription = connection.subscriptions.get(frame.topic)
        if subscription is None:
            raise ApiError("unknown_topic")
        self.end(connection, subscription)
        self._answer_place(subscription, frame, answer)

    def end(self, connection: Connection, subscription: Subscription) -> None:
        del connection.subscriptions[subscription.topic]
        self._delivery.leave(subscription)
        self._metrics.realtime_subscriptions.dec()

    def end_what_is_forbidden(self, connection: Connection) -> None:
        """After its identity has changed."""
        for topic, subscription in list(connection.subscriptions.items()):
            if not may_subscribe(connection.identity, topic):
                self.end(connection, subscription)
                self._delivery.out.tell(connection.id, ApiError("forbidden", "The new token does not allow this topic."), topic=topic)

    def _begin(self, connection: Connection, topic: str, head: Head) -> Subscription:
        if len(connection.subscriptions) >= self._options.max_topics:
            raise ApiError("limit_exceeded", f"A connection may subscribe to at most {self._options.max_topics} topics.")
        subscription = connection.subscriptions[topic] = Subscription(connection.id, topic, head.epoch, head.seq, connection.link)
        self._delivery.join(subscription)
        self._metrics.realtime_subscriptions.inc()
        return subscription

    def _set_manner(self, subscription: Subscription, frame: protocol.Subscribe) -> None:
        subscription.mode, subscription.batch = frame.mode, frame.batch
        subscription.ack = self._options.ack_default if frame.ack is None else frame.ack
        if not subscription.ack:
            subscription.forget_unacked()
            subscription.sent = subscription.delivered

    def _resume(self, subscription: Subscription, frame: protocol.Subscribe, head: Head, answer: Answer) -> None:
        """The cursor goes to where the client says, wherever it was."""
        begin = resume_from(frame.since, frame.epoch, head)
        if begin.reason == "history_gap" and self._archive.covers(frame.topic, head.epoch, frame.since):
            self._resume_from_archive(subscription, frame, head, answer)
            return
        subscription.move_to(head.epoch, begin.seq)
        self._answer_resumed(frame, head, begin, answer)
        if begin.reason:
            epoch = head.epoch if begin.reason == "epoch_changed" else None
            places = {"id": frame.id, "topic": frame.topic, "span": begin.span, "epoch": epoch}
            self._delivery.out.tell(subscription.connection_id, ApiError(begin.reason), **places)

    def _resume_from_archive(self, subscription: Subscription, frame: protocol.Subscribe, head: Head, answer: Answer) -> None:
        """It is answered when the archive has looked whether all is there, and nothing is sent before. What is not there is told
        where it is missing. For who wants the latest, all is the newest. Who has moved on meanwhile is told where to."""
        subscription.move_to(head.epoch, frame.since)
        after = max(frame.since, head.seq - 1) if frame.mode == "latest" else frame.since
        if after >= head.first - 1:
            self._answer_resumed(frame, head, Resumption(frame.since), answer)
            return
        subscription.is_waiting = True
        moves = subscription.moves

        def surveyed(has_all: bool, now: int) -> None:
            if subscription.is_closed:
                return
            if subscription.moves != moves:
                self._answer_place(subscription, frame, answer)
                return
            self._answer_resumed(frame, head, Resumption(frame.since, None if has_all else "history_gap"), answer)
            subscription.is_waiting = False
            self._delivery.go_on(subscription, now)

        self._archive.check_complete(frame.topic, head.epoch, after, head.first - 1, surveyed)

    def _answer_place(self, subscription: Subscription, frame: protocol.Subscribe | protocol.Unsubscribe, answer: Answer) -> None:
        answer(protocol.ack_frame(frame.id, topic=frame.topic, seq=subscription.delivered, epoch=subscription.epoch))

    def _answer_resumed(self, frame: protocol.Subscribe, head: Head, begin: Resumption, answer: Answer) -> None:
        self._metrics.realtime_replays_total.labels(begin.reason or "yes").inc()
        place = {"topic": frame.topic, "seq": begin.seq, "epoch": head.epoch, "head": head.seq}
        answer(protocol.ack_frame(frame.id, **place, recovered=begin.reason is None, reason=begin.reason))
