"""The topic log: the only queue there is. A subscriber is a position in it, nobody holds a copy of a message per client.

A position is `(epoch, seq)`. Within one epoch of a topic `seq` counts 1, 2, 3 … without a hole; where the numbering has
to begin anew, the epoch is another one, so an old position can never be mistaken for a new one.
memory.py keeps it in this process; numbers.py lets the numbering of some topics go on when another process comes after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """`payload` is JSON text, encoded once when it was published; `ts` is in epoch milliseconds; `user` is who published it,
    for the archive: subscribers are not told."""

    topic: str
    epoch: str
    seq: int
    id: str
    ts: int
    payload: bytes
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the message stands. `duplicate` means that it stood there before."""

    seq: int
    epoch: str
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """The newest seq (0 before the first message) and the oldest one that is kept (seq + 1 where none is)."""

    seq: int
    epoch: str
    first: int


@dataclass(frozen=True, slots=True)
class Page:
    """Messages after a position, oldest first. `gone` is the span (from, to) that was asked for and is no longer kept."""

    epoch: str
    messages: list[Message]
    gone: tuple[int, int] | None = None


class TopicLog(Protocol):
    """Every method is one atomic step. A log that cannot do its work raises ApiError `unavailable`."""

    def append(self, topic: str, payload: bytes, now: int, id: str | None = None, user: str | None = None) -> Appended:
        """Take the next seq, keep the message, announce it. A repeated `(topic, user, id)` gets the first answer again."""

    def read(self, topic: str, after: int, limit: int) -> Page:
        """At most `limit` messages with seq > `after`."""

    def head(self, topic: str) -> Head:
        """Also for a topic that nobody has published to: its numbering will begin in this epoch."""

    def listen(self, listener: Callable[[Message], None]) -> None:
        """Every appended message goes to `listener`, each topic's in the order of seq. A listener must not raise."""


class Numbers(Protocol):
    """How far topics were numbered, for a log that begins where another one ended. The invariant behind it: `(topic, epoch,
    seq)` never names two messages."""

    def keeps(self, topic: str) -> bool:
        """Whether the numbering of this topic is to go on."""

    def last(self, topic: str) -> tuple[str, int] | None:
        """(epoch, seq) that it goes on from; None where its numbering begins."""

    def note(self, topic: str, epoch: str, seq: int, now: int) -> bool:
        """To be called before anybody is told of this number. False: nobody may be, and no topic may go on in its epoch."""


class NoNumbers:
    """Every log begins in epochs of its own."""

    def keeps(self, topic):
        return False

    def last(self, topic):
        return None

    def note(self, topic, epoch, seq, now):
        return True
