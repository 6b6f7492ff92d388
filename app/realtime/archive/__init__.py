"""The archive of durable topics: for replays from before the start of the log, and as a record of who published what.

archive.py  what is published is kept, and what a replay asks for is found
ladder.py   what happens to it: MongoDB, else the disk, else memory as far as it goes
mongo.py    messages as documents, each once
spool.py    messages in files until MongoDB takes them; message_lines.py: as lines
refused_messages.py  messages that MongoDB will never take
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from app.realtime.log import Message


class Found(NamedTuple):
    """Messages of one topic, oldest first.

    With `is_whole` False a part of the archive did not answer. Then these are the first messages that the other parts have, which may
    be later than the requested ones, and a later request may find the missing ones.
    """

    messages: list[Message]
    is_whole: bool


class Archive(Protocol):
    """Stores the messages of some topics for longer than the log does. No method waits for a disk or a database, except `confirm`."""

    def add(self, message: Message) -> None:
        """Accept a message if its topic is durable. It is stored a little later; a message is never rejected."""

    def confirm(self) -> None:
        """Called before a publish is acknowledged. Raises ApiError `unavailable` if the process stops and a message is not durable."""

    def covers(self, topic: str, epoch: str, after: int) -> bool:
        """Whether the archive should have the messages after this position."""

    def check_complete(self, topic: str, epoch: str, after: int, last: int, then: Callable[[bool, int], None]) -> None:
        """Call `then(has_all, now)` once, later. True: every message with `after` < seq <= `last` can be fetched now."""

    def fetch(self, topic: str, epoch: str, after: int, last: int, then: Callable[[Found, int], None]) -> None:
        """Call `then(found, now)` once, later, with the messages with `after` < seq <= `last`."""

    def check(self) -> dict:
        """Return the state for /healthz."""


class NoArchive:
    """Stores nothing, and covers no topic."""

    def add(self, message):
        pass

    def confirm(self):
        pass

    def check(self):
        return {}

    def covers(self, topic, epoch, after):
        return False

    def check_complete(self, topic, epoch, after, last, then):
        raise NotImplementedError("nothing is kept here")

    def fetch(self, topic, epoch, after, last, then):
        raise NotImplementedError("nothing is kept here")
