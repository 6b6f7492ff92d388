"""What the archive's ladder believes of MongoDB, proved over the real one and over the one that stands for it in tests."""

import pymongo
import pytest

from app.realtime.archive.mongo import Known, MongoMessages, NotStored
from app.realtime.log import Message
from app.storage import mongo
from tests.apps import NOW
from tests.unit.realtime.memory_messages import MemoryMessages


@pytest.fixture(params=["memory", "mongo"])
def store(request):
    if request.param == "memory":
        return MemoryMessages()
    return MongoMessages(mongo.connect(request.getfixturevalue("mongo_uri"), 5000))


def message(seq, **changes):
    return Message(**{"topic": "t", "epoch": "e", "seq": seq, "id": f"m{seq}", "ts": NOW, "payload": b'{"a":1}', "user": "u", **changes})


def test_messages_are_found_as_they_were_inserted(store):
    store.insert([message(1), message(2, user=None), message(3, topic="t2")], NOW)
    assert store.find("t", "e", 0, 10) == [message(1), message(2, user=None)]
    assert store.count("t", "e", 0, 10, [2]) == 1


def test_the_same_message_again_changes_nothing(store):
    store.insert([message(1)], NOW)
    store.insert([message(1), message(2)], NOW + 5)
    assert store.find("t", "e", 0, 10) == [message(1), message(2)]


@pytest.mark.parametrize("other", [{"id": "x"}, {"user": "x"}, {"user": None}, {"ts": NOW + 1}, {"payload": b"2"}])
def test_another_message_at_a_place_is_reported_and_neither_replaced_nor_stored_and_the_rest_is_stored(store, other):
    store.insert([message(2)], NOW)
    with pytest.raises(NotStored) as caught:
        store.insert([message(1), message(2, **other), message(3)], NOW)
    assert (caught.value.taken, caught.value.refused, caught.value.unforeseen) == ([message(2, **other)], [], [])
    assert store.find("t", "e", 0, 10) == [message(1), message(2), message(3)]


def test_of_some_places_it_is_known_whether_one_is_taken(store):
    store.insert([message(5)], NOW)
    assert store.any_at([]) is None
    assert store.any_at([("t", "e", seq) for seq in range(10, 3000)]) is None
    assert store.any_at([("t", "e", seq) for seq in range(3000)]) == "t e 5"
    assert store.any_at([("t", "e2", 5), ("t2", "e", 5)]) is None


def test_the_newest_are_known_oldest_first(store):
    for seq in range(1, 6):
        store.insert([message(seq, user=None if seq == 5 else "u")], NOW + seq)
    assert store.newest(2) == [Known("t", "e", 4, "m4", "u"), Known("t", "e", 5, "m5", None)]


# What only the real one has to be asked


@pytest.fixture
def real(mongo_uri):
    return MongoMessages(mongo.connect(mongo_uri, 5000))


def test_a_message_that_an_index_of_an_operator_forbids_is_refused_and_the_others_are_stored(real, mongo_uri):
    with pymongo.MongoClient(mongo_uri) as client:
        client.get_default_database()["realtime_messages"].create_index("id", unique=True)
    real.insert([message(1)], NOW)
    with pytest.raises(NotStored) as caught:
        real.insert([message(2), message(3, id="m1"), message(4)], NOW)
    ((refused, reason),) = caught.value.refused
    assert (refused, caught.value.taken) == (message(3, id="m1"), [])
    assert reason.startswith("MongoDB: ")
    assert [each.seq for each in real.find("t", "e", 0, 10)] == [1, 2, 4]


@pytest.mark.parametrize("change", [{"payload": b'"' + b"x" * 16_777_216 + b'"'}, {"seq": 2**70}])
def test_a_message_that_cannot_be_a_document_is_refused_and_the_others_are_stored(real, change):
    with pytest.raises(NotStored) as caught:
        real.insert([message(1), message(**{"seq": 2, **change}), message(3)], NOW)
    ((_, reason),) = caught.value.refused
    assert "document" in reason
    assert [each.seq for each in real.find("t", "e", 0, 10)] == [1, 3]


def test_documents_of_other_programs_do_not_stand_in_the_way(real, mongo_uri):
    with pymongo.MongoClient(mongo_uri) as client:
        collection = client.get_default_database()["realtime_messages"]
        collection.insert_many([{"topic": 1}, {"topic": "t", "epoch": "e", "seq": "1", "id": "x"}, {"_id": "t e 2", "note": "mine"}])
    with pytest.raises(NotStored) as caught:
        real.insert([message(1), message(2)], NOW)
    assert caught.value.taken == [message(2)]
    assert real.newest(10) == [Known("t", "e", 1, "m1", "u")]
