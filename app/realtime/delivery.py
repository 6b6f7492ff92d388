"""Feeds subscriptions from the log: at once while they keep up, at their own pace where they do not.

A subscription whose cursor is at the head, whose window is open and whose transport has room is *live*: a message that is
announced is handed over once for all of them. Any other is left alone, and costs nothing but its cursor, until an
acknowledgement, room in its transport or a deadline lets `pump` go on from where it stands. No payload is ever kept for
anybody. What happens where something is full, late or gone stands in the methods from `_wait_for_room` on.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from app.errors import ApiError
from app.realtime import protocol
from app.realtime.log import Archive, Message, NoArchive, Page, TopicLog
from app.realtime.rules import Rules
from app.realtime.subscription import MESSAGE_BYTES, Subscription
from app.realtime.timers import Timers
from app.realtime.transport import NoTransport, Transport

PAGE = 64  # messages per read, per turn of a subscription that catches up, and per merged frame
MERGED_BYTES = 65_536
LINGER_MS = 20  # how long a message for merging waits for others, where one left just before it
LONGEST_BACKOFF_MS = 60_000
JITTER = 0.25
RECHECK_MS = 1000


@dataclass(slots=True)
class Audience:
    """Who listens to one topic, by connection id: `live` and `merging` are at the head, the rest of `all` is behind."""

    all: dict[str, Subscription] = field(default_factory=dict)
    live: dict[str, Subscription] = field(default_factory=dict)
    merging: dict[str, Subscription] = field(default_factory=dict)
    merge_after: int = 0

    def put_at_head(self, subscription: Subscription) -> None:
        group = self.merging if subscription.batch and subscription.mode == "all" else self.live
        group[subscription.connection_id] = subscription

    def take_from_head(self, subscription: Subscription) -> None:
        for group in (self.live, self.merging):
            if group.get(subscription.connection_id) is subscription:
                del group[subscription.connection_id]


class Delivery:
    def __init__(self, log: TopicLog, metrics, rules: Rules, timers: Timers, random: Random, archive: Archive | None = None):
        self.transport: Transport = NoTransport()
        self.timers = timers
        self._archive = archive or NoArchive()
        self._log = log
        self._metrics = metrics
        self._rules = rules
        self._random = random
        self._audiences: dict[str, Audience] = {}
        self._ready: deque[Subscription] = deque()  # those with more to send, who wait for their next turn
        self._full: dict[str, dict[str, Subscription]] = {}  # by connection: those who wait for room in its transport
        self._progress: dict[str, int] = {}

    # Who listens

    def join(self, subscription: Subscription) -> None:
        self._audiences.setdefault(subscription.topic, Audience()).all[subscription.connection_id] = subscription

    def leave(self, subscription: Subscription) -> None:
        subscription.is_closed = True
        audience = self._audiences[subscription.topic]
        audience.take_from_head(subscription)
        del audience.all[subscription.connection_id]
        if not audience.all:
            del self._audiences[subscription.topic]
        self._full.get(subscription.connection_id, {}).pop(subscription.topic, None)
        self.timers.cancel(_ack_key(subscription))

    def forget(self, connection_id: str) -> None:
        self._full.pop(connection_id, None)
        self._progress.pop(connection_id, None)
        self.timers.cancel(("stall", connection_id))

    def counts(self) -> dict[str, int]:
        everybody = sum(len(audience.all) for audience in self._audiences.values())
        at_head = sum(len(audience.live) + len(audience.merging) for audience in self._audiences.values())
        return {"topics": len(self._audiences), "behind": everybody - at_head, "stalled": len(self._full)}

    # What makes messages move

    def announce(self, message: Message, now: int) -> None:
        """A message is in the log."""
        audience = self._audiences.get(message.topic)
        if audience is None:
            return
        ready, behind = [], []
        for connection_id, subscription in audience.live.items():
            if subscription.is_next(message) or subscription.begins_with(message):
                if subscription.window_left(self._rules) > 0 and self._has_room(connection_id, message):
                    self._note_sent(subscription, [message], now)
                    ready.append(connection_id)
                else:
                    behind.append(subscription)
            elif not subscription.has_had(message):
                behind.append(subscription)
        if ready:
            self.transport.send_many(ready, protocol.event_frame(message))
            self._metrics.realtime_delivered_total.inc(len(ready))
        self._fall_behind(audience, behind, now)
        if audience.merging:
            if now >= audience.merge_after:
                self.merge(message.topic, now)
            elif (key := ("merge", message.topic)) not in self.timers:
                self.timers.set(key, audience.merge_after)

    def pump(self, subscription: Subscription, now: int) -> None:
        """A turn for a subscription that is behind. What is announced meanwhile is in the log before its last page is read."""
        if subscription.is_pumping or subscription.is_waiting or subscription.is_closed:
            return
        self._audiences[subscription.topic].take_from_head(subscription)
        subscription.is_pumping = True
        try:
            sent = 0
            while (count := self._send_some(subscription, now)) is not None:
                sent += count
                if sent >= PAGE:
                    self._ready.append(subscription)
                    self.timers.on_earlier()
                    return
        finally:
            subscription.is_pumping = False

    def acknowledged(self, subscription: Subscription, now: int) -> None:
        """There was progress: the time begins anew, and what the window held back may go."""
        if subscription.unacked:
            self.timers.set(_ack_key(subscription), now + self._backoff(subscription))
        else:
            self.timers.cancel(_ack_key(subscription))
        if not self._is_at_head(subscription):
            self.pump(subscription, now)

    def writable(self, connection_id: str, now: int) -> None:
        """The transport has room again."""
        for subscription in self._full.pop(connection_id, {}).values():
            self.pump(subscription, now)

    def tick(self, now: int) -> None:
        """One more turn for everybody who waits for one."""
        for _ in range(len(self._ready)):
            self.pump(self._ready.popleft(), now)

    @property
    def has_work(self) -> bool:
        return bool(self._ready)

    # One step of a pump: how many messages it sent, or None where there is nothing to do until something happens

    def _send_some(self, subscription: Subscription, now: int) -> int | None:
        if subscription.is_closed:
            return None
        left = min(PAGE, subscription.window_left(self._rules))
        if left <= 0:
            self._metrics.realtime_window_stalls_total.inc()
            return None  # an acknowledgement or the deadline goes on from here
        page = self._log.read(subscription.topic, subscription.sent, left)
        if page.epoch != subscription.epoch:
            self._begin_epoch(subscription, page.epoch)
            return 0
        if page.gone and subscription.mode != "latest":
            return self._pass_over(subscription, page, now)
        if not page.messages:
            self._audiences[subscription.topic].put_at_head(subscription)
            return None
        if subscription.mode == "latest":
            return self._send_newest(subscription, now)
        return self._send_page(subscription, page.messages, now)

    def _send_page(self, subscription: Subscription, messages: list[Message], now: int) -> int | None:
        sent = 0
        for chunk in _chunks(messages, subscription.batch):
            if not subscription.is_next(chunk[0]):
                return sent  # the client has moved its cursor: what was read is not what it wants
            if subscription.is_resending:
                chunk = self._still_wanted(subscription, chunk)
                if not chunk:
                    continue
            elif subscription.window_left(self._rules) <= 0:
                return sent
            if not self._has_room(subscription.connection_id, *chunk):
                return self._wait_for_room(subscription, now)
            self._send(subscription, chunk, now)
            sent += len(chunk)
        return sent

    def _still_wanted(self, subscription: Subscription, chunk: list[Message]) -> list[Message]:
        """Without what was acknowledged apart. A chunk that reaches beyond what is sent again ends there."""
        again = [message for message in chunk if message.seq <= subscription.delivered]
        wanted = [message for message in again if message.seq in subscription.unacked]
        if not wanted:
            subscription.sent = again[-1].seq
        return wanted

    def _send_newest(self, subscription: Subscription, now: int) -> int | None:
        head = self._log.head(subscription.topic)
        message = self._log.read(subscription.topic, head.seq - 1, 1).messages[0]
        if not self._has_room(subscription.connection_id, message):
            return self._wait_for_room(subscription, now)
        skipped = (subscription.delivered + 1, message.seq - 1) if message.seq > subscription.delivered + 1 else None
        subscription.skip_to(message.seq - 1)
        frame = protocol.event_frame(message, skipped)
        self._note_sent(subscription, [message], now)
        self.transport.send(subscription.connection_id, frame)
        self._metrics.realtime_delivered_total.inc()
        return 1

    def _send(self, subscription: Subscription, chunk: list[Message], now: int) -> None:
        self._note_sent(subscription, chunk, now)
        if len(chunk) == 1:
            frame = protocol.event_frame(chunk[0])
        else:
            frame = protocol.events_frame(chunk)
        self.transport.send(subscription.connection_id, frame)
        self._metrics.realtime_delivered_total.inc(len(chunk))

    def _note_sent(self, subscription: Subscription, messages: list[Message], now: int) -> None:
        waits_already = bool(subscription.unacked)
        for message in messages:
            subscription.note_sent(message)
        if subscription.unacked and not waits_already:
            self.timers.set(_ack_key(subscription), now + self._backoff(subscription))

    # Merged frames for those who asked

    def merge(self, topic: str, now: int) -> None:
        """Everybody at the same place gets the same frame. A message that comes alone leaves at once; one that follows within
        LINGER_MS waits for the end of that time, and for company."""
        audience = self._audiences.get(topic)
        if audience is None:
            return
        audience.merge_after = now + LINGER_MS
        groups: dict[tuple[str, int], list[Subscription]] = {}
        for subscription in audience.merging.values():
            groups.setdefault((subscription.epoch, subscription.sent), []).append(subscription)
        for (epoch, sent), group in groups.items():
            page = self._log.read(topic, sent, PAGE)
            begins = page.messages and group[0].begins_with(page.messages[0])
            if (page.epoch != epoch and not begins) or page.gone or len(page.messages) == PAGE:
                self._fall_behind(audience, group, now)
            elif page.messages:
                self._send_merged(audience, group, page.messages, now)

    def _send_merged(self, audience: Audience, group: list[Subscription], messages: list[Message], now: int) -> None:
        for chunk in _chunks(messages, True):
            ready, behind = [], []
            for subscription in group:
                if len(chunk) <= subscription.window_left(self._rules) and self._has_room(subscription.connection_id, *chunk):
                    self._note_sent(subscription, chunk, now)
                    ready.append(subscription)
                else:
                    behind.append(subscription)
            if ready:
                frame = protocol.events_frame(chunk) if len(chunk) > 1 else protocol.event_frame(chunk[0])
                self.transport.send_many([subscription.connection_id for subscription in ready], frame)
                self._metrics.realtime_delivered_total.inc(len(chunk) * len(ready))
            self._fall_behind(audience, behind, now)
            group = ready

    def _fall_behind(self, audience: Audience, subscriptions: Iterable[Subscription], now: int) -> None:
        for subscription in subscriptions:
            audience.take_from_head(subscription)
            self.pump(subscription, now)

    # Where something is full, late or gone

    def _has_room(self, connection_id: str, *messages: Message) -> bool:
        """An empty transport takes whatever one message is, since nothing smaller will come."""
        queued = self.transport.queued_bytes(connection_id)
        return queued == 0 or queued + sum(len(message.payload) + MESSAGE_BYTES for message in messages) <= self._rules.send_buffer_bytes

    def _wait_for_room(self, subscription: Subscription, now: int) -> None:
        self._full.setdefault(subscription.connection_id, {})[subscription.topic] = subscription
        self.transport.notify_when_writable(subscription.connection_id)
        self._watch(subscription.connection_id, now)

    def _watch(self, connection_id: str, now: int) -> None:
        """From now on the client has to take something every `slow_consumer_ms`."""
        if ("stall", connection_id) not in self.timers:
            self._progress[connection_id] = self.transport.progress(connection_id)
            self.timers.set(("stall", connection_id), now + self._rules.slow_consumer_ms)

    def on_stall(self, connection_id: str, now: int) -> None:
        """Not a byte was taken for all that time: the transport is closed, and the client resumes from where it was."""
        progress = self._progress.pop(connection_id, None)
        if self.transport.queued_bytes(connection_id) == 0:
            return
        if self.transport.progress(connection_id) == progress:
            self.end_slow_consumer(connection_id)
        else:
            self._watch(connection_id, now)

    def end_slow_consumer(self, connection_id: str) -> None:
        self._metrics.realtime_slow_consumers_total.inc()
        self.tell(connection_id, ApiError("slow_consumer"))
        self.transport.close(connection_id)

    def on_ack_timeout(self, connection_id: str, topic: str, now: int) -> None:
        """Nothing was acknowledged for all that time: once more, and after the last time go on without. What has not even left
        the transport is not late; that is for `on_stall`."""
        audience = self._audiences.get(topic)
        subscription = audience and audience.all.get(connection_id)
        if not subscription or not subscription.unacked:
            return
        if self.transport.queued_bytes(connection_id) > 0 or subscription.is_waiting:
            self._watch(connection_id, now)
            self.timers.set(_ack_key(subscription), now + min(RECHECK_MS, self._rules.ack_timeout_ms))
        elif subscription.resends >= self._rules.ack_max_retries:
            self._metrics.realtime_delivery_failed_total.inc()
            self.tell(connection_id, ApiError("delivery_failed"), topic=topic, span=subscription.give_up())
            self.pump(subscription, now)
        else:
            self._metrics.realtime_resends_total.inc()
            subscription.rewind()
            self.timers.set(_ack_key(subscription), now + self._backoff(subscription))
            self.pump(subscription, now)

    def _backoff(self, subscription: Subscription) -> int:
        """Twice as long each time, and never the same for two clients, so that those who lost touch together do not come back so."""
        timeout = self._rules.ack_timeout_ms
        doubled = timeout * 2 ** min(subscription.resends, 20)
        return int(max(timeout, min(doubled, LONGEST_BACKOFF_MS)) * (1 + JITTER * self._random.random()))

    def _begin_epoch(self, subscription: Subscription, epoch: str) -> None:
        self.tell(subscription.connection_id, ApiError("epoch_changed"), topic=subscription.topic, epoch=epoch)
        self.timers.cancel(_ack_key(subscription))
        subscription.move_to(epoch, 0)

    def _pass_over(self, subscription: Subscription, page: Page, now: int) -> int | None:
        """The log has lost what comes next. The archive may have it; what nobody has is told."""
        if not self._archive.keeps(subscription.topic, subscription.epoch, subscription.sent):
            self._tell_gap(subscription, page.gone)
            return 0
        subscription.is_waiting = True
        epoch, sent = subscription.epoch, subscription.sent
        last = min(page.gone[1], sent + PAGE)

        def arrived(messages: list[Message] | None, later: int) -> None:
            subscription.is_waiting = False
            if subscription.is_closed:
                return
            has_room = True
            if (subscription.epoch, subscription.sent) == (epoch, sent):  # else the client has moved its cursor
                if messages is None:
                    self._tell_gap(subscription, page.gone)
                else:
                    has_room = self._send_archived(subscription, messages, last, later)
            if has_room:
                self.pump(subscription, later)

        self._archive.fetch(subscription.topic, epoch, sent, last, arrived)
        return None

    def _send_archived(self, subscription: Subscription, messages: list[Message], last: int, now: int) -> bool:
        """`messages` are what there is up to `last`; where one is missing it is told. False where the transport has no room."""
        for message in messages:
            if subscription.window_left(self._rules) <= 0:
                return True
            if not self._has_room(subscription.connection_id, message):
                self._wait_for_room(subscription, now)
                return False
            if message.seq > subscription.sent + 1:
                self._tell_gap(subscription, (subscription.sent + 1, message.seq - 1))
            if subscription.is_resending and message.seq not in subscription.unacked:
                subscription.sent = message.seq
                continue
            self._send(subscription, [message], now)
        if subscription.sent < last:
            self._tell_gap(subscription, (subscription.sent + 1, last))
        return True

    def _tell_gap(self, subscription: Subscription, span: tuple[int, int]) -> None:
        self.tell(subscription.connection_id, ApiError("history_gap"), topic=subscription.topic, span=span)
        subscription.skip_to(span[1])

    def tell(self, connection_id: str, error: ApiError, **places) -> None:
        self._metrics.realtime_errors_total.labels(error.code).inc()
        self.transport.send(connection_id, protocol.error_frame(error, **places))

    def _is_at_head(self, subscription: Subscription) -> bool:
        audience = self._audiences[subscription.topic]
        return any(group.get(subscription.connection_id) is subscription for group in (audience.live, audience.merging))


def _ack_key(subscription: Subscription) -> tuple[str, str, str]:
    return ("ack", subscription.connection_id, subscription.topic)


def _chunks(messages: list[Message], merged: bool) -> Iterable[list[Message]]:
    """One by one, or in frames of at most PAGE messages and MERGED_BYTES (one message may be more)."""
    if not merged:
        yield from ([message] for message in messages)
        return
    chunk, size = [], 0
    for message in messages:
        if chunk and size + len(message.payload) + MESSAGE_BYTES > MERGED_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += len(message.payload) + MESSAGE_BYTES
    if chunk:
        yield chunk
