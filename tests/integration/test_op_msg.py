"""Messages of ours on the driver's connections: understood, judged and given up as the driver's own are."""

import bson
import pytest
from pymongo.errors import OperationFailure, PyMongoError

from app.storage import mongo
from app.telemetry.sinks.op_msg import message, send

INSERT = {"insert": "things", "ordered": False}


@pytest.fixture
def database(mongo_uri):
    return mongo.connect(mongo_uri, 5000)


def documents(*ids):
    return [bson.encode({"_id": id_, "text": "é"}) for id_ in ids]


def ids_in(database):
    return sorted(document["_id"] for document in database.things.find())


def test_a_message_has_its_length_its_number_the_command_and_the_documents_one_behind_another():
    made = message(7, {**INSERT, "$db": "x"}, documents("a", "b"))
    assert made[:16] == b"".join(number.to_bytes(4, "little") for number in (len(made), 7, 0, 2013))
    command, rest = made[21:-4], made.index(b"documents\0")
    assert bson.decode(command[: int.from_bytes(command[:4], "little")]) == {**INSERT, "$db": "x"}
    assert bson.decode_all(made[rest + len(b"documents\0") :]) == [{"_id": "a", "text": "é"}, {"_id": "b", "text": "é"}]
    assert int.from_bytes(made[rest - 4 : rest], "little") == len(made) - rest + 4


def test_the_server_stores_the_documents_and_names_those_that_were_there(database):
    assert send(database, INSERT, documents("a", "b"))["n"] == 2
    answer = send(database, INSERT, documents("b", "c"))
    assert [(problem["index"], problem["code"]) for problem in answer["writeErrors"]] == [(0, 11000)]
    assert ids_in(database) == ["a", "b", "c"]


def test_a_command_that_is_refused_as_a_whole_is_the_driver_s_error(database):
    with pytest.raises(OperationFailure):
        send(database, {"insert": "", "ordered": False}, documents("a"))


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_one_s(mongo_server, mongo_uri, proxy_to):
    way = proxy_to(mongo_server.port)
    database = mongo.connect(mongo_uri.replace(str(mongo_server.port), str(way.port)), 400)
    send(database, INSERT, documents("a"), 5)
    with way.toxic("latency", latency=1000), pytest.raises(PyMongoError):
        send(database, INSERT, documents("b"))
    assert send(database, INSERT, documents("c"), 5)["n"] == 1
    assert {"a", "c"} <= set(ids_in(database)) <= {"a", "b", "c"}


def test_who_has_more_patience_than_the_driver_waits_longer(mongo_server, mongo_uri, proxy_to):
    way = proxy_to(mongo_server.port)
    database = mongo.connect(mongo_uri.replace(str(mongo_server.port), str(way.port)), 400)
    send(database, INSERT, documents("a"), 5)
    with way.toxic("latency", latency=800):
        assert send(database, INSERT, documents("b"), 5)["n"] == 1
