"""What happens to messages of durable topics, on one screen: MongoDB, else the disk, else memory as far as it goes.

Publishing never waits for it. A message waits in memory for the next round, at most FLUSH_S later, and goes to MongoDB in
batches. While MongoDB is away, or older ones still wait on disk, it goes to the disk, so that each topic's messages arrive in
their order; where the disk does not take it either it stays in memory, up to `max_bytes`. Beyond that the oldest is dropped and
counted, and a replay over that place says `history_gap`.

What kill -9 takes with it is what was published since the last round, or in the 1.5 s that MongoDB is given to fail.
"""

from collections import deque
from collections.abc import Callable

import gevent
from gevent.event import Event

from app.breaker import Breaker
from app.clock import Clock
from app.logs import get_logger
from app.realtime.archive.mongo import MongoMessages, StoreUnavailable
from app.realtime.archive.spool import MessageSpool
from app.realtime.log import Message
from app.realtime.topics import matches
from app.spool.writer import SpoolFull, SpoolUnavailable

log = get_logger(__name__)

FLUSH_S = 0.2
BATCH = 500
ENVELOPE_BYTES = 256


class DurableArchive:
    def __init__(self, store: MongoMessages, spool: MessageSpool, patterns: tuple[str, ...], max_bytes: int, clock: Clock, metrics):
        self._store = store
        self._spool = spool
        self._patterns = patterns
        self._max_bytes = max_bytes
        self._clock = clock
        self._fates = metrics.realtime_archived_total
        self._backlog = metrics.realtime_archive_backlog_bytes
        self._buffer: deque[Message] = deque()
        self._bytes = 0
        self._breaker = Breaker()

    def keep(self, message: Message) -> None:
        if not self.keeps(message.topic):
            return
        self._buffer.append(message)
        self._bytes += _size(message)
        while self._bytes > self._max_bytes and len(self._buffer) > 1:
            self._bytes -= _size(self._buffer.popleft())
            self._fates.labels("dropped").inc()

    def keeps(self, topic: str, epoch: str = "", after: int = 0) -> bool:
        return any(matches(pattern, topic) for pattern in self._patterns)

    def run(self, stop: Event) -> None:
        """The background task. What is in memory when it is told to stop is put somewhere."""
        while not stop.wait(FLUSH_S):
            self.save()
            while self.move() and not stop.is_set():
                self.save()
        self.save()
        self._spool.close()

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
        if self._spool.is_empty() and self._breaker.lets_through(self._clock()) and self._insert(batch):
            return "stored"
        try:
            self._spool.append(batch)
            return "spooled"
        except (SpoolFull, SpoolUnavailable) as error:
            log.error("archive_has_no_room", error=str(error), waiting=len(self._buffer))
            return None

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

    # Replays

    def fetch(self, topic: str, epoch: str, after: int, last: int, then: Callable[[list[Message] | None, int], None]) -> None:
        gevent.spawn(self._fetch, topic, epoch, after, last, then)

    def _fetch(self, topic: str, epoch: str, after: int, last: int, then) -> None:
        """In the order in which messages move on, so that none is missed that moves meanwhile."""
        own = {message.seq: message for message in self._buffer if (message.topic, message.epoch) == (topic, epoch) and message.seq > after}
        try:
            if self._breaker.is_open:
                raise StoreUnavailable("it has just failed")
            found = {seq: message for seq, message in own.items() if seq <= last} | self._spool.find(topic, epoch, after, last)
            found |= {message.seq: message for message in self._store.find(topic, epoch, after, last)}
            nothing: list[Message] | None = []
        except StoreUnavailable as error:
            log.warning("archive_not_read", error=str(error)[:300], topic=topic)
            found, nothing = own | self._spool.find(topic, epoch, after), None
        messages = [found[seq] for seq in sorted(found)][: last - after]
        then(messages or nothing, self._clock())

    def check(self) -> dict:
        backlog = self._spool.waiting_bytes()
        return {**({"state": "degraded"} if backlog else {}), "archiveWaiting": len(self._buffer), "archiveSpooledBytes": backlog}


def _size(message: Message) -> int:
    return ENVELOPE_BYTES + len(message.payload)
