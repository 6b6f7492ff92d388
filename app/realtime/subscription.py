"""One client's place in one topic: a cursor into the log, and what of it was acknowledged."""

from dataclasses import dataclass, field

from app.realtime.log import Head, Message


@dataclass(slots=True)
class Subscription:
    """`sent` is the last seq that was handed to the transport, `acked` the last one up to which all are acknowledged."""

    topic: str
    epoch: str
    sent: int
    acked: int
    acked_apart: set[int] = field(default_factory=set)
    is_catching_up: bool = False
    ack: bool | None = None
    mode: str = "all"
    batch: bool = False

    def move_to(self, epoch: str, seq: int) -> None:
        self.epoch, self.sent, self.acked = epoch, seq, seq
        self.acked_apart.clear()

    def is_next(self, message: Message) -> bool:
        return self.epoch == message.epoch and self.sent == message.seq - 1

    def has_had(self, message: Message) -> bool:
        return self.epoch == message.epoch and self.sent >= message.seq

    def acknowledge(self, seq: int) -> None:
        self.acked = max(self.acked, seq)
        self._close_up()

    def acknowledge_one(self, seq: int) -> None:
        self.acked_apart.add(seq)
        self._close_up()

    def _close_up(self) -> None:
        while self.acked + 1 in self.acked_apart:
            self.acked += 1
        self.acked_apart = {seq for seq in self.acked_apart if seq > self.acked}


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
