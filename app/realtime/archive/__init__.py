"""The archive of the durable topics: for replays that reach further back than the log, and for whoever asks later who said what.

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
    """Messages of one topic, oldest first. Where a part of the archive did not answer (`is_whole` False) they are the first that the
    others have, which may be later ones than were asked for, and what is missing may be there the next time."""

    messages: list[Message]
    is_whole: bool


class Archive(Protocol):
    """Where messages of some topics are kept for longer than the log has them. It never keeps anybody waiting."""

    def add(self, message: Message) -> None:
        """Take it, if it is of a topic to be kept. It is stored a little later, and never refused."""

    def confirm(self) -> None:
        """Before a publish is answered: raises ApiError `unavailable` where the process ends and what was published is not durable."""

    def covers(self, topic: str, epoch: str, after: int) -> bool:
        """Whether the messages right after this position should be there."""

    def check_complete(self, topic: str, epoch: str, after: int, last: int, then: Callable[[bool, int], None]) -> None:
        """Calls `then(has_all, now)` once, later: True where every message with `after` < seq <= `last` can be fetched now."""

    def fetch(self, topic: str, epoch: str, after: int, last: int, then: Callable[[Found, int], None]) -> None:
        """Calls `then(found, now)` once, later: those with `after` < seq <= `last`."""

    def check(self) -> dict:
        """For health."""


class NoArchive:
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
