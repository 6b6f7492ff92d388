"""The one verdict on MongoDB's objections: every code is judged in the same way for events, statistics and durable messages."""

from types import SimpleNamespace

import pytest
from bson import encode
from pymongo import MongoClient, WriteConcern
from pymongo.errors import AutoReconnect, BulkWriteError, NetworkTimeout, OperationFailure, PyMongoError

from app.realtime.archive.mongo import MongoMessages
from app.storage.errors import StorageUnavailable
from app.storage.mongo_errors import NEVER_TAKEN, UNWELL, Objections, ServerUnwell, judge, reason_of
from app.telemetry.sinks import SinkRefused
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.stats.bucket import Bucket, Delta
from app.telemetry.stats.store.mongo import MongoRollups
from tests.apps import NOW
from tests.servers.ports import free_port
from tests.unit.telemetry.spool.test_chunks import event


class Collection:
    """Knows which ids it holds, and how often it was asked."""

    def __init__(self, *ids):
        self.ids, self.asked = ids, 0

    def find(self, wanted, _fields):
        self.asked += 1
        return [{"_id": id_} for id_ in self.ids if id_ in wanted["_id"]["$in"]]


def objections(problem, *stored):
    collection = Collection(*stored)
    return judge([{"index": 0, "errmsg": "no", **problem}], collection, ["a", "b"].__getitem__), collection.asked


ABOUT_THE_ID = {
    "a pattern": {"keyPattern": {"_id": 1}, "keyValue": {"_id": "a"}},
    "mongod's sentence": {"errmsg": 'E11000 duplicate key error collection: shop.events index: _id_ dup key: { _id: "a" }'},
    "FerretDB's sentence": {"errmsg": "Duplicate key violation on the requested collection: Index '_id_'"},
}  # fmt: skip
ABOUT_ANOTHER = {
    "a pattern": {"keyPattern": {"props.order": 1}},
    "a pattern with the id in it": {"keyPattern": {"_id": 1, "app": 1}},
    "a value that looks like an index": {"errmsg": "E11000 duplicate key error collection: s.e index: o dup key: { x: 'index: _id_ dup' }"},
    "FerretDB's sentence": {"errmsg": "Duplicate key violation on the requested collection: Index 'order_1'"},
    "a sentence of nobody we know": {"errmsg": "duplicate"},
}  # fmt: skip


@pytest.mark.parametrize("said", ABOUT_THE_ID.values(), ids=ABOUT_THE_ID)
def test_a_duplicate_of_the_id_is_there(said):
    assert objections({"code": 11000, **said}) == (Objections([0], {}, {}), 0)


@pytest.mark.parametrize("said", ABOUT_ANOTHER.values(), ids=ABOUT_ANOTHER)
def test_any_other_duplicate_is_there_only_where_its_id_is_stored(said):
    found, asked = objections({"code": 11000, **said})
    assert (found.there, found.unforeseen, asked) == ([], {}, 1) and found.refused[0].startswith("MongoDB: ")
    assert objections({"code": 11000, **said}, "a") == (Objections([0], {}, {}), 1)


def test_what_is_never_taken_and_what_nobody_foresaw_are_told_apart():
    assert objections({"code": 121})[0] == Objections([], {0: "MongoDB: no"}, {})
    assert objections({"code": 4711})[0] == Objections([], {}, {0: "no (code 4711)"})
    assert objections({})[0] == Objections([], {}, {0: "no (code None)"})


def test_no_code_is_in_two_lists():
    assert not NEVER_TAKEN & UNWELL


# Every part goes by it


def bulk_error(code):
    return BulkWriteError({"writeErrors": [{"index": 0, "code": code, "errmsg": "no"}]})


def database(code):
    def fail(*_, **__):
        raise bulk_error(code)

    collection = SimpleNamespace(name="c", write_concern=WriteConcern(), insert_many=fail, bulk_write=fail)
    collection.with_options = lambda **_: collection
    return SimpleNamespace(__getitem__=None, collection=collection)


class Database:
    def __init__(self, code):
        self._collection = database(code).collection

    def __getitem__(self, _):
        return self._collection


def sink(code):
    return MongoSink(Database(code), lambda *_: {"ok": 1, "writeErrors": [{"index": 0, "code": code, "errmsg": "no"}]})


@pytest.mark.parametrize("code", sorted(UNWELL))
def test_a_server_that_is_not_well_keeps_events_numbers_and_messages_waiting(code):
    with pytest.raises(ServerUnwell):
        objections({"code": code})
    with pytest.raises(StorageUnavailable) as refused:
        sink(code).write([event("a")])
    assert not isinstance(refused.value, SinkRefused)
    with pytest.raises(StorageUnavailable):
        MongoRollups(Database(code)).apply(Delta("w1", 1, NOW, [Bucket("web", None, NOW, {"page": {"/": 1}})]))
    with pytest.raises(StorageUnavailable):
        MongoMessages(Database(code)).insert([], NOW)


@pytest.mark.parametrize("code", sorted(NEVER_TAKEN))
def test_what_is_never_taken_costs_no_other_event_and_no_other_number(code):
    written = sink(code).write([event("bad"), event("good")])
    assert (written.duplicates, list(written.refused)) == (0, [0])
    MongoRollups(Database(code)).apply(Delta("w1", 1, NOW, [Bucket("web", None, NOW, {"page": {"/": 1}})]))


def test_an_id_is_read_from_the_document_that_was_sent():
    asked = []
    collection = SimpleNamespace(name="c", write_concern=WriteConcern(), find=lambda wanted, _: asked.append(wanted) or [])
    answer = {"ok": 1, "writeErrors": [{"index": 1, "code": 11000, "errmsg": "another index"}]}
    found = MongoSink({"telemetry_events": collection}, lambda *_: answer).insert([encode({"_id": "a"}), encode({"_id": "b"})])
    assert asked == [{"_id": {"$in": ["b"]}}] and list(found.refused) == [1]


def test_the_reason_that_no_server_answers_is_one_sentence_with_every_address():
    one, two = free_port(), free_port()
    with (
        MongoClient(f"mongodb://127.0.0.1:{one},127.0.0.1:{two}", serverSelectionTimeoutMS=50) as client,
        pytest.raises(PyMongoError) as caught,
    ):
        client.admin.command("ping")
    refused = [f"127.0.0.1:{port}: Connection refused" for port in (one, two)]
    assert reason_of(caught.value) in [f"MongoDB does not answer: {','.join(order)}" for order in (refused, refused[::-1])]


TIMEOUTS = " (configured timeouts: socketTimeoutMS: 20000.0ms, connectTimeoutMS: 200.0ms)"
DRIVER_SAYS = {
    NetworkTimeout(f"db:27017: timed out{TIMEOUTS}"): "MongoDB does not answer: db:27017: timed out",
    AutoReconnect("db:27017: connection closed"): "MongoDB does not answer: db:27017: connection closed",
    AutoReconnect("No servers found yet, Timeout: 1.5s, Topology Description: <TopologyDescription id: 1>"): (
        "MongoDB does not answer: No servers found yet"
    ),
    OperationFailure("not allowed, full error: {'ok': 0.0}", 13): "OperationFailure: not allowed",
    AutoReconnect(""): "MongoDB does not answer: no reason given",
}


@pytest.mark.parametrize(("error", "sentence"), DRIVER_SAYS.items(), ids=str)
def test_the_reason_has_nothing_of_the_drivers_own_settings_and_views(error, sentence):
    assert reason_of(error) == sentence


def test_a_long_reason_ends_with_a_whole_word():
    reason = reason_of(OperationFailure("word " * 100))
    assert len(reason) < 250 and reason.endswith("word …")
