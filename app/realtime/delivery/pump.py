"""A turn for a subscription that is behind: from where its cursor stands to the head of the log, a page a turn.

It stops, and costs nothing, where there is nothing to do until something happens: an acknowledgement or its deadline,
room in the transport, an answer of the archive, or at the head.
"""

from collections import deque

from app.errors import ApiError
from app.realtime.delivery.acks import Acks
from app.realtime.delivery.audience import Audiences
from app.realtime.delivery.newest import Newest
from app.realtime.delivery.outgoing import Outgoing
from app.realtime.delivery.pages import PAGE, chunks
from app.realtime.delivery.replay import Replay
from app.realtime.delivery.slow_consumers import SlowConsumers
from app.realtime.log import Message, TopicLog
from app.realtime.options import Options
from app.realtime.subscription import Subscription
from app.realtime.timers import Timers


class Pump:
    def __init__(
        self,
        log: TopicLog,
        audiences: Audiences,
        replay: Replay,
        newest: Newest,
        acks: Acks,
        slow: SlowConsumers,
        out: Outgoing,
        metrics,
        options: Options,
        timers: Timers,
    ):
        self._log = log
        self._audiences = audiences
        self._replay = replay
        self._newest = newest
        self._acks = acks
        self._slow = slow
        self._out = out
        self._metrics = metrics
        self._options = options
        self._timers = timers
        self._ready: deque[Subscription] = deque()  # those with more to send, who wait for their next turn

    def run(self, subscription: Subscription, now: int) -> None:
        """What is announced meanwhile is in the log before its last page is read."""
        if subscription.is_pumping or subscription.is_closed:
            return
        self._audiences[subscription.topic].take_from_head(subscription)
        if subscription.is_waiting:
            return
        subscription.is_pumping = True
        try:
            sent = 0
            while (count := self._send_some(subscription, now)) is not None:
                sent += count
                if sent >= PAGE:
                    self._ready.append(subscription)
                    self._timers.on_earlier()
                    return
        finally:
            subscription.is_pumping = False

    def tick(self, now: int) -> None:
        """One more turn for everybody who waits for one."""
        for _ in range(len(self._ready)):
            self.run(self._ready.popleft(), now)

    @property
    def has_work(self) -> bool:
        return bool(self._ready)

    # One step: how many messages it sent, or None where there is nothing to do until something happens

    def _send_some(self, subscription: Subscription, now: int) -> int | None:
        if subscription.is_closed or subscription.is_waiting:
            return None
        left = min(PAGE, subscription.window_left(self._options))
        if left <= 0:
            self._metrics.realtime_window_stalls_total.inc()
            return None  # an acknowledgement or the deadline goes on from here
        page = self._log.read(subscription.topic, subscription.sent, left)
        if page.epoch != subscription.epoch:
            return self._begin_epoch(subscription, page.epoch)
        if page.gone and (subscription.mode != "latest" or not page.messages):
            return self._replay.pass_over(subscription, page.gone, self.run)
        if not page.messages:
            self._audiences[subscription.topic].put_at_head(subscription)
            return None
        if subscription.mode == "latest":
            newest = self._log.head(subscription.topic).seq
            return 1 if self._newest.send(subscription, self._log.read(subscription.topic, newest - 1, 1).messages[0], now) else None
        return self._send_page(subscription, page.messages, now)

    def _begin_epoch(self, subscription: Subscription, epoch: str) -> int:
        self._out.tell(subscription.connection_id, ApiError("epoch_changed"), topic=subscription.topic, epoch=epoch)
        self._acks.forget(subscription)
        subscription.move_to(epoch, 0)
        return 0

    def _send_page(self, subscription: Subscription, messages: list[Message], now: int) -> int | None:
        sent = 0
        for chunk in chunks(messages, subscription.batch):
            if not subscription.is_next(chunk[0]):
                return sent  # the client has moved its cursor: what was read is not what it wants
            if subscription.is_resending:
                chunk = _still_wanted(subscription, chunk)
                if not chunk:
                    continue
            elif subscription.window_left(self._options) <= 0:
                return sent
            if not self._slow.has_room(subscription):
                return self._slow.wait_for_room(subscription, now)
            self._acks.note_sent(subscription, chunk, now)
            self._out.send(subscription, chunk)
            sent += len(chunk)
        return sent


def _still_wanted(subscription: Subscription, chunk: list[Message]) -> list[Message]:
    """Without what was acknowledged apart. A chunk that reaches beyond what is sent again ends there."""
    again = [message for message in chunk if message.seq <= subscription.delivered]
    wanted = [message for message in again if message.seq in subscription.unacked]
    if not wanted:
        subscription.sent = again[-1].seq
    return wanted
