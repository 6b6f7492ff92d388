"""The topic log of one process, gone when it ends.

Everything in it is bounded. A topic that is over its count or its bytes loses its oldest messages (the newest one
always stays). Over the number of topics, or the bytes of all together, the topic that was published to least recently
is forgotten whole; when it comes back it starts at seq 1 in another epoch, and whoever resumes is told so. Of the
message ids that make a repeated publish harmless the oldest is forgotten first: a retry that comes later than
`max_ids` other messages is a new message.
"""

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from app.realtime.log import Appended, Head, Message, Page

MAX_TOTAL_BYTES = 268_435_456
MAX_IDS = 100_000
ENVELOPE_BYTES = 256  # what a message costs beside its payload, so that empty payloads count too


@dataclass(slots=True)
class _Topic:
    epoch: str
    seq: int = 0
    bytes: int = 0
    messages: deque[Message] = field(default_factory=deque)

    @property
    def first(self) -> int:
        return self.seq - len(self.messages) + 1


class MemoryTopicLog:
    def __init__(
        self, *, max_messages: int, max_bytes: int, max_topics: int, max_total_bytes: int = MAX_TOTAL_BYTES, max_ids: int = MAX_IDS
    ):
        self._max_messages = max_messages
        self._max_bytes = max_bytes
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
        entry = self._topics.get(topic)
        if entry is None:
            entry = self._topics[topic] = _Topic(self._next_epoch)
        self._topics.move_to_end(topic)
        entry.seq += 1
        message = Message(topic, entry.epoch, entry.seq, id or f"{entry.epoch}:{entry.seq}", now, payload)
        appended = Appended(message.seq, message.epoch)
        self._keep(entry, message)
        if id is not None:
            self._remember((topic, user, id), appended)
        self._announce(message)
        return appended

    def read(self, topic: str, after: int, limit: int) -> Page:
        entry = self._topics.get(topic)
        if entry is None:
            return Page(self._next_epoch, [])
        skip = max(0, after - entry.first + 1)
        gone = (after + 1, entry.first - 1) if after + 1 < entry.first else None
        return Page(entry.epoch, list(islice(entry.messages, skip, skip + limit)), gone)

    def head(self, topic: str) -> Head:
        entry = self._topics.get(topic)
        return Head(entry.seq, entry.epoch, entry.first) if entry else Head(0, self._next_epoch, 1)

    def listen(self, listener: Callable[[Message], None]) -> None:
        self._listener = listener

    @property
    def _next_epoch(self) -> str:
        """The epoch of a topic that begins now. It changes whenever one is forgotten, so none begins twice in the same."""
        return f"{self._name}.{self._forgotten}"

    def _keep(self, entry: _Topic, message: Message) -> None:
        entry.messages.append(message)
        self._count(entry, _size(message))
        while len(entry.messages) > 1 and (len(entry.messages) > self._max_messages or entry.bytes > self._max_bytes):
            self._count(entry, -_size(entry.messages.popleft()))
        while len(self._topics) > 1 and (len(self._topics) > self._max_topics or self._bytes > self._max_total_bytes):
            _, idle = self._topics.popitem(last=False)
            self._bytes -= idle.bytes
            self._forgotten += 1

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
