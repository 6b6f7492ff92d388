"""Who is there, and what happens when something does: a client says something, a message is announced, time passes.

Pure of sockets and of the clock. What a client says goes by a table to `subscribing`, `publishing` and `acknowledging`;
what it is sent is decided by `delivery`.
"""

from random import Random

from app.identity.identity import Identity
from app.realtime import protocol
from app.realtime.acknowledging import Acknowledging
from app.realtime.allowance import Allowance
from app.realtime.archive import Archive, NoArchive
from app.realtime.buckets import MemoryBuckets, Rate
from app.realtime.connection import Answer, Connection
from app.realtime.delivery import Delivery
from app.realtime.log import Message, TopicLog
from app.realtime.members import Members
from app.realtime.options import Options
from app.realtime.publishing import Publishing
from app.realtime.subscribing import Subscribing
from app.realtime.timers import Timers
from app.realtime.transport import Transport

MAX_STEP_BACK_MS = 1000  # of the clock, as it is set by NTP now and then; some deadline is then so much late


class Hub:
    def __init__(self, log: TopicLog, metrics, options: Options, random: Random | None = None, archive: Archive | None = None):
        self.timers = Timers()
        self._ticked_at = 0
        self.options = options
        self._metrics = metrics
        archive = archive or NoArchive()
        self._delivery = Delivery(log, metrics, options, self.timers, random or Random(), archive)
        self.members = Members(options, self.timers, self._delivery.out.tell, lambda *which: self.transport.close(*which))
        self._subscribing = Subscribing(log, archive, self._delivery, metrics, options)
        self._publishing = Publishing(log, archive, MemoryBuckets(Rate.of(options.topic_rate)), metrics)
        acknowledging = Acknowledging(log, self._delivery, self.members.admit)
        self._handlers = {
            protocol.Subscribe: self._subscribing.subscribe,
            protocol.Unsubscribe: self._subscribing.unsubscribe,
            protocol.Publish: self._publish,
            protocol.Ack: acknowledging.ack,
            protocol.AckOne: acknowledging.ack_one,
        }
        self._deadlines = self._delivery.deadlines | self.members.deadlines
        self.publish_as = self._publishing.publish_as
        self.publish = self._publishing.publish

    @property
    def transport(self) -> Transport:
        return self._delivery.out.transport

    @transport.setter
    def transport(self, transport: Transport) -> None:
        self._delivery.out.transport = transport

    def connect(self, connection_id: str, identity: Identity, allowance: Allowance | None = None) -> None:
        connection = self.members.join(connection_id, identity, allowance)
        connection.link = self.transport.link(connection_id)
        self._metrics.realtime_connections.inc()

    def disconnect(self, connection_id: str) -> None:
        connection = self.members.leave(connection_id)
        if connection is None:
            return
        self._metrics.realtime_connections.dec()
        for subscription in list(connection.subscriptions.values()):
            self._subscribing.end(connection, subscription)
        self._delivery.forget(connection_id)

    def handle(self, connection_id: str, frame: protocol.Frame, now: int, answer: Answer) -> None:
        """Does what the frame says and answers once, or raises ApiError. What is replayed follows the answer."""
        self._handlers[type(frame)](self.members[connection_id], frame, now, answer)

    def announce(self, message: Message, now: int) -> None:
        """A message was appended to the log."""
        self._delivery.announce(message, now)

    def blocked(self, connection_id: str, now: int) -> None:
        """The link of this connection takes nothing for now."""

    def writable(self, connection_id: str, now: int) -> None:
        """The link of this connection has room again."""
        self._delivery.writable(connection_id, now)

    def overflowed(self, connection_id: str) -> None:
        """More was queued for this connection than it may hold back, by answers and events that no window bounds."""
        if connection_id in self.members:
            self._delivery.end_slow_consumer(connection_id)

    def tick(self, now: int) -> int | None:
        """Does what is due. When to call again: now, at a time, or when `timers.on_earlier` is called; in any case soon enough to
        notice a clock that was set back, or everything that waits would wait for as long as that again."""
        if now < self._ticked_at - MAX_STEP_BACK_MS:
            self._clock_went_back(self._ticked_at - now)
        self._ticked_at = now
        for kind, *names in self.timers.due(now):
            self._deadlines[kind](*names, now)
        return now if self._delivery.tick(now) else self.timers.next

    def counts(self) -> dict[str, int]:
        subscriptions = sum(len(connection.subscriptions) for connection in self.members)
        return {"connections": len(self.members), "subscriptions": subscriptions, **self._delivery.counts()}

    def _clock_went_back(self, by: int) -> None:
        """What was to last so long still does; a token still ends at its time of day."""
        self.timers.bring_forward(by, lambda key: key[0] != "token")
        self._delivery.clock_went_back(by)

    def _publish(self, connection: Connection, frame: protocol.Publish, now: int, answer: Answer) -> None:
        (facts,) = self.publish_as(connection.valid_identity, [frame], now)
        answer(protocol.ack_frame(frame.id, **facts))

    def reauthenticate(self, connection_id: str, identity: Identity, id: str | None, answer: Answer) -> Identity:
        """A fresh token of the same user. Subscriptions that it does not permit end, with `forbidden`. Returns the old identity."""
        before = self.members.renew(connection_id, identity)
        answer(protocol.ack_frame(id))
        self._subscribing.end_what_is_forbidden(self.members[connection_id])
        return before
