"""The durable topics in MongoDB: for replays that reach further back than the log, and for whoever asks later what was said.

Publishing never waits for it. A message goes into a buffer, and from there to MongoDB in batches. While MongoDB is away
the buffer grows up to `max_bytes`; then the oldest message in it is dropped and counted, and a replay over that place
says `history_gap`. What is in the buffer when the process is killed is lost to the archive, which is why the numbering of
a restarted process is a new epoch and does not go on from here.
"""

from collections import deque
from collections.abc import Callable

import gevent
from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError

from app.clock import Clock, to_datetime, to_ms
from app.logs import get_logger
from app.realtime.log import Message
from app.realtime.topics import matches

log = get_logger(__name__)

COLLECTION = "realtime_messages"
BATCH = 500
ENVELOPE_BYTES = 256
DUPLICATE_KEY = 11000
FIRST_REST_MS = 500
LONGEST_REST_MS = 8000


class MongoArchive:
    def __init__(self, database: Database, patterns: tuple[str, ...], max_bytes: int, clock: Clock, metrics):
        self._collection = database[COLLECTION]
        self._patterns = patterns
        self._max_bytes = max_bytes
        self._clock = clock
        self._fates = metrics.realtime_archived_total
        self._buffer: deque[Message] = deque()
        self._bytes = 0
        self._rest_ms = 0
        self._rest_until = 0

    def keep(self, message: Message) -> None:
        if not self._is_durable(message.topic):
            return
        self._buffer.append(message)
        self._bytes += _size(message)
        while self._bytes > self._max_bytes and len(self._buffer) > 1:
            self._bytes -= _size(self._buffer.popleft())
            self._fates.labels("dropped").inc()

    def keeps(self, topic: str, epoch: str, after: int) -> bool:
        return self._is_durable(topic)

    def flush(self) -> None:
        """Store what waits, unless MongoDB has just failed. It stays in the buffer until it is stored; `_id` makes twice harmless."""
        if self._clock() < self._rest_until:
            return
        while self._buffer:
            batch = [message for message, _ in zip(self._buffer, range(BATCH))]
            try:
                self._store(batch)
            except PyMongoError as error:
                self._rest(error)
                return
            self._rest_ms = 0
            self._fates.labels("stored").inc(len(batch))
            for message in batch:
                if self._buffer and self._buffer[0] is message:  # else it was dropped while MongoDB took its time
                    self._bytes -= _size(self._buffer.popleft())

    def fetch(self, topic: str, epoch: str, after: int, last: int, then: Callable[[list[Message] | None, int], None]) -> None:
        gevent.spawn(self._fetch, topic, epoch, after, last, then)

    def check(self) -> dict:
        return {"archiveWaiting": len(self._buffer)}

    def _fetch(self, topic, epoch, after, last, then) -> None:
        waiting = {message.seq: message for message in self._buffer if message.topic == topic and message.epoch == epoch}
        try:
            found = list(self._collection.find({"topic": topic, "epoch": epoch, "seq": {"$gt": after, "$lte": last}}).sort("seq", 1))
        except PyMongoError as error:
            log.warning("archive_unavailable", error=str(error)[:300])
            then(None, self._clock())
            return
        messages = {document["seq"]: _to_message(document) for document in found}
        messages |= {seq: message for seq, message in waiting.items() if after < seq <= last}
        then([messages[seq] for seq in sorted(messages)], self._clock())

    def _store(self, batch: list[Message]) -> None:
        now = to_datetime(self._clock())
        try:
            self._collection.insert_many([_to_document(message, now) for message in batch], ordered=False)
        except BulkWriteError as error:
            if any(problem.get("code") != DUPLICATE_KEY for problem in error.details.get("writeErrors", ())):
                raise

    def _rest(self, error: PyMongoError) -> None:
        self._rest_ms = min(self._rest_ms * 2, LONGEST_REST_MS) or FIRST_REST_MS
        self._rest_until = self._clock() + self._rest_ms
        log.warning("archive_unavailable", error=str(error)[:300], waiting=len(self._buffer))

    def _is_durable(self, topic: str) -> bool:
        return any(matches(pattern, topic) for pattern in self._patterns)


def _to_document(message: Message, now) -> dict:
    """The payload as its JSON text: any JSON can be stored so, also what BSON has no form for."""
    return {
        "_id": f"{message.topic} {message.epoch} {message.seq}",
        "topic": message.topic,
        "epoch": message.epoch,
        "seq": message.seq,
        "id": message.id,
        "ts": to_datetime(message.ts),
        "payload": message.payload.decode(),
        "createdAt": now,
    }


def _to_message(document: dict) -> Message:
    payload = document["payload"].encode()
    return Message(document["topic"], document["epoch"], document["seq"], document["id"], to_ms(document["ts"]), payload)


def _size(message: Message) -> int:
    return ENVELOPE_BYTES + len(message.payload)
