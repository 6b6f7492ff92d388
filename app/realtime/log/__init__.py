"""The topic log: the only queue there is. A subscriber is a position in it, nobody holds a copy of a message per client.

A position is `(epoch, seq)`. Within one epoch of a topic `seq` counts 1, 2, 3 … without a hole; where the numbering has
to begin anew, the epoch is another one, so an old position can never be mistaken for a new one.
memory.py keeps it in this process; archive.py keeps some topics in MongoDB for longer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """`payload` is JSON text, encoded once when it was published; `ts` is in epoch milliseconds."""

    topic: str
    epoch: str
    seq: int
    id: str
    ts: int
    payload: bytes


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


class Archive(Protocol):
    """Where messages of some topics are kept for longer than the log has them. It never keeps anybody waiting."""

    def keep(self, message: Message) -> None:
        """Take it, if it is of a topic to be kept. It is stored a little later, and never refused."""

    def keeps(self, topic: str, epoch: str, after: int) -> bool:
        """Whether the messages right after this position should be there."""

    def fetch(self, topic: str, epoch: str, after: int, last: int, then: Callable[[list[Message] | None, int], None]) -> None:
        """Calls `then(messages, now)` once, later: those with `after` < seq <= `last`, oldest first; None where it fails."""

    def check(self) -> dict:
        """For health."""


class NoArchive:
    def keep(self, message):
        pass

    def check(self):
        return {}

    def keeps(self, topic, epoch, after):
        return False

    def fetch(self, topic, epoch, after, last, then):
        raise NotImplementedError("nothing is kept here")
