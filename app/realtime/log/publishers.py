"""The parties that publish: what each of them holds in a log, and the answers by which its repeated messages are known.

A publisher is remembered for as long as it holds something, so that there are never more of them than topics, messages and ids.
"""

from collections import OrderedDict
from hashlib import blake2b

from app.realtime.log import Appended
from app.realtime.log.shares import Shares

THE_SERVER = ""  # the mark of all that is trusted


class Publisher:
    """A user, or with `is_trusted` the server itself (`user` None), one of its services or an admin."""

    __slots__ = ("answers", "bytes", "guest_in", "ids", "is_trusted", "mark", "owned", "topics", "user")

    def __init__(self, user: str | None, is_trusted: bool, topics: Shares, bytes: Shares, ids: Shares):
        self.user = user
        self.is_trusted = is_trusted
        self.topics, self.bytes, self.ids = (shares.holding(self, is_trusted) for shares in (topics, bytes, ids))
        self.mark = THE_SERVER if is_trusted else blake2b(user.encode(), digest_size=6).hexdigest()
        self.owned: OrderedDict[str, None] = OrderedDict()  # topics, the least recently published one first
        self.guest_in: dict[str, int] = {}  # topics of others -> how many messages
        self.answers: OrderedDict[tuple[str, str], Appended] = OrderedDict()  # by (topic, id), the oldest first

    def is_guest_in(self, topic: str) -> None:
        self.guest_in[topic] = self.guest_in.get(topic, 0) + 1

    def is_guest_no_more_in(self, topic: str) -> None:
        """With one message of it."""
        self.guest_in[topic] -= 1
        if not self.guest_in[topic]:
            del self.guest_in[topic]


class Publishers:
    """By the shares of topics, bytes and ids of what they hold."""

    def __init__(self, topics: Shares, bytes: Shares, ids: Shares):
        self._users: dict[str | None, Publisher] = {}
        self._trusted: dict[str | None, Publisher] = {}
        self._shares = (topics, bytes, ids)

    def get(self, user: str | None, is_trusted: bool) -> Publisher:
        is_trusted = is_trusted or user is None
        publishers = self._trusted if is_trusted else self._users
        publisher = publishers.get(user)
        if publisher is None:
            publisher = publishers[user] = Publisher(user, is_trusted, *self._shares)
        return publisher

    def first_answer(self, publisher: Publisher, topic: str, id: str) -> Appended | None:
        """Whatever the user's role was then."""
        answer = publisher.answers.get((topic, id))
        if answer is None and (other := (self._users if publisher.is_trusted else self._trusted).get(publisher.user)):
            answer = other.answers.get((topic, id))
        return answer

    def remember(self, publisher: Publisher, topic: str, id: str, answer: Appended) -> None:
        publisher.answers[topic, id] = answer
        publisher.ids.change(1)
        ids = self._shares[-1]
        while ids.is_over() and any(self._takes_ids_of(loser, publisher) for loser in ids.losers()):
            pass

    def leave(self, publisher: Publisher) -> None:
        """Forgets a publisher that holds nothing."""
        if not (publisher.owned or publisher.guest_in or publisher.answers):
            (self._trusted if publisher.is_trusted else self._users).pop(publisher.user, None)

    def counts(self) -> dict[str, int]:
        return {"ids": self._shares[-1].total, "publishers": len(self._users) + len(self._trusted)}

    def _takes_ids_of(self, loser: Publisher, current: Publisher) -> bool:
        """The oldest, as many as make a difference, but never the one that was just remembered."""
        count = min(self._shares[-1].step, len(loser.answers) - (loser is current))
        for _ in range(count):
            loser.answers.popitem(last=False)
        loser.ids.change(-count)
        self.leave(loser)
        return count > 0
