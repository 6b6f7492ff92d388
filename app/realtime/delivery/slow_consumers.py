"""Who reads slowly. Nothing is queued beyond RT_SEND_BUFFER_BYTES for one connection: the rest stays in the log until the
transport has room, and a client that takes not a byte for RT_SLOW_CONSUMER_MS is closed and resumes from where it was."""

from collections.abc import Iterable

from app.errors import ApiError
from app.realtime.delivery.outgoing import Outgoing
from app.realtime.options import Options
from app.realtime.subscription import Subscription
from app.realtime.timers import Timers
from app.realtime.transport import Link


class SlowConsumers:
    def __init__(self, out: Outgoing, metrics, options: Options, timers: Timers):
        self._out = out
        self._metrics = metrics
        self._options = options
        self._timers = timers
        self._full: dict[str, dict[str, Subscription]] = {}  # by connection: those who wait for room in its transport
        self._watched: dict[str, tuple[Link, int]] = {}  # with what had left when the time began

    def __len__(self) -> int:
        """Connections that are waited for."""
        return len(self._full)

    def has_room(self, subscription: Subscription) -> bool:
        return not subscription.link.is_blocked

    def wait_for_room(self, subscription: Subscription, now: int) -> None:
        self._full.setdefault(subscription.connection_id, {})[subscription.topic] = subscription
        self.watch(subscription, now)

    def freed(self, connection_id: str) -> Iterable[Subscription]:
        """There is room again; who waited for it."""
        return self._full.pop(connection_id, {}).values()

    def leave(self, subscription: Subscription) -> None:
        self._full.get(subscription.connection_id, {}).pop(subscription.topic, None)

    def forget(self, connection_id: str) -> None:
        self._full.pop(connection_id, None)
        self._watched.pop(connection_id, None)
        self._timers.cancel(("stall", connection_id))

    def watch(self, subscription: Subscription, now: int) -> None:
        """From now on the client has to take something every `slow_consumer_ms`."""
        self._watch(subscription.connection_id, subscription.link, now)

    def on_stall(self, connection_id: str, now: int) -> None:
        """Not a byte was taken for all that time, or else it is watched on."""
        link, progress = self._watched.pop(connection_id)
        if not link.queued_bytes:
            return
        if link.progress == progress:
            self.end_slow_consumer(connection_id)
        else:
            self._watch(connection_id, link, now)

    def _watch(self, connection_id: str, link: Link, now: int) -> None:
        if ("stall", connection_id) not in self._timers:
            self._watched[connection_id] = (link, link.progress)
            self._timers.set(("stall", connection_id), now + self._options.slow_consumer_ms)

    def end_slow_consumer(self, connection_id: str) -> None:
        self._metrics.realtime_slow_consumers_total.inc()
        self._out.tell(connection_id, ApiError("slow_consumer"))
        self._out.transport.close(connection_id, "slow_consumer")
