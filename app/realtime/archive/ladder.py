"""What happens to messages of durable topics, on one screen: MongoDB, else the disk, else memory as far as it goes.

Publishing never waits for it. A message waits in memory for the next round, at most FLUSH_S later, and goes to MongoDB in
batches. While MongoDB is away, or older ones still wait on disk, it goes to the disk, so that each topic's messages arrive in
their order, or MongoDB is slower than those who publish; where the disk does not take it either it stays in memory, up to
`max_bytes`. Beyond that the oldest is dropped and counted, and a replay over that place says `history_gap`.

What kill -9 takes with it is what was published since the last round, which is FLUSH_S and the MONGO_TIMEOUT_MS that MongoDB
is given to fail.
"""

from collections import deque

from app.breaker import Breaker
from app.clock import Clock
from app.logs import get_logger
from app.realtime.archive.mongo import MongoMessages, StoreUnavailable
from app.realtime.archive.spool import MessageSpool
from app.realtime.log import Message
from app.spool.writer import SpoolFull, SpoolUnavailable

log = get_logger(__name__)

FLUSH_S = 0.2
BATCH = 200  # encoding so many takes a millisecond or two, in which nobody else has a turn
ENVELOPE_BYTES = 256


class Ladder:
    def __init__(self, store: MongoMessages, spool: MessageSpool, max_bytes: int, clock: Clock, metrics):
        self._store = store
        self._spool = spool
        self._max_bytes = max_bytes
        self._clock = clock
        self._fates = metrics.realtime_archived_total
        self._backlog = metrics.realtime_archive_backlog_bytes
        self._bytes = 0
        self._breaker = Breaker()
        self._lacks_room = False
        self._buffer: deque[Message] = deque()

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
        return {message.seq: message for message in self._buffer if (message.topic, message.epoch) == place and message.seq > after}

    def keep(self, message: Message) -> None:
        self._buffer.append(message)
        self._bytes += _size(message)
        while self._bytes > self._max_bytes and len(self._buffer) > 1:
            self._bytes -= _size(self._buffer.popleft())
            self._fates.labels("dropped").inc()

    def save(self) -> None:
        """Everything that waits in memory, down the ladder. It stays until a rung has taken it."""
        while self._buffer:
            batch = [message for message, _ in zip(self._buffer, range(BATCH))]
            rung = self._put(batch)
            if rung is None:
                return
            self._fates.labels(rung).inc(len(batch))
            for message in batch:
                if self._buffer and self._buffer[0] is message:  # else it was dropped meanwhile
                    self._bytes -= _size(self._buffer.popleft())

    def _put(self, batch: list[Message]) -> str | None:
        is_behind = self._bytes > self._max_bytes // 2
        if not is_behind and self._store_at_once(batch):
            return "stored"
        if self._spool_it(batch):
            return "spooled"
        return "stored" if is_behind and self._store_at_once(batch) else None

    def _store_at_once(self, batch: list[Message]) -> bool:
        return self._spool.is_empty() and self._breaker.lets_through(self._clock()) and self._insert(batch)

    def _spool_it(self, batch: list[Message]) -> bool:
        try:
            self._spool.append(batch)
        except (SpoolFull, SpoolUnavailable) as error:
            if not self._lacks_room:
                log.error("archive_has_no_room", error=str(error), messages_wait_in="memory")
            self._lacks_room = True
            return False
        self._lacks_room = False
        return True

    def move(self) -> bool:
        """The next from the disk into MongoDB; True where there may be more."""
        try:
            self._backlog.set(self._spool.waiting_bytes())
            if self._spool.is_empty() or not self._breaker.lets_through(self._clock()):
                return False
            chunk = self._spool.next_chunk(BATCH)
        except OSError as error:
            log.error("archive_unreadable", error=str(error))
            return False
        if chunk is None or not self._insert(chunk.messages):
            return False
        self._spool.moved(chunk)
        self._fates.labels("stored").inc(len(chunk.messages))
        return True

    def _insert(self, messages: list[Message]) -> bool:
        """False where MongoDB is away; then it is left alone for a moment."""
        try:
            self._store.insert(messages, self._clock())
        except StoreUnavailable as error:
            if self._breaker.failed(self._clock()):
                log.warning("archive_unavailable", error=str(error)[:300], messages_go_to="disk")
            return False
        if self._breaker.succeeded():
            log.info("archive_available")
        return True


def _size(message: Message) -> int:
    return ENVELOPE_BYTES + len(message.payload)
