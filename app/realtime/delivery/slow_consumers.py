"""Who reads slowly. Nothing is queued beyond RT_SEND_BUFFER_BYTES for one connection: the rest stays in the log until the
transport has room, and a client that takes not a byte for RT_SLOW_CONSUMER_MS is closed and resumes from where it was."""

from collections.abc import Iterable

from app.errors import ApiError
from app.realtime.delivery.outgoing import Outgoing
from app.realtime.log import Message
from app.realtime.options import Options
from app.realtime.subscription import MESSAGE_BYTES, Subscription
from app.realtime.timers import Timers


class SlowConsumers:
    def __init__(self, out: Outgoing, metrics, options: Options, timers: Timers):
        self._out = out
        self._metrics = metrics
        self._options = options
        self._timers = timers
        self._full: dict[str, dict[str, Subscription]] = {}  # by connection: those who wait for room in its transport
        self._progress: dict[str, int] = {}

    def __len__(self) -> int:
        """Connections that are waited for."""
        return len(self._full)

    def has_room(self, connection_id: str, *messages: Message) -> bool:
        """An empty transport takes whatever one message is, since nothing smaller will come."""
        queued = self._out.transport.queued_bytes(connection_id)
        return queued == 0 or queued + sum(len(message.payload) + MESSAGE_BYTES for message in messages) <= self._options.send_buffer_bytes

    def is_sent(self, connection_id: str) -> bool:
        """All that was sent has left the process."""
        return self._out.transport.queued_bytes(connection_id) == 0

    def wait_for_room(self, subscription: Subscription, now: int) -> None:
        self._full.setdefault(subscription.connection_id, {})[subscription.topic] = subscription
        self._out.transport.notify_when_writable(subscription.connection_id)
        self.watch(subscription.connection_id, now)

    def freed(self, connection_id: str) -> Iterable[Subscription]:
        """There is room again; who waited for it."""
        return self._full.pop(connection_id, {}).values()

    def leave(self, subscription: Subscription) -> None:
        self._full.get(subscription.connection_id, {}).pop(subscription.topic, None)

    def forget(self, connection_id: str) -> None:
        self._full.pop(connection_id, None)
        self._progress.pop(connection_id, None)
        self._timers.cancel(("stall", connection_id))

    def watch(self, connection_id: str, now: int) -> None:
        """From now on the client has to take something every `slow_consumer_ms`."""
        if ("stall", connection_id) not in self._timers:
            self._progress[connection_id] = self._out.transport.progress(connection_id)
            self._timers.set(("stall", connection_id), now + self._options.slow_consumer_ms)

    def on_stall(self, connection_id: str, now: int) -> None:
        """Not a byte was taken for all that time, or else it is watched on."""
        progress = self._progress.pop(connection_id, None)
        if self.is_sent(connection_id):
            return
        if self._out.transport.progress(connection_id) == progress:
            self.end_slow_consumer(connection_id)
        else:
            self.watch(connection_id, now)

    def end_slow_consumer(self, connection_id: str) -> None:
        self._metrics.realtime_slow_consumers_total.inc()
        self._out.tell(connection_id, ApiError("slow_consumer"))
        self._out.transport.close(connection_id, "slow_consumer")
