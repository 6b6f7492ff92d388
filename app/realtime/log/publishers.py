"""The parties that publish: what each of them holds in a log, and the answers to its message ids.

A publisher is remembered while it holds something, so there are never more publishers than topics, messages and ids.
"""

from collections import OrderedDict
from hashlib import blake2b

from app.realtime.log import Appended
from app.realtime.log.shares import Shares

THE_SERVER = ""  # the mark of every trusted publisher


class Publisher:
    """A user; or, with `is_trusted`, the server itself (`user` None), a service or an admin."""

    __slots__ = ("answers", "bytes", "guest_in", "ids", "is_trusted", "mark", "owned", "topics", "user")

    def __init__(self, user: str | None, is_trusted: bool, topics: Shares, bytes: Shares, ids: Shares):
        self.user = user
        self.is_trusted = is_trusted
        self.topics, self.bytes, self.ids = (shares.holding(self, is_trusted) for shares in (topics, bytes, ids))
        self.mark = THE_SERVER if is_trusted else blake2b(user.encode(), digest_size=6).hexdigest()
        self.owned: OrderedDict[str, None] = OrderedDict()  # topics, the least recently published one first
        self.guest_in: dict[str, int] = {}  # topics of other parties -> the count of its messages there
        self.answers: OrderedDict[tuple[str, str], Appended] = OrderedDict()  # by (topic, id), the oldest first

    def is_guest_in(self, topic: str) -> None:
        """Count one message in a topic of another party."""
        self.guest_in[topic] = self.guest_in.get(topic, 0) + 1

    def is_guest_no_more_in(self, topic: str) -> None:
        """Take back one message of `is_guest_in`."""
        self.guest_in[topic] -= 1
        if not self.guest_in[topic]:
            del self.guest_in[topic]


class Publishers:
    """All publishers of a log, with their shares of its topics, bytes and ids."""

    def __init__(self, topics: Shares, bytes: Shares, ids: Shares):
        self._users: dict[str | None, Publisher] = {}
        self._trusted: dict[str | None, Publisher] = {}
        self._shares = (topics, bytes, ids)

    def get(self, user: str | None, is_trusted: bool) -> Publisher:
        """Return the publisher; make it if it is new."""
        is_trusted = is_trusted or user is None
        publishers = self._trusted if is_trusted else self._users
        publisher = publishers.get(user)
        if publisher is None:
            publisher = publishers[user] = Publisher(user, is_trusted, *self._shares)
        return publisher

    def first_answer(self, publisher: Publisher, topic: str, id: str) -> Appended | None:
        """Return the answer to this id, whether the user was trusted then or not. None for a new id."""
        answer = publisher.answers.get((topic, id))
        if answer is None and (other := (self._users if publisher.is_trusted else self._trusted).get(publisher.user)):
            answer = other.answers.get((topic, id))
        return answer

    def remember(self, publisher: Publisher, topic: str, id: str, answer: Appended) -> None:
        """Store the answer to an id, and evict older ids if there are too many."""
        publisher.answers[topic, id] = answer
        publisher.ids.change(1)
        ids = self._shares[-1]
        while ids.is_over() and any(self._takes_ids_of(loser, publisher) for loser in ids.losers()):
            pass

    def leave(self, publisher: Publisher) -> None:
        """Forget the publisher if it holds nothing."""
        if not (publisher.owned or publisher.guest_in or publisher.answers):
            (self._trusted if publisher.is_trusted else self._users).pop(publisher.user, None)

    def counts(self) -> dict[str, int]:
        """Return the number of ids and of publishers."""
        return {"ids": self._shares[-1].total, "publishers": len(self._users) + len(self._trusted)}

    def _takes_ids_of(self, loser: Publisher, current: Publisher) -> bool:
        """Evict the oldest ids of `loser`: one step of the share, and never the id that was just stored."""
        count = min(self._shares[-1].step, len(loser.answers) - (loser is current))
        for _ in range(count):
            loser.answers.popitem(last=False)
        loser.ids.change(-count)
        self.leave(loser)
        return count > 0
