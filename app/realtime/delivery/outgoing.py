"""Frames on their way to the transport, counted. The only place of delivery that knows it and how frames look."""

from app.errors import ApiError
from app.realtime import protocol
from app.realtime.log import Message
from app.realtime.subscription import Subscription
from app.realtime.transport import NoTransport, Transport
from app.realtime.transport.packets import Batch, event_frame, events_frame

CANNOT_BE_READ = "Some of the messages asked for cannot be read right now; ask for them again later."


class Outgoing:
    def __init__(self, metrics):
        self.transport: Transport = NoTransport()
        self._metrics = metrics

    def send(self, subscription: Subscription, messages: list[Message], skipped: tuple[int, int] | None = None) -> None:
        subscription.link.write(_batch(messages, skipped))
        self._metrics.realtime_delivered_total.inc(len(messages))

    def send_many(self, subscriptions: list[Subscription], messages: list[Message]) -> None:
        """The same packet for all of them, encoded once."""
        if subscriptions:
            batch = _batch(messages)
            for subscription in subscriptions:
                subscription.link.write(batch)
            self._metrics.realtime_delivered_total.inc(len(messages) * len(subscriptions))

    def tell(self, connection_id: str, error: ApiError, **places) -> None:
        self._metrics.realtime_errors_total.labels(error.code).inc()
        self.transport.send(connection_id, protocol.error_frame(error, **places))

    def tell_gap(self, subscription: Subscription, span: tuple[int, int], *, may_come_back: bool = False) -> None:
        """Nobody has these any more, or those who may have them do not answer; the subscription goes on behind them."""
        error = ApiError("history_gap", CANNOT_BE_READ, retryable=True) if may_come_back else ApiError("history_gap")
        self.tell(subscription.connection_id, error, topic=subscription.topic, span=span)
        subscription.skip_to(span[1])


def _batch(messages: list[Message], skipped: tuple[int, int] | None = None) -> Batch:
    return Batch([event_frame(messages[0], skipped) if len(messages) == 1 else events_frame(messages)])
