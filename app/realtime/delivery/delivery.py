"""Decides, when something happens, who is sent to now.

A subscription whose cursor is at the head, whose window is open and whose transport has room is *live*: a message that is
announced is handed over once for all of them. Any other is left alone, and costs nothing but its cursor, until an
acknowledgement, room in its transport or a deadline lets the pump go on from where it stands.
"""

from collections.abc import Iterable
from random import Random

from app.realtime.archive import Archive, NoArchive
from app.realtime.delivery.acks import Acks
from app.realtime.delivery.audience import Audience, Audiences
from app.realtime.delivery.merging import Merging
from app.realtime.delivery.newest import Newest
from app.realtime.delivery.outgoing import Outgoing
from app.realtime.delivery.pump import Pump
from app.realtime.delivery.replay import Replay
from app.realtime.delivery.slow_consumers import SlowConsumers
from app.realtime.log import Message, TopicLog
from app.realtime.options import Options
from app.realtime.subscription import Subscription
from app.realtime.timers import Timers


class Delivery:
    """`deadlines` are what to call when a timer of that name is due, with the rest of its key and `now`."""

    def __init__(self, log: TopicLog, metrics, options: Options, timers: Timers, random: Random, archive: Archive | None = None):
        self._options = options
        self._audiences = Audiences()
        self.out = Outgoing(metrics)
        self._slow = SlowConsumers(self.out, metrics, options, timers)
        self._acks = Acks(self._slow, self.out, metrics, options, timers, random)
        newest = Newest(self._acks, self._slow, self.out)
        replay = Replay(archive or NoArchive(), newest, self._acks, self._slow, self.out, options)
        self._pump = Pump(log, self._audiences, replay, newest, self._acks, self._slow, self.out, metrics, options, timers)
        self._merging = Merging(log, self._acks, self._slow, self.out, options, timers)
        self.deadlines = {"ack": self._on_ack_timeout, "merge": self._on_merge, "stall": self._slow.on_stall}

    # Who listens

    def join(self, subscription: Subscription) -> None:
        self._audiences.join(subscription)

    def leave(self, subscription: Subscription) -> None:
        subscription.is_closed = True
        self._audiences.leave(subscription)
        self._slow.leave(subscription)
        self._acks.forget(subscription)

    def forget(self, connection_id: str) -> None:
        self._slow.forget(connection_id)

    def counts(self) -> dict[str, int]:
        return {**self._audiences.counts(), "stalled": len(self._slow)}

    # What makes messages move

    def announce(self, message: Message, now: int) -> None:
        """A message is in the log."""
        audience = self._audiences.get(message.topic)
        if audience is None:
            return
        ready, behind = [], []
        for subscription in audience.live.values():
            if subscription.is_next(message) or subscription.begins_with(message):
                if subscription.window_left(self._options) > 0 and self._slow.has_room(subscription):
                    self._acks.note_sent(subscription, [message], now)
                    ready.append(subscription)
                else:
                    behind.append(subscription)
            elif not subscription.has_had(message):
                behind.append(subscription)
        self.out.send_many(ready, [message])
        self._fall_behind(audience, behind, now)
        if audience.merging and self._merging.is_due(message.topic, audience, now):
            self._on_merge(message.topic, now)

    def go_on(self, subscription: Subscription, now: int) -> None:
        """From where it stands, which may be a new place."""
        self._pump.run(subscription, now)

    def acknowledged(self, subscription: Subscription, now: int) -> None:
        """What the window held back may go."""
        self._acks.progressed(subscription, now)
        if not self._audiences.is_at_head(subscription):
            self._pump.run(subscription, now)

    def writable(self, connection_id: str, now: int) -> None:
        """The transport has room again."""
        for subscription in self._slow.freed(connection_id):
            self._pump.run(subscription, now)

    def end_slow_consumer(self, connection_id: str) -> None:
        self._slow.end_slow_consumer(connection_id)

    def tick(self, now: int) -> bool:
        """A turn for those who wait for one; True where somebody waits for the next already."""
        self._pump.tick(now)
        return self._pump.has_work

    def clock_went_back(self, by: int) -> None:
        """Nobody waits for company until the old time comes again."""
        for audience in self._audiences.values():
            audience.merge_after -= by

    def _on_ack_timeout(self, connection_id: str, topic: str, now: int) -> None:
        subscription = self._audiences.find(connection_id, topic)
        if subscription is not None and self._acks.on_timeout(subscription, now):
            self._pump.run(subscription, now)

    def _on_merge(self, topic: str, now: int) -> None:
        audience = self._audiences.get(topic)
        if audience is not None:
            self._fall_behind(audience, self._merging.send(topic, audience, now), now)

    def _fall_behind(self, audience: Audience, subscriptions: Iterable[Subscription], now: int) -> None:
        for subscription in subscriptions:
            audience.take_from_head(subscription)
            self._pump.run(subscription, now)
