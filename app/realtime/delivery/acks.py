"""What waits to be acknowledged. Nothing for RT_ACK_TIMEOUT_MS: all of it once more, and after RT_ACK_MAX_RETRIES times
the client is told `delivery_failed` and is served on without acknowledgements."""

from random import Random

from app.errors import ApiError
from app.realtime.delivery.outgoing import Outgoing
from app.realtime.delivery.slow_consumers import SlowConsumers
from app.realtime.log import Message
from app.realtime.options import Options
from app.realtime.subscription import Subscription
from app.realtime.timers import Timers

LONGEST_BACKOFF_MS = 60_000
JITTER = 0.25
RECHECK_MS = 1000


class Acks:
    def __init__(self, slow: SlowConsumers, out: Outgoing, metrics, options: Options, timers: Timers, random: Random):
        self._slow = slow
        self._out = out
        self._metrics = metrics
        self._options = options
        self._timers = timers
        self._random = random

    def note_sent(self, subscription: Subscription, messages: list[Message], now: int) -> None:
        waits_already = bool(subscription.unacked)
        for message in messages:
            subscription.note_sent(message)
        if subscription.unacked and not waits_already:
            self._set_deadline(subscription, now)

    def progressed(self, subscription: Subscription, now: int) -> None:
        """Something was acknowledged: the time for the rest begins anew."""
        if subscription.unacked:
            self._set_deadline(subscription, now)
        else:
            self.forget(subscription)

    def forget(self, subscription: Subscription) -> None:
        self._timers.cancel(_key(subscription))

    def on_timeout(self, subscription: Subscription, now: int) -> bool:
        """Nothing was acknowledged for all that time; True where there is something to send. What has not even left the
        transport is not late: that is for the watch over those who read slowly."""
        if not subscription.unacked:
            return False
        if subscription.link.queued_bytes or subscription.is_waiting:
            self._slow.watch(subscription, now)
            self._timers.set(_key(subscription), now + min(RECHECK_MS, self._options.ack_timeout_ms))
            return False
        if subscription.resends >= self._options.ack_max_retries:
            self._metrics.realtime_delivery_failed_total.inc()
            span = subscription.give_up()
            self._out.tell(subscription.connection_id, ApiError("delivery_failed"), topic=subscription.topic, span=span)
        else:
            self._metrics.realtime_resends_total.inc()
            subscription.rewind()
            self._set_deadline(subscription, now)
        return True

    def _set_deadline(self, subscription: Subscription, now: int) -> None:
        self._timers.set(_key(subscription), now + self._backoff(subscription))

    def _backoff(self, subscription: Subscription) -> int:
        """Twice as long each time, and never the same for two clients, so that those who lost touch together do not come back so."""
        timeout = self._options.ack_timeout_ms
        doubled = timeout * 2 ** min(subscription.resends, 20)
        return int(max(timeout, min(doubled, LONGEST_BACKOFF_MS)) * (1 + JITTER * self._random.random()))


def _key(subscription: Subscription) -> tuple[str, str, str]:
    return ("ack", subscription.connection_id, subscription.topic)
