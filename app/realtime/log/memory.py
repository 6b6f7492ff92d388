"""The topic log of one process, gone when it ends.

Everything in it is bounded. A topic that is over its count or its bytes loses its oldest messages (the newest one
always stays), and at the next `tidy` those over its age; one to which nobody published for twice that long is
forgotten whole. So are topics over the number of topics, or the bytes, of all together. A forgotten topic starts at seq 1 in
another epoch when it comes back, and a client that resumes is told so; one that `sequences` keep continues in its epoch, with what
was forgotten gone. Of the message ids that make a repeated publish harmless the oldest are forgotten first: a retry that comes
after too many other messages is a new message.

The invariant of what all share (shares.py): what a user publishes never evicts a topic or an id of the server, its services and
admins, and evicts another user's only where that user holds more. A topic counts against the party that owns it, the first that
published to it, or the first trusted one. A message counts against its publisher, also in another party's topic.

A party that has to give up a topic gives up its own history only. While a lighter party of the same kind (user, or trusted) has
messages in the topic, the topic passes to that party, and its epoch and its seq continue.
"""

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from app.realtime.log import Appended, Head, Message, NoSequenceStore, Page, SequenceStore
from app.realtime.log.publishers import Publisher, Publishers
from app.realtime.log.shares import Shares
from app.realtime.topics import matches

MAX_TOTAL_BYTES = 268_435_456
MAX_IDS = 100_000
ENVELOPE_BYTES = 256  # what a message costs beside its payload, so that empty payloads count too
LOOKED_AT = 16  # topics of a party that has to give up one; a topic in which only that party published goes first


@dataclass(frozen=True, slots=True)
class Retention:
    """What a topic remembers. `max_age_ms` None means for ever."""

    max_messages: int
    max_bytes: int
    max_age_ms: int | None = None


@dataclass(slots=True)
class _Topic:
    """`guests` are the publishers, by seq, of the messages that are not the owner's."""

    name: str
    epoch: str
    seq: int
    keep: Retention
    is_numbered: bool
    owner: Publisher
    published_at: int = 0
    bytes: int = 0
    messages: deque[Message] = field(default_factory=deque)
    guests: dict[int, Publisher] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return self.seq - len(self.messages) + 1


class MemoryTopicLog:
    """`retention` are pairs of a pattern and what its topics keep; the first that matches counts, else the limits for all."""

    def __init__(
        self,
        *,
        max_messages: int,
        max_bytes: int,
        max_topics: int,
        max_age_ms: int | None = None,
        retention: Sequence[tuple[str, Retention]] = (),
        max_total_bytes: int = MAX_TOTAL_BYTES,
        max_ids: int = MAX_IDS,
        sequences: SequenceStore | None = None,
    ):
        self._sequences = sequences or NoSequenceStore()
        self._keep_by_default = Retention(max_messages, max_bytes, max_age_ms)
        self._retention = retention
        self._topics: dict[str, _Topic] = {}
        self._topic_shares = Shares(max_topics)
        self._byte_shares = Shares(max_total_bytes)
        self._publishers = Publishers(self._topic_shares, self._byte_shares, Shares(max_ids))
        self._name = secrets.token_urlsafe(8)
        self._forgotten = 0
        self._listener: Callable[[Message], None] = lambda message: None
        self._unannounced: deque[Message] = deque()
        self._is_announcing = False

    def append(
        self, topic: str, payload: bytes, now: int, id: str | None = None, user: str | None = None, is_trusted: bool = False
    ) -> Appended:
        publisher = self._publishers.get(user, is_trusted)
        if id is not None and (first := self._publishers.first_answer(publisher, topic, id)):
            self._publishers.leave(publisher)
            return Appended(first.seq, first.epoch, duplicate=True)
        entry = self._next(topic, publisher)
        if entry.is_numbered and not self._sequences.record(topic, entry.epoch, entry.seq, now, publisher.mark):
            self._leave_the_sequences()
            publisher = self._publishers.get(user, is_trusted)
            entry = self._next(topic, publisher)
        entry.published_at = now
        message = Message(topic, entry.epoch, entry.seq, id or f"{entry.epoch}:{entry.seq}", now, payload, user)
        appended = Appended(message.seq, message.epoch)
        self._keep(entry, message, publisher)
        if id is not None:
            self._publishers.remember(publisher, topic, id, appended)
        self._announce(message)
        return appended

    def read(self, topic: str, after: int, limit: int) -> Page:
        entry = self._topics.get(topic)
        if entry is None:
            epoch, seq = self._begins(topic)
            return Page(epoch, [], (after + 1, seq) if after < seq else None)
        begin = max(0, after - entry.first + 1)
        end = min(begin + limit, len(entry.messages))
        gone = (after + 1, entry.first - 1) if after + 1 < entry.first else None
        return Page(entry.epoch, [entry.messages[index] for index in range(begin, end)], gone)

    def head(self, topic: str) -> Head:
        entry = self._topics.get(topic)
        if entry is None:
            epoch, seq = self._begins(topic)
            return Head(seq, epoch, seq + 1)
        return Head(entry.seq, entry.epoch, entry.first)

    def listen(self, listener: Callable[[Message], None]) -> None:
        self._listener = listener

    def tidy(self, now: int) -> None:
        """Let go of what is too old. To be called every few seconds."""
        for entry in list(self._topics.values()):
            age = entry.keep.max_age_ms
            if age is None:
                continue
            while entry.messages and entry.messages[0].ts <= now - age:
                self._drop_oldest(entry)
            if entry.published_at <= now - 2 * age:
                self._forget(entry)

    def stored_positions(self) -> dict[str, tuple[str, int]]:
        """The topics whose numbering continues: (epoch, seq)."""
        return self._sequences.positions()

    @property
    def is_certain(self) -> bool:
        """See SequenceStore."""
        return self._sequences.is_certain

    def remember_answer(self, topic: str, epoch: str, seq: int, id: str, user: str | None) -> None:
        """What a process before this one answered to this id, so that a repeated publish gets it again."""
        publisher = self._publishers.get(user, is_trusted=False)
        if self._publishers.first_answer(publisher, topic, id) is None:
            self._publishers.remember(publisher, topic, id, Appended(seq, epoch))

    def restart_epochs(self) -> None:
        """Every topic that `sequences` keep begins in an epoch that was never there, also not in a process that this one was copied
        from."""
        self._name = secrets.token_urlsafe(8)
        self._sequences.restart_epochs()
        self._forget_numbered()

    def counts(self) -> dict[str, int]:
        totals = {"topics": self._topic_shares.total, "bytes": self._byte_shares.total}
        return {**totals, **self._publishers.counts()}

    def _keep_of(self, topic: str) -> Retention:
        return next((keep for pattern, keep in self._retention if matches(pattern, topic)), self._keep_by_default)

    def _next(self, topic: str, publisher: Publisher) -> _Topic:
        entry = self._topics.get(topic)
        if entry is None:
            entry = self._topics[topic] = _Topic(
                topic, *self._begins(topic), self._keep_of(topic), self._sequences.covers(topic), publisher
            )
            publisher.owned[topic] = None
            publisher.topics.change(1)
            self._make_room_for_topics(entry)
        elif publisher.is_trusted and not entry.owner.is_trusted:
            self._hand_over(entry, publisher)
            self._make_room_for_topics(entry)
        entry.owner.owned.move_to_end(topic)
        entry.seq += 1
        return entry

    def _leave_the_sequences(self) -> None:
        """Another process may continue from them: each of their topics begins in a new epoch, as a forgotten one does."""
        self._sequences = NoSequenceStore()
        self._forget_numbered()

    def _forget_numbered(self) -> None:
        for entry in [entry for entry in self._topics.values() if entry.is_numbered]:
            self._forget(entry)

    def _begins(self, topic: str) -> tuple[str, int]:
        """(epoch, seq) that a topic continues from which is not remembered. A new epoch is another one whenever a topic was
        forgotten, so none begins twice in the same."""
        return self._sequences.position(topic) or (f"{self._name}.{self._forgotten}", 0)

    def _keep(self, entry: _Topic, message: Message, publisher: Publisher) -> None:
        entry.messages.append(message)
        if publisher is not entry.owner:
            entry.guests[message.seq] = publisher
            publisher.is_guest_in(entry.name)
        self._count(entry, publisher, _size(message))
        keep = entry.keep
        while len(entry.messages) > 1 and (len(entry.messages) > keep.max_messages or entry.bytes > keep.max_bytes):
            self._drop_oldest(entry)
        if self._byte_shares.is_over():
            self._make_room_for_bytes(entry)

    def _make_room_for_topics(self, current: _Topic) -> None:
        """Ends: each step forgets a topic, or passes one to a party that then still holds less than the one that gave it up."""
        shares = self._topic_shares
        while shares.is_over() and any(self._gives_up_a_topic(loser, current, _holds_less) for loser in shares.losers()):
            pass

    def _make_room_for_bytes(self, current: _Topic) -> None:
        """Ends: each step forgets messages, or takes a topic from the party that holds most bytes, which no step gives back."""
        shares = self._byte_shares
        while shares.is_over() and any(self._takes_bytes_of(loser, current) for loser in shares.losers()):
            pass

    def _gives_up_a_topic(self, loser: Publisher, current: _Topic, may_inherit: Callable[[Publisher, Publisher], bool]) -> bool:
        """Of those published to least recently, but never the one that is published to right now. `may_inherit(heir, loser)`."""
        entries = [self._topics[name] for name in islice(loser.owned, LOOKED_AT) if name != current.name]
        if not entries:
            return False
        if alone := next((entry for entry in entries if not entry.guests), None):
            self._forget(alone)
            return True
        for entry in entries:
            peers = [guest for guest in dict.fromkeys(entry.guests.values()) if guest.is_trusted is loser.is_trusted]
            if heirs := [guest for guest in peers if may_inherit(guest, loser)]:
                self._hand_over(entry, min(heirs, key=_topics_held))
                return True
        self._forget(entries[0])
        return True

    def _takes_bytes_of(self, loser: Publisher, current: _Topic) -> bool:
        """A topic of its own; else its oldest message in a topic of another, with those before it; last the topic that is published
        to right now, but for its newest message."""
        if self._gives_up_a_topic(loser, current, _any_party):
            return True
        entry = self._topics[next((topic for topic in loser.guest_in if topic != current.name), current.name)]
        before = self._byte_shares.total
        while len(entry.messages) > (entry is current):
            if self._drop_oldest(entry) is loser:
                break
        return self._byte_shares.total < before

    def _forget(self, entry: _Topic) -> None:
        while entry.guests:
            self._drop_oldest(entry)
        entry.owner.bytes.change(-entry.bytes)
        entry.owner.topics.change(-1)
        del self._topics[entry.name], entry.owner.owned[entry.name]
        self._publishers.leave(entry.owner)
        self._forgotten += 1

    def _hand_over(self, entry: _Topic, owner: Publisher) -> None:
        """The topic counts against `owner` from now on; what the owner before published there still counts against that one."""
        before, entry.owner = entry.owner, owner
        before.topics.change(-1)
        owner.topics.change(1)
        owner.owned[entry.name] = before.owned.pop(entry.name)
        owner.guest_in.pop(entry.name, None)
        for message in entry.messages:
            publisher = entry.guests.get(message.seq, before)
            if publisher is owner:
                del entry.guests[message.seq]
            elif publisher is before:
                entry.guests[message.seq] = before
                before.is_guest_in(entry.name)
        self._publishers.leave(before)

    def _drop_oldest(self, entry: _Topic) -> Publisher:
        """Returns the publisher whose message it was."""
        message = entry.messages.popleft()
        publisher = entry.guests.pop(message.seq, entry.owner) if entry.guests else entry.owner
        self._count(entry, publisher, -_size(message))
        if publisher is not entry.owner:
            publisher.is_guest_no_more_in(entry.name)
            self._publishers.leave(publisher)
        return publisher

    def _count(self, entry: _Topic, publisher: Publisher, size: int) -> None:
        entry.bytes += size
        publisher.bytes.change(size)

    def _announce(self, message: Message) -> None:
        """One at a time: a message that is appended while another is announced waits its turn."""
        self._unannounced.append(message)
        if self._is_announcing:
            return
        self._is_announcing = True
        try:
            while self._unannounced:
                self._listener(self._unannounced.popleft())
        finally:
            self._is_announcing = False


def _size(message: Message) -> int:
    return ENVELOPE_BYTES + len(message.payload)


def _holds_less(heir: Publisher, loser: Publisher) -> bool:
    """Also after one topic has passed from one to the other."""
    return heir.topics.amount + 1 < loser.topics.amount


def _any_party(_heir: Publisher, _loser: Publisher) -> bool:
    """A topic that passes takes no bytes with it."""
    return True


def _topics_held(publisher: Publisher) -> int:
    return publisher.topics.amount
