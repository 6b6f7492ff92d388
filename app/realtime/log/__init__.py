"""The topic log: the only queue of messages. A subscriber is a position in it, and no client has copies of its own.

A position is `(epoch, seq)`. Within one epoch of a topic `seq` counts 1, 2, 3 … without a hole. When the numbering has to
restart, the topic gets a new epoch, so that an old position is never mistaken for a new one.

memory.py          the log of one process
publishers.py      the parties that publish, and their answered message ids
shares.py          how much of the log each party may hold
sequence_store.py lets the numbering of some topics continue in the next process
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """One published message. A tuple, since a frozen dataclass takes three times as long to build.

    `payload` is JSON text, encoded once. `ts` is in epoch milliseconds. `user` is the publisher; the archive stores it, and
    subscribers do not get it.
    """

    topic: str
    epoch: str
    seq: int
    id: str
    ts: int
    payload: bytes
    user: str | None = None


class Appended(NamedTuple):
    """The position of an appended message. `duplicate`: the message was in the log before, and was not appended again."""

    seq: int
    epoch: str
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """The newest seq (0 before the first message) and the oldest one in the log (seq + 1 if there is none)."""

    seq: int
    epoch: str
    first: int


@dataclass(frozen=True, slots=True)
class Page:
    """Messages after a position, oldest first. `gone` is the part (from, to) of the request that the log no longer has."""

    epoch: str
    messages: list[Message]
    gone: tuple[int, int] | None = None


class TopicLog(Protocol):
    """Each method is one atomic step. A log that cannot do its work raises ApiError `unavailable`."""

    def append(
        self, topic: str, payload: bytes, now: int, id: str | None = None, user: str | None = None, is_trusted: bool = False
    ) -> Appended:
        """Take the next seq, store the message, announce it. A repeated `(topic, user, id)` gets the first answer again.

        `is_trusted` marks a message of the server itself (`user` None), of a service or an admin. Users' messages never evict it.
        """

    def read(self, topic: str, after: int, limit: int) -> Page:
        """Return at most `limit` messages with seq > `after`."""

    def head(self, topic: str) -> Head:
        """Return the head of the topic. For a topic without messages, this is the epoch in which it will start."""

    def listen(self, listener: Callable[[Message], None]) -> None:
        """Call `listener` with every appended message, in the order of seq per topic. A listener must not raise."""


class SequenceStore(Protocol):
    """The last number of each durable topic, from which the log of the next process continues.

    The invariant: `(topic, epoch, seq)` never names two messages.
    """

    def covers(self, topic: str) -> bool:
        """Whether the numbering of this topic continues in the next process."""

    def position(self, topic: str) -> tuple[str, int] | None:
        """Return the (epoch, seq) from which the topic continues, or None if it starts in a new epoch."""

    def record(self, topic: str, epoch: str, seq: int, now: int, owner: str = "") -> bool:
        """Store a number. Called before any client receives it.

        `owner` is the short name of the party against which the topic counts, empty for the server. Returns False if the number must
        not be used: then every stored topic has to start a new epoch.
        """

    def positions(self) -> dict[str, tuple[str, int]]:
        """Return `position` of every topic whose numbering continues."""

    @property
    def is_certain(self) -> bool:
        """Whether the machine has run without a restart since the numbers were stored."""

    def restart_epochs(self) -> None:
        """Forget all positions: every topic starts a new epoch."""


class NoSequenceStore:
    """Stores nothing: the topics of every process start in new epochs."""

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
