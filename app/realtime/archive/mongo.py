"""Messages of durable topics as documents. Their `_id` is their place, so that storing one again changes nothing.

The invariant: a place names one message. Where a document stands at a place already, its content is compared: the same message is
stored, another one is reported as `taken`, and neither replaces the other.
"""

from datetime import datetime
from typing import Any, NamedTuple

from bson.errors import InvalidDocument
from pymongo import WriteConcern
from pymongo.database import Database
from pymongo.errors import BulkWriteError, OperationFailure

from app.json_values import to_datetime, to_ms
from app.realtime.log import Message
from app.storage.errors import StorageUnavailable
from app.storage.mongo import answers_understood, driver_errors
from app.storage.mongo_errors import NEVER_TAKEN, Objections, judge

COLLECTION = "realtime_messages"
DURABLE = WriteConcern(w="majority", j=True)  # what is acknowledged is deleted from the disk
PLACES_AT_ONCE = 1000
CONTENT = ("id", "userId", "ts", "payload")


class NotStored(Exception):
    """All others of the same call are stored. `refused` and `unforeseen` are pairs of a message and a reason, see
    app/storage/mongo_errors.py; at the places of those in `taken` other messages stand."""

    def __init__(self, refused=(), unforeseen=(), taken=()):
        super().__init__(f"{len(refused)} refused, {len(unforeseen)} not taken, {len(taken)} at places of others")
        self.refused, self.unforeseen, self.taken = list(refused), list(unforeseen), list(taken)


class Known(NamedTuple):
    """Where the message of a publisher's id stands."""

    topic: str
    epoch: str
    seq: int
    id: str
    user: str | None


class MongoMessages:
    """The collection of archived messages."""

    def __init__(self, database: Database):
        self._collection = database[COLLECTION].with_options(write_concern=DURABLE)

    def insert(self, messages: list[Message], now: int) -> None:
        """All of them are there when it returns. Raises StorageUnavailable; then some may be. Raises NotStored."""
        stored_at = to_datetime(now)
        documents = [_to_document(message, stored_at) for message in messages]
        with driver_errors(), answers_understood():
            found = self._insert(documents)
            taken = self._others_at([documents[index] for index in found.there])
        if found.refused or found.unforeseen or taken:
            raise NotStored(
                [(messages[index], reason) for index, reason in found.refused.items()],
                [(messages[index], reason) for index, reason in found.unforeseen.items()],
                [messages[index] for index in found.there if documents[index]["_id"] in taken],
            )

    def _insert(self, documents: list[dict[str, Any]]) -> Objections:
        """The driver, and the server for a document that is too large, refuse a whole call for one document and do not say for which."""
        try:
            return self._insert_at_once(documents)
        except (InvalidDocument, OverflowError, OperationFailure) as error:
            if isinstance(error, OperationFailure) and error.code not in NEVER_TAKEN:
                raise
            if len(documents) == 1:
                return Objections([], {0: f"it cannot be a document: {str(error)[:300]}"}, {})
            middle = len(documents) // 2
            return _joined(self._insert(documents[:middle]), self._insert(documents[middle:]), middle)

    def _insert_at_once(self, documents: list[dict[str, Any]]) -> Objections:
        try:
            self._collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            for problem in error.details.get("writeConcernErrors", ()):
                raise StorageUnavailable(problem.get("errmsg", "the write concern was not met")) from error
            return judge(error.details.get("writeErrors", ()), self._collection, lambda index: documents[index]["_id"])
        return Objections([], {}, {})

    def _others_at(self, documents: list[dict[str, Any]]) -> set[str]:
        """The places of these at which something else stands."""
        if not documents:
            return set()
        stored = {document["_id"]: document for document in self._collection.find({"_id": {"$in": [each["_id"] for each in documents]}})}
        return {
            document["_id"]
            for document in documents
            if (there := stored.get(document["_id"])) and any(there.get(name) != document[name] for name in CONTENT)
        }

    def find(self, topic: str, epoch: str, after: int, last: int) -> list[Message]:
        """Those with `after` < seq <= `last`, oldest first. Raises StorageUnavailable."""
        place = {"topic": topic, "epoch": epoch, "seq": {"$gt": after, "$lte": last}}
        with driver_errors():
            return [_to_message(document) for document in self._collection.find(place).sort("seq", 1)]

    def count(self, topic: str, epoch: str, after: int, last: int, without: list[int]) -> int:
        """Of those with `after` < seq <= `last` that are not `without`. Raises StorageUnavailable."""
        place = {"topic": topic, "epoch": epoch, "seq": {"$gt": after, "$lte": last, **({"$nin": without} if without else {})}}
        with driver_errors():
            return self._collection.count_documents(place)

    def any_at(self, places: list[tuple[str, str, int]]) -> str | None:
        """One of these (topic, epoch, seq) at which a message stands, as its `_id`. Raises StorageUnavailable."""
        ids = [_id(*place) for place in places]
        with driver_errors():
            for first in range(0, len(ids), PLACES_AT_ONCE):
                found = self._collection.find_one({"_id": {"$in": ids[first : first + PLACES_AT_ONCE]}}, {"_id": 1})
                if found is not None:
                    return found["_id"]
        return None

    def newest(self, limit: int) -> list[Known]:
        """The ones stored last, oldest first. Raises StorageUnavailable."""
        names = ("topic", "epoch", "seq", "id", "userId", "createdAt", "ts")
        with driver_errors(), answers_understood():
            found = self._collection.find({}, dict.fromkeys(names, 1)).sort("createdAt", -1).limit(limit)
            rows = [[document.get(name) for name in names] for document in found]
        ours = [(stored_at, ts, Known(*known)) for *known, stored_at, ts in rows if _is_ours(Known(*known), stored_at, ts)]
        return [known for _, _, known in sorted(ours, key=lambda row: row[:2])]


def _is_ours(known: Known, *times: Any) -> bool:
    """And not of another program, with other values under these names."""
    texts = (known.topic, known.epoch, known.id, known.user or "")
    return type(known.seq) is int and all(isinstance(text, str) for text in texts) and all(isinstance(time, datetime) for time in times)


def _joined(first: Objections, second: Objections, at: int) -> Objections:
    """The places of the second are those behind the first `at` documents."""
    refused, unforeseen = ({at + index: reason for index, reason in reasons.items()} for reasons in (second.refused, second.unforeseen))
    return Objections([*first.there, *(at + index for index in second.there)], first.refused | refused, first.unforeseen | unforeseen)


def _id(topic: str, epoch: str, seq: int) -> str:
    return f"{topic} {epoch} {seq}"


def _to_document(message: Message, stored_at: datetime) -> dict[str, Any]:
    """The payload as its JSON text: any JSON can be stored so, also what BSON has no form for."""
    return {
        "_id": _id(message.topic, message.epoch, message.seq),
        "topic": message.topic,
        "epoch": message.epoch,
        "seq": message.seq,
        "id": message.id,
        "userId": message.user,
        "ts": to_datetime(message.ts),
        "payload": message.payload.decode(),
        "createdAt": stored_at,
    }


def _to_message(document: dict[str, Any]) -> Message:
    payload, user = document["payload"].encode(), document.get("userId")
    return Message(document["topic"], document["epoch"], document["seq"], document["id"], to_ms(document["ts"]), payload, user)
