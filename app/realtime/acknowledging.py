"""What a client says has arrived: positions of topics, or one message by its id."""

from collections.abc import Callable

from app.errors import ApiError
from app.realtime import protocol
from app.realtime.connection import Answer, Connection
from app.realtime.delivery import Delivery
from app.realtime.log import Message, TopicLog
from app.realtime.subscription import Subscription


class Acknowledging:
    """`admit` takes a token of the connection's rate."""

    def __init__(self, log: TopicLog, delivery: Delivery, admit: Callable[[str, int], None]):
        self._log = log
        self._delivery = delivery
        self._admit = admit

    def ack(self, connection: Connection, frame: protocol.Ack, now: int, answer: Answer) -> None:
        """All or nothing: one wrong position and none of the frame's counts. What is no news costs a token, as any frame."""
        subscriptions = connection.subscriptions
        for topic, seq in frame.positions.items():
            if topic not in subscriptions:
                raise ApiError("unknown_topic", f"There is no subscription to {topic}.")
            if seq > subscriptions[topic].delivered:
                raise ApiError("bad_ack", f"Nothing after {subscriptions[topic].delivered} was sent on {topic}.")
        moved = [subscriptions[topic] for topic, seq in frame.positions.items() if subscriptions[topic].acknowledge(seq)]
        if not moved:
            self._admit(connection.id, now)
        answer(protocol.ack_frame())
        for subscription in moved:
            self._delivery.acknowledged(subscription, now)

    def ack_one(self, connection: Connection, frame: protocol.AckOne, now: int, answer: Answer) -> None:
        for subscription in connection.subscriptions.values():
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
