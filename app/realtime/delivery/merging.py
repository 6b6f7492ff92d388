"""Several messages in one frame for those who asked with `batch`: everybody at the same place gets the same frame.

A message that comes alone leaves at once; one that follows within LINGER_MS waits for the end of that time, and for company.
"""

from app.realtime.delivery.acks import Acks
from app.realtime.delivery.audience import Audience
from app.realtime.delivery.outgoing import Outgoing
from app.realtime.delivery.pages import PAGE, chunks
from app.realtime.delivery.slow_consumers import SlowConsumers
from app.realtime.log import Message, TopicLog
from app.realtime.options import Options
from app.realtime.subscription import Subscription
from app.realtime.timers import Timers

LINGER_MS = 20


class Merging:
    def __init__(self, log: TopicLog, acks: Acks, slow: SlowConsumers, out: Outgoing, options: Options, timers: Timers):
        self._log = log
        self._acks = acks
        self._slow = slow
        self._out = out
        self._options = options
        self._timers = timers

    def is_due(self, topic: str, audience: Audience, now: int) -> bool:
        """Now, or else at a deadline that is set here."""
        if now >= audience.merge_after:
            return True
        if (key := ("merge", topic)) not in self._timers:
            self._timers.set(key, audience.merge_after)
        return False

    def send(self, topic: str, audience: Audience, now: int) -> list[Subscription]:
        """Those for whom it was too much, or who are not where they should be: they go on by themselves."""
        audience.merge_after = now + LINGER_MS
        behind: list[Subscription] = []
        for (epoch, sent), group in _by_place(audience).items():
            page = self._log.read(topic, sent, PAGE)
            begins = page.messages and group[0].begins_with(page.messages[0])
            if (page.epoch != epoch and not begins) or page.gone or len(page.messages) == PAGE:
                behind += group
            elif page.messages:
                behind += self._send_to(group, page.messages, now)
        return behind

    def _send_to(self, group: list[Subscription], messages: list[Message], now: int) -> list[Subscription]:
        behind: list[Subscription] = []
        for chunk in chunks(messages, True):
            ready: list[Subscription] = []
            for subscription in group:
                if len(chunk) <= subscription.window_left(self._options) and self._slow.has_room(subscription):
                    self._acks.note_sent(subscription, chunk, now)
                    ready.append(subscription)
                else:
                    behind.append(subscription)
            self._out.send_many(ready, chunk)
            group = ready
        return behind


def _by_place(audience: Audience) -> dict[tuple[str, int], list[Subscription]]:
    groups: dict[tuple[str, int], list[Subscription]] = {}
    for subscription in audience.merging.values():
        groups.setdefault((subscription.epoch, subscription.sent), []).append(subscription)
    return groups
