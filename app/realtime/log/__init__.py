"""The topic log: the only queue there is. A subscriber is a position in it, nobody holds a copy of a message per client.

A position is `(epoch, seq)`. Within one epoch of a topic `seq` counts 1, 2, 3 … without a hole; where the numbering has
to begin anew, the epoch is another one, so an old position can never be mistaken for a new one.
memory.py      keeps it in this process
publishers.py  the parties that publish, and the answers by which their repeated messages are known
shares.py      how much of it each party may hold
sequence_store.py lets the numbering of some topics continue in the next process
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """`payload` is JSON text, encoded once when it was published; `ts` is in epoch milliseconds; `user` is who published it, for the
    archive: subscribers do not get it. A tuple, since a frozen dataclass takes three times as long to build."""

    topic: str
    epoch: str
    seq: int
    id: str
    ts: int
    payload: bytes
    user: str | None = None


class Appended(NamedTuple):
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

    def append(
        self, topic: str, payload: bytes, now: int, id: str | None = None, user: str | None = None, is_trusted: bool = False
    ) -> Appended:
        """Take the next seq, keep the message, announce it. A repeated `(topic, user, id)` gets the first answer again.

        `is_trusted` is a message of the server itself (`user` None), of a service or an admin: what users publish never evicts it.
        """

    def read(self, topic: str, after: int, limit: int) -> Page:
        """At most `limit` messages with seq > `after`."""

    def head(self, topic: str) -> Head:
        """Also for a topic that nobody has published to: its numbering will begin in this epoch."""

    def listen(self, listener: Callable[[Message], None]) -> None:
        """Every appended message goes to `listener`, each topic's in the order of seq. A listener must not raise."""


class SequenceStore(Protocol):
    """How far topics were numbered, for a log that begins where another one ended. The invariant behind it: `(topic, epoch,
    seq)` never names two messages."""

    def covers(self, topic: str) -> bool:
        """Whether the numbering of this topic is to go on."""

    def position(self, topic: str) -> tuple[str, int] | None:
        """(epoch, seq) that it goes on from; None where its numbering begins."""

    def record(self, topic: str, epoch: str, seq: int, now: int, owner: str = "") -> bool:
        """To be called before any client learns of this number. `owner` is a short name of the party that it counts against, empty
        for the server. False: no client may learn of it, and no topic may continue in its epoch."""

    def positions(self) -> dict[str, tuple[str, int]]:
        """`last` of every topic whose numbering continues."""

    @property
    def is_certain(self) -> bool:
        """Whether the machine has run ever since they were noted."""

    def restart_epochs(self) -> None:
        """No numbering continues."""


class NoSequenceStore:
    """Every log begins in epochs of its own."""

    is_certain = True

    def covers(self, topic):
        return False

    def position(self, topic):
        return None

    def record(self, topic, epoch, seq, now, owner=""):
        return True

    def positions(self):
        return {}

    def restart_epochs(self):
        pass
