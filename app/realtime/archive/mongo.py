"""Messages of durable topics as documents. Their `_id` is their place, so that storing one again changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pymongo import WriteConcern
from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError

from app.clock import to_datetime, to_ms
from app.mongo import answers_understood
from app.mongo_errors import judge
from app.realtime.log import Message

COLLECTION = "realtime_messages"
DURABLE = WriteConcern(w="majority", j=True)  # what is acknowledged is deleted from the disk


class StoreUnavailable(Exception):
    """MongoDB does not answer, or does not take it now."""


class MongoMessages:
    def __init__(self, database: Database):
        self._collection = database[COLLECTION].with_options(write_concern=DURABLE)

    def insert(self, messages: list[Message], now: int) -> None:
        """All of them are there when it returns. Raises StoreUnavailable; then some may be."""
        stored_at = to_datetime(now)
        documents = [_to_document(message, stored_at) for message in messages]
        with _driver_errors(), answers_understood():
            self._insert(documents)

    def _insert(self, documents: list[dict[str, Any]]) -> None:
        try:
            self._collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            found = judge(error.details.get("writeErrors", ()), self._collection, lambda index: documents[index]["_id"])
            reasons = [*found.refused.values(), *found.unforeseen.values()]
            reasons += [problem.get("errmsg", "the write concern was not met") for problem in error.details.get("writeConcernErrors", ())]
            if reasons:
                raise StoreUnavailable(reasons[0]) from error

    def find(self, topic: str, epoch: str, after: int, last: int) -> list[Message]:
        """Those with `after` < seq <= `last`, oldest first. Raises StoreUnavailable."""
        place = {"topic": topic, "epoch": epoch, "seq": {"$gt": after, "$lte": last}}
        with _driver_errors():
            return [_to_message(document) for document in self._collection.find(place).sort("seq", 1)]

    def count(self, topic: str, epoch: str, after: int, last: int, without: list[int]) -> int:
        """Of those with `after` < seq <= `last` that are not `without`. Raises StoreUnavailable."""
        place = {"topic": topic, "epoch": epoch, "seq": {"$gt": after, "$lte": last, **({"$nin": without} if without else {})}}
        with _driver_errors():
            return self._collection.count_documents(place)


@contextmanager
def _driver_errors() -> Iterator[None]:
    try:
        yield
    except PyMongoError as error:
        raise StoreUnavailable(str(error)) from error


def _to_document(message: Message, stored_at: datetime) -> dict[str, Any]:
    """The payload as its JSON text: any JSON can be stored so, also what BSON has no form for."""
    return {
        "_id": f"{message.topic} {message.epoch} {message.seq}",
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
