"""Answers that no MongoDB gives, of a proxy or a broken server: the write counts as one of which nobody knows, everywhere."""

from types import SimpleNamespace

import pytest
from bson.errors import InvalidBSON
from pymongo import WriteConcern

from app.realtime.archive.mongo import MongoMessages
from app.storage.errors import StorageUnavailable
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.stats.bucket import Bucket, Delta
from app.telemetry.stats.store.mongo import MongoRollups
from tests.apps import NOW
from tests.unit.telemetry.spool.test_chunks import event

TROUBLE = [InvalidBSON("objsize too large"), KeyError("ok"), TypeError("NoneType"), AttributeError("get")]


class Database(dict):
    """Whatever is done with a collection of it raises `trouble`."""

    def __init__(self, trouble=None):
        def fail(*_, **__):
            raise trouble

        collection = SimpleNamespace(name="c", write_concern=WriteConcern(), insert_many=fail, bulk_write=fail)
        collection.with_options = lambda **_: collection
        super().__init__()
        self._collection = collection

    def __missing__(self, name):
        return self._collection


@pytest.mark.parametrize("trouble", TROUBLE)
def test_an_answer_that_cannot_be_read_sends_a_batch_down_the_ladder(trouble):
    def send(*_):
        raise trouble

    with pytest.raises(StorageUnavailable, match="cannot be read"):
        MongoSink(Database(), send).write([event("a")])


@pytest.mark.parametrize("answer", [{"ok": 1, "writeErrors": [5]}, {"ok": 1, "writeErrors": None}, {"ok": 1, "writeConcernError": 5}])
def test_an_answer_of_a_strange_shape_does_the_same(answer):
    with pytest.raises(StorageUnavailable):
        MongoSink(Database(), lambda *_: answer).write([event("a")])


@pytest.mark.parametrize("trouble", TROUBLE)
def test_the_delivery_log_keeps_what_was_answered_so(trouble):
    with pytest.raises(StorageUnavailable):
        MongoMessages(Database(trouble)).insert([], NOW)


@pytest.mark.parametrize("trouble", TROUBLE)
def test_the_statistics_keep_what_was_answered_so(trouble):
    with pytest.raises(StorageUnavailable):
        MongoRollups(Database(trouble)).apply(Delta("w1", 1, NOW, [Bucket("web", None, NOW, {"page": {"/": 1}})]))
