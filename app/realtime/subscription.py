"""One client's place in one topic: a cursor into the log, and what of it waits to be acknowledged."""

from dataclasses import dataclass, field

from app.realtime.log import Head, Message
from app.realtime.options import Options
from app.realtime.transport import Link, NoLink

MESSAGE_BYTES = 128  # what a message is in a window beside its payload
NO_LINK = NoLink()


@dataclass(slots=True, eq=False)
class Subscription:
    """`sent` is the cursor: the last seq handed to the transport. For a resend it goes back to before the oldest message in
    `unacked` (seq -> bytes, in the order of seq); `delivered` stays at the highest it has been.

    `resends` counts those without success. It begins anew only when everything up to `resend_until` is acknowledged, so
    that no message is ever sent more than once and `ack_max_retries` times.
    """

    connection_id: str
    topic: str
    epoch: str
    sent: int
    link: Link = NO_LINK
    ack: bool = True
    mode: str = "all"
    batch: bool = False
    delivered: int = -1
    unacked: dict[int, int] = field(default_factory=dict)
    unacked_bytes: int = 0
    resends: int = 0
    resend_until: int = 0
    is_closed: bool = False
    is_pumping: bool = False
    is_waiting: bool = False  # for the archive
    moves: int = 0  # by its client: who waits for the archive goes on only where there was none meanwhile

    def __post_init__(self):
        self.delivered = max(self.delivered, self.sent)

    @property
    def acked(self) -> int:
        """The last seq up to which all are acknowledged."""
        return next(iter(self.unacked)) - 1 if self.unacked else self.delivered

    @property
    def is_resending(self) -> bool:
        return self.sent < self.delivered

    @property
    def needs_no_care(self) -> bool:
        return not self.is_pumping and not self.is_waiting and not self.is_resending

    def move_to(self, epoch: str, seq: int) -> None:
        """Nothing that was sent before counts any more."""
        self.epoch, self.sent, self.delivered = epoch, seq, seq
        self.is_waiting = False
        self.moves += 1
        self.forget_unacked()

    def skip_to(self, seq: int) -> None:
        """What lies before is gone, in the same epoch."""
        for passed in [unacked for unacked in self.unacked if unacked <= seq]:
            self._settle(passed)
        self.sent = max(self.sent, seq)
        self.delivered = max(self.delivered, self.sent)

    def is_next(self, message: Message) -> bool:
        return self.sent == message.seq - 1 and self.epoch == message.epoch

    def begins_with(self, message: Message) -> bool:
        """For who is at the head: the first message of an epoch, where nothing can have been missed of the one before."""
        return message.seq == 1 and self.delivered == 0

    def has_had(self, message: Message) -> bool:
        return self.epoch == message.epoch and self.delivered >= message.seq

    def window_left(self, options: Options) -> int:
        """How many messages may leave now; what is sent again has had its place already."""
        if not self.ack or self.is_resending:
            return options.ack_window_messages
        return options.ack_window_messages - len(self.unacked) if self.unacked_bytes < options.ack_window_bytes else 0

    def note_sent(self, message: Message) -> None:
        self.epoch, self.sent = message.epoch, message.seq
        if message.seq > self.delivered:
            self.delivered = message.seq
            if self.ack:
                size = self.unacked[message.seq] = len(message.payload) + MESSAGE_BYTES
                self.unacked_bytes += size

    def acknowledge(self, seq: int) -> bool:
        """Everything up to `seq` has arrived; True where that was news."""
        before = len(self.unacked)
        for passed in list(self.unacked):
            if passed > seq:
                break
            self._settle(passed)
        return self._progressed(before)

    def acknowledge_one(self, seq: int) -> bool:
        before = len(self.unacked)
        self._settle(seq)
        return self._progressed(before)

    def rewind(self) -> None:
        """Send again what is not acknowledged."""
        self.resends += 1
        self.resend_until = self.delivered
        self.sent = self.acked

    def give_up(self) -> tuple[int, int]:
        """The span that was never acknowledged; from here on nobody waits for acknowledgements."""
        span = (self.acked + 1, self.delivered)
        self.sent = self.delivered
        self.ack = False
        self.forget_unacked()
        return span

    def forget_unacked(self) -> None:
        self.unacked.clear()
        self.unacked_bytes = self.resends = self.resend_until = 0

    def _settle(self, seq: int) -> None:
        self.unacked_bytes -= self.unacked.pop(seq, 0)

    def _progressed(self, before: int) -> bool:
        self.sent = max(self.sent, self.acked)
        if self.acked >= self.resend_until:
            self.resends = 0
        return len(self.unacked) < before


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a subscription begins: after `seq`. `reason` is an error code where that is not where the client left off."""

    seq: int
    reason: str | None = None
    span: tuple[int, int] | None = None


def resume_from(since: int, epoch: str | None, head: Head) -> Resumption:
    """What the log still has is replayed in any case. Without an epoch the client's position counts as one of this epoch."""
    if (epoch is not None and epoch != head.epoch) or since > head.seq:
        return Resumption(head.first - 1, "epoch_changed")
    if since < head.first - 1:
        return Resumption(head.first - 1, "history_gap", (since + 1, head.first - 1))
    return Resumption(since)
