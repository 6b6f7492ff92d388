"""What the log has lost comes from the archive, page by page, before anything newer; what nobody has is told."""

from collections.abc import Callable

from app.realtime.archive import Archive, Found
from app.realtime.delivery.acks import Acks
from app.realtime.delivery.newest import Newest
from app.realtime.delivery.outgoing import Outgoing
from app.realtime.delivery.pages import PAGE
from app.realtime.delivery.slow_consumers import SlowConsumers
from app.realtime.options import Options
from app.realtime.subscription import Subscription


class Replay:
    def __init__(self, archive: Archive, newest: Newest, acks: Acks, slow: SlowConsumers, out: Outgoing, options: Options):
        self._archive = archive
        self._newest = newest
        self._acks = acks
        self._slow = slow
        self._out = out
        self._options = options

    def pass_over(self, subscription: Subscription, gone: tuple[int, int], go_on: Callable[[Subscription, int], None]) -> int | None:
        """0 where the gap was told at once; None where the archive is asked, and `go_on(subscription, now)` called afterwards."""
        if not self._archive.covers(subscription.topic, subscription.epoch, subscription.sent):
            self._out.tell_gap(subscription, gone)
            return 0
        subscription.is_waiting = True
        moves, sent = subscription.moves, subscription.sent
        after = sent if subscription.mode != "latest" else gone[1] - 1
        last = min(gone[1], after + PAGE)

        def arrived(found: Found, now: int) -> None:
            if subscription.is_closed or subscription.moves != moves:
                return
            subscription.is_waiting = False
            until = last if found.messages or found.is_whole else gone[1]
            if subscription.sent != sent or self._send_found(subscription, found, until, now):
                go_on(subscription, now)

        self._archive.fetch(subscription.topic, subscription.epoch, after, last, arrived)
        return None

    def _send_found(self, subscription: Subscription, found: Found, until: int, now: int) -> bool:
        """What there is up to `until`; where one is missing it is told. False where the transport has no room."""
        if found.messages and subscription.mode == "latest":
            return self._newest.send(subscription, found.messages[-1], now)
        for message in found.messages:
            if subscription.window_left(self._options) <= 0:
                return True
            if not self._slow.has_room(subscription):
                self._slow.wait_for_room(subscription, now)
                return False
            if message.seq > subscription.sent + 1:
                self._out.tell_gap(subscription, (subscription.sent + 1, message.seq - 1), may_come_back=not found.is_whole)
            if subscription.is_resending and message.seq not in subscription.unacked:
                subscription.sent = message.seq
                continue
            self._acks.note_sent(subscription, [message], now)
            self._out.send(subscription, [message])
        if subscription.sent < until:
            self._out.tell_gap(subscription, (subscription.sent + 1, until), may_come_back=not found.is_whole)
        return True
