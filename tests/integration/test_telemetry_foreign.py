"""Documents of other programs in the collection of events: the pages show them as far as they can, and never fail."""

import uuid
from datetime import datetime

import pymongo
import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, ObjectId, Regex, Timestamp, encode
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument

from tests.apps import WRITE_KEY, bearer, make_app
from tests.integration.telemetry_clients import COLLECTION

ADMIN, KEY = bearer("boss", "admin"), {"X-Write-Key": WRITE_KEY}
TS = datetime(2025, 10, 9)
OID = ObjectId("64f000000000000000000001")
FULL = {"_id": "x", "app": "web", "type": "event", "name": "foreign", "props": {}, "ts": TS, "createdAt": TS, "updatedAt": TS}


@pytest.fixture
def collection(mongo_uri):
    with pymongo.MongoClient(mongo_uri, uuidRepresentation="standard") as client:
        yield client.get_default_database()[COLLECTION]


@pytest.fixture
def client(tmp_path, mongo_uri):
    return make_app(tmp_path, mongo_uri=mongo_uri, mongo_timeout_ms=5000).test_client()


def page(client, **query):
    response = client.get("/api/telemetry/events", query_string=query, headers=ADMIN)
    assert response.status_code == 200, response.text
    return response.get_json()


def test_a_document_without_one_of_our_fields_is_shown_without_it(client, collection):
    optional = sorted(FULL.keys() - {"_id", "ts"})
    collection.insert_many([{name: value for name, value in {**FULL, "_id": gone}.items() if name != gone} for gone in optional])
    found = {event["id"]: event for event in page(client)["events"]}
    assert found.keys() == set(optional)
    assert found.pop("props")["props"] == {}
    assert all(name not in event for name, event in found.items() if name != "updatedAt")


ODD_VALUES = [None, 5, Int64(2**40), 1.5, float("nan"), True, "text", [1, {"a": 2}], {"a": {"b": 1}}, TS, OID, b"\0\xff",
              Decimal128("1.50"), uuid.UUID(int=7), Binary(b"z", 5), Regex("a", "i"),
              Code("f()"), Timestamp(1, 2), MaxKey(), DatetimeMS(2**60)]  # fmt: skip


FIELDS = ["app", "env", "release", "userId", "sessionId", "user", "type", "name", "props", "rawTs", "createdAt"]


def test_a_field_of_any_type_never_makes_a_page_fail(client, collection):
    odd = [{**FULL, "_id": f"{field} {number}", field: value} for field in FIELDS for number, value in enumerate(ODD_VALUES)]
    collection.insert_many(odd)
    assert {event["id"] for event in page(client, limit=1000)["events"]} == {document["_id"] for document in odd}


def test_a_text_field_of_another_type_is_shown_as_text(client, collection):
    collection.insert_one({**FULL, "userId": 42, "name": OID, "release": {"a": 1}, "env": None})
    (event,) = page(client)["events"]
    assert (event["userId"], event["name"], event["release"]) == ("42", '{"$oid":"64f000000000000000000001"}', '{"a":1}')
    assert "env" not in event


def test_props_show_what_json_has_not_as_extended_json(client, collection):
    collection.insert_one({**FULL, "props": {"oid": OID, "list": [Decimal128("1.5")], "at": TS, "big": Int64(2**40), "bin": b"ab"}})
    assert page(client)["events"][0]["props"] == {
        "oid": {"$oid": str(OID)},
        "list": [{"$numberDecimal": "1.5"}],
        "at": {"$date": "2025-10-09T00:00:00Z"},
        "big": 2**40,
        "bin": {"$binary": {"base64": "YWI=", "subType": "00"}},
    }


REFERENCES = [{"$ref": "users", "$id": "u1"}, {"$ref": "users", "$id": 1, "$db": None, "note": "x"}, {"$ref": 5, "$id": None},
              {"$id": 1}, {"$oid": "nonsense"}, {"$date": 5}, {"$binary": {"base64": "?"}}, {"$numberLong": "9"},
              {"$regex": "("}, {"$undefined": True}]  # fmt: skip


def test_what_an_sdk_sent_reads_back_as_it_was_sent_whatever_a_driver_would_make_of_it(client):
    events = [{"type": "event", "name": str(value), "props": {"outer": value, "list": [value]}, "user": value} for value in REFERENCES]
    assert client.post("/api/telemetry/batch", json={"app": "web", "events": events}, headers=KEY).get_json()["saved"] == len(events)
    found = {event["name"]: event for event in page(client)["events"]}
    for event in events:
        assert (found[event["name"]]["props"], found[event["name"]]["user"]) == (event["props"], event["user"])


def test_bytes_that_are_no_text_are_shown_with_a_mark_in_their_place(client, collection):
    raw = RawBSONDocument(encode({**FULL, "name": "aX"}).replace(b"aX\0", b"a\xff\0"))
    collection.insert_one(raw)
    assert page(client)["events"][0]["name"] == "a\ufffd"


IDS = ["b", "a", OID, 5, 2.5, {"a": 1, "b": OID}, uuid.UUID(int=7), TS]


def test_pages_go_through_ids_of_every_type_once(client, collection):
    collection.insert_many([{**FULL, "_id": id_} for id_ in IDS])
    seen, cursor = [], {}
    while cursor is not None:
        answer = page(client, limit=1, **cursor)
        seen += [event["id"] for event in answer["events"]]
        cursor = answer["nextCursor"] and {"cursor": answer["nextCursor"]}
    assert len(seen) == len(set(seen)) == len(IDS)
    assert {"a", "b", f'{{"$oid": "{OID}"}}'} <= set(seen)


NO_DATES = [None, "2025-10-09", 1_760_000_000_000, [TS], OID, DatetimeMS(-5), DatetimeMS(2**60)]


def test_a_document_without_a_date_has_no_place_in_a_page_and_costs_the_others_none(client, collection):
    collection.insert_many([{**FULL, "_id": f"odd{number}", "ts": ts} for number, ts in enumerate(NO_DATES)] + [FULL, {**FULL, "_id": "y"}])
    first = page(client, limit=1)
    assert [event["id"] for event in first["events"] + page(client, cursor=first["nextCursor"])["events"]] == ["y", "x"]
