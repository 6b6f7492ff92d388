"""For those who asked for the latest only: the newest message, with the span of what they were spared."""

from app.realtime.delivery.acks import Acks
from app.realtime.delivery.outgoing import Outgoing
from app.realtime.delivery.slow_consumers import SlowConsumers
from app.realtime.log import Message
from app.realtime.subscription import Subscription


class Newest:
    def __init__(self, acks: Acks, slow: SlowConsumers, out: Outgoing):
        self._acks = acks
        self._slow = slow
        self._out = out

    def send(self, subscription: Subscription, message: Message, now: int) -> bool:
        """False where the transport has no room."""
        if not self._slow.has_room(subscription):
            self._slow.wait_for_room(subscription, now)
            return False
        skipped = (subscription.delivered + 1, message.seq - 1) if message.seq > subscription.delivered + 1 else None
        subscription.skip_to(message.seq - 1)
        self._acks.note_sent(subscription, [message], now)
        self._out.send(subscription, [message], skipped)
        return True
