"""What happens to messages of durable topics, on one screen: MongoDB, else the disk, else memory as far as it goes.

Publishing never waits for it, except while the process ends. A message waits in memory for the next round, at most FLUSH_S later,
and goes to MongoDB in batches. It goes to the disk while MongoDB is away, while older ones still wait on disk, so that each
topic's messages arrive in their order, and where it has waited for longer than LATE_MS or memory fills up, because MongoDB is slower
than the publishers; where the disk does not take it either it stays in memory, up to `max_bytes`. Beyond that the oldest is
dropped and counted, and a replay over that place says `history_gap`.

The invariants:
- Age. While the disk takes what it is given, a message is in memory alone for at most LATE_MS and the MONGO_TIMEOUT_MS that
  MongoDB is given to answer, however slow it is. That is what kill -9 can cost.
- Order of ending. Once `is_closing` is set, what is saved goes to the disk first, and no publish is answered before a save.
- Before the first message goes to MongoDB, `before_first` has returned.
- Nothing waits behind a message that MongoDB will never take: it goes to a file of its own with the reason (refused_messages.py).
- A place names one message. A message whose place is taken by another one is stored under an epoch of its own.
"""

from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from gevent.lock import RLock

from app.clock import Clock
from app.logs import get_logger
from app.realtime.archive.mongo import MongoMessages, NotStored
from app.realtime.archive.refused_messages import RefusedMessages
from app.realtime.archive.spool import MessageSpool
from app.realtime.log import Message
from app.storage.circuit_breaker import Breaker
from app.storage.errors import StorageUnavailable

log = get_logger(__name__)

FLUSH_S = 0.2
LATE_MS = 300  # a round and a little more, so that a round that begins late does not send everything to the disk
BATCH = 200  # encoding so many takes a millisecond or two, in which nobody else has a turn
ENVELOPE_BYTES = 256
APART = "~"  # in the epoch of a message whose place is another one's; in no other epoch
STRANGE_ATTEMPTS = 5  # at a message to which MongoDB has an objection that nobody foresaw


class _Waiting(NamedTuple):
    message: Message
    since: int


class Ladder:
    """`steady` counts milliseconds that no one sets, for ages and pauses. `before_first` is called before the first message goes to
    MongoDB and raises StorageUnavailable where that may not be yet; `on_taken` gets a message whose place is another one's."""

    def __init__(
        self, store: MongoMessages, spool: MessageSpool, refused: RefusedMessages, max_bytes: int, clock: Clock, steady: Clock, metrics
    ):
        self._store = store
        self._spool = spool
        self._refused = refused
        self._max_bytes = max_bytes
        self._clock = clock
        self._steady = steady
        self._fates = metrics.realtime_archived_total
        self._backlog = metrics.realtime_archive_backlog_bytes
        self._bytes = 0
        self._breaker = Breaker()
        self._lacks_room = False
        self._strange_attempts = 0
        self._buffer: deque[_Waiting] = deque()
        self._lock = RLock()
        self.is_closing = False
        self.before_first: Callable[[], None] | None = None
        self.on_taken: Callable[[Message], None] = lambda message: None

    def __len__(self) -> int:
        """Messages that are in memory alone."""
        return len(self._buffer)

    @property
    def is_resting(self) -> bool:
        """MongoDB has failed, and is left alone."""
        return self._breaker.is_open

    def waiting(self, topic: str, epoch: str, after: int) -> dict[int, Message]:
        """By seq: what is in memory of it."""
        place = (topic, epoch)
        return {message.seq: message for message, _ in self._buffer if (message.topic, message.epoch) == place and message.seq > after}

    def add(self, message: Message) -> None:
        self._buffer.append(_Waiting(message, self._steady()))
        self._bytes += _size(message)
        while self._bytes > self._max_bytes and len(self._buffer) > 1:
            self._bytes -= _size(self._buffer.popleft().message)
            self._fates.labels("dropped").inc()

    def save(self) -> None:
        """Everything that waits in memory, down the ladder. It stays until a rung has taken it."""
        with self._lock:
            while self._buffer:
                batch = [waiting for waiting, _ in zip(self._buffer, range(BATCH))]
                if not self._put([message for message, _ in batch]):
                    return
                for waiting in batch:
                    if self._buffer and self._buffer[0] is waiting:  # else it was dropped meanwhile
                        self._bytes -= _size(self._buffer.popleft().message)

    def _put(self, batch: list[Message]) -> bool:
        """True where a rung has taken it."""
        is_for_disk = self.is_closing or self._is_behind()
        if not is_for_disk and self._store_at_once(batch):
            return True
        return self._spool_it(batch) or (is_for_disk and self._store_at_once(batch))

    def _is_behind(self) -> bool:
        return self._steady() - self._buffer[0].since > LATE_MS or self._bytes > self._max_bytes // 2

    def _store_at_once(self, batch: list[Message]) -> bool:
        return self._spool.is_empty() and self._breaker.lets_through(self._steady()) and self._insert(batch)

    def _spool_it(self, batch: list[Message]) -> bool:
        try:
            self._spool.append(batch)
        except StorageUnavailable as error:
            if not self._lacks_room:
                log.error("archive_has_no_room", error=str(error), messages_wait_in="memory")
            self._lacks_room = True
            return False
        self._lacks_room = False
        self._fates.labels("spooled").inc(len(batch))
        return True

    def move(self) -> bool:
        """The next from the disk into MongoDB; True where there may be more."""
        try:
            self._backlog.set(self._spool.waiting_bytes())
            if self._spool.is_empty() or not self._breaker.lets_through(self._steady()):
                return False
            chunk = self._spool.next_chunk(BATCH)
        except OSError as error:
            log.error("archive_unreadable", error=str(error))
            return False
        if chunk is None or not self._insert(chunk.messages):
            return False
        self._spool.moved(chunk)
        return True

    def reach(self, step: Callable[[], None]) -> bool:
        """False where MongoDB is away; then it is left alone for a moment."""
        try:
            step()
        except StorageUnavailable as error:
            if self._breaker.failed(self._steady()):
                log.warning("archive_unavailable", error=str(error)[:300], messages_go_to="disk")
            return False
        if self._breaker.succeeded():
            log.info("archive_available")
        return True

    def _insert(self, messages: list[Message]) -> bool:
        """True where none of them has to be inserted again."""
        return self.reach(lambda: self._store_or_put_aside(messages))

    def _store_or_put_aside(self, messages: list[Message]) -> None:
        self.look_first()
        refused = []
        try:
            self._store.insert(messages, self._clock())
        except NotStored as error:
            refused = self._given_up(error)
            if error.taken:
                refused += self._store_apart(error.taken)
            self._put_aside(refused)
        self._strange_attempts = 0
        self._fates.labels("stored").inc(len(messages) - len(refused))

    def look_first(self) -> None:
        """Raises StorageUnavailable."""
        if self.before_first is not None:
            self.before_first()
            self.before_first = None

    def _given_up(self, error: NotStored) -> list[tuple[Message, str]]:
        """Raises StorageUnavailable where another attempt may help."""
        if error.unforeseen:
            self._strange_attempts += 1
            if self._strange_attempts < STRANGE_ATTEMPTS:
                raise StorageUnavailable(error.unforeseen[0][1])
        return error.refused + error.unforeseen

    def _store_apart(self, taken: list[Message]) -> list[tuple[Message, str]]:
        """Returns those that are refused there, too. The epoch is made of the message, so that doing it again changes nothing."""
        first = taken[0]
        log.error("archive_place_taken", topic=first.topic, epoch=first.epoch, seq=first.seq, messages=len(taken), stored_under="epochs~")
        self.on_taken(first)
        try:
            self._store.insert([message._replace(epoch=f"{message.epoch}{APART}{_digest(message)}") for message in taken], self._clock())
        except NotStored as error:
            return error.refused + error.unforeseen
        return []

    def _put_aside(self, refused: list[tuple[Message, str]]) -> None:
        """Raises StorageUnavailable where the disk does not take it: then the others wait rather than that one is lost."""
        if not refused:
            return
        try:
            self._refused.add(refused)
        except OSError as error:
            raise StorageUnavailable(f"a message that it refuses cannot be put aside: {error}") from error
        self._fates.labels("refused").inc(len(refused))


def _size(message: Message) -> int:
    return ENVELOPE_BYTES + len(message.payload)


def _digest(message: Message) -> str:
    return blake2b(repr((message.id, message.user, message.ts, message.payload)).encode(), digest_size=8).hexdigest()
