"""The topic log of one process, gone when it ends.

Everything in it is bounded. A topic that is over its count or its bytes loses its oldest messages (the newest one
always stays), and at the next `tidy` those over its age; one to which nobody published for twice that long is
forgotten whole. So is, over the number of topics or the bytes of all together, the topic that was published to least
recently. A forgotten topic starts at seq 1 in another epoch when it comes back, and whoever resumes is told so; one that
`numbers` keep goes on in its epoch, with what was forgotten gone. Of the message ids that make a repeated publish
harmless the oldest is forgotten first: a retry that comes later than `max_ids` other messages is a new message.
"""

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.realtime.log import Appended, Head, Message, NoNumbers, Numbers, Page
from app.realtime.topics import matches

MAX_TOTAL_BYTES = 268_435_456
MAX_IDS = 100_000
ENVELOPE_BYTES = 256  # what a message costs beside its payload, so that empty payloads count too


@dataclass(frozen=True, slots=True)
class Keep:
    """What a topic remembers. `max_age_ms` None means for ever."""

    max_messages: int
    max_bytes: int
    max_age_ms: int | None = None


@dataclass(slots=True)
class _Topic:
    epoch: str
    seq: int
    keep: Keep
    is_numbered: bool
    published_at: int = 0
    bytes: int = 0
    messages: deque[Message] = field(default_factory=deque)

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
        retention: Sequence[tuple[str, Keep]] = (),
        max_total_bytes: int = MAX_TOTAL_BYTES,
        max_ids: int = MAX_IDS,
        numbers: Numbers | None = None,
    ):
        self._numbers = numbers or NoNumbers()
        self._keep_by_default = Keep(max_messages, max_bytes, max_age_ms)
        self._retention = retention
        self._max_topics = max_topics
        self._max_total_bytes = max_total_bytes
        self._max_ids = max_ids
        self._topics: OrderedDict[str, _Topic] = OrderedDict()  # the least recently published one first
        self._bytes = 0
        self._answers: OrderedDict[tuple[str, str | None, str], Appended] = OrderedDict()
        self._name = secrets.token_urlsafe(8)
        self._forgotten = 0
        self._listener: Callable[[Message], None] = lambda message: None
        self._unannounced: deque[Message] = deque()
        self._is_announcing = False

    def append(self, topic: str, payload: bytes, now: int, id: str | None = None, user: str | None = None) -> Appended:
        if id is not None and (first := self._answers.get((topic, user, id))):
            return Appended(first.seq, first.epoch, duplicate=True)
        entry = self._next(topic)
        if entry.is_numbered and not self._numbers.note(topic, entry.epoch, entry.seq, now):
            self._leave_the_numbers()
            entry = self._next(topic)
        entry.published_at = now
        message = Message(topic, entry.epoch, entry.seq, id or f"{entry.epoch}:{entry.seq}", now, payload, user)
        appended = Appended(message.seq, message.epoch)
        self._keep(entry, message)
        if id is not None:
            self._remember((topic, user, id), appended)
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
        """Let go of what is too old. To be called now and then."""
        for topic, entry in list(self._topics.items()):
            age = entry.keep.max_age_ms
            if age is None:
                continue
            while entry.messages and entry.messages[0].ts <= now - age:
                self._count(entry, -_size(entry.messages.popleft()))
            if entry.published_at <= now - 2 * age:
                self._forget(topic)

    def _keep_of(self, topic: str) -> Keep:
        return next((keep for pattern, keep in self._retention if matches(pattern, topic)), self._keep_by_default)

    def _next(self, topic: str) -> _Topic:
        entry = self._topics.get(topic)
        if entry is None:
            entry = self._topics[topic] = _Topic(*self._begins(topic), self._keep_of(topic), self._numbers.keeps(topic))
        self._topics.move_to_end(topic)
        entry.seq += 1
        return entry

    def _leave_the_numbers(self) -> None:
        """Somebody else may go on from them: every topic of theirs begins in a new epoch, as a forgotten one does."""
        self._numbers = NoNumbers()
        for topic in [topic for topic, entry in self._topics.items() if entry.is_numbered]:
            self._forget(topic)

    def _forget(self, topic: str) -> None:
        self._bytes -= self._topics.pop(topic).bytes
        self._forgotten += 1

    def _begins(self, topic: str) -> tuple[str, int]:
        """(epoch, seq) that a topic goes on from which is not remembered. A new epoch is another one whenever a topic was
        forgotten, so none begins twice in the same."""
        return self._numbers.last(topic) or (f"{self._name}.{self._forgotten}", 0)

    def _keep(self, entry: _Topic, message: Message) -> None:
        entry.messages.append(message)
        self._count(entry, _size(message))
        keep = entry.keep
        while len(entry.messages) > 1 and (len(entry.messages) > keep.max_messages or entry.bytes > keep.max_bytes):
            self._count(entry, -_size(entry.messages.popleft()))
        while len(self._topics) > 1 and (len(self._topics) > self._max_topics or self._bytes > self._max_total_bytes):
            self._forget(next(iter(self._topics)))

    def _count(self, entry: _Topic, size: int) -> None:
        entry.bytes += size
        self._bytes += size

    def _remember(self, key: tuple[str, str | None, str], appended: Appended) -> None:
        self._answers[key] = appended
        if len(self._answers) > self._max_ids:
            self._answers.popitem(last=False)

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
