"""What a healthy MongoDB will not take: it is named, it is kept, and nobody is told that it is saved."""

import json

import pymongo
import pytest
from gevent.event import Event

from app.storage.mongo_errors import judge
from app.telemetry.drain.drainer import Drainer
from app.telemetry.spool.event_lines import decode
from tests.apps import WRITE_KEY, bearer, make_app
from tests.integration.telemetry_clients import COLLECTION

KEY = {"X-Write-Key": WRITE_KEY}


@pytest.fixture
def collection(mongo_uri):
    with pymongo.MongoClient(mongo_uri) as client:
        yield client.get_default_database()[COLLECTION]


@pytest.fixture
def app(tmp_path, mongo_uri):
    return make_app(tmp_path, mongo_uri=mongo_uri, mongo_timeout_ms=5000)


def send(app, *events):
    events = [{"type": "event", **event} for event in events]
    return app.test_client().post("/api/telemetry/batch", json={"app": "web", "events": events}, headers=KEY).get_json()


def order(name, number, **more):
    return {"name": name, "props": {"order": number}, **more}


def waiting(app):
    folder = app.extensions["switchyard"].settings.data_dir / "spool"
    return [decode(line).name for path in folder.glob("events-*.jsonl") for line in path.read_bytes().splitlines()]


def test_an_event_that_an_operators_unique_index_refuses_is_rejected_and_kept_and_costs_no_other(app, collection):
    collection.create_index("props.order", unique=True, name="one_of_each")
    assert send(app, order("first", 1))["saved"] == 1
    answer = send(app, order("new", 2), order("second", 1), order("newer", 3))
    assert (answer["saved"], answer["storage"]) == (2, "mongo") and "duplicates" not in answer
    assert [(row["index"], row["code"]) for row in answer["rejected"]] == [(1, "refused")]
    assert waiting(app) == ["second"]
    assert sorted(document["name"] for document in collection.find()) == ["first", "new", "newer"]


def test_a_place_among_the_rejected_is_the_one_that_was_sent(app, collection):
    collection.create_index("props.order", unique=True)
    send(app, order("first", 1))
    answer = send(app, {"name": ""}, order("second", 1), {"name": "good"})
    assert [(row["index"], row["code"]) for row in answer["rejected"]] == [(0, "bad_request"), (1, "refused")]
    assert answer["saved"] == 1
    assert send(app, order("third", 1)) == {"ok": True, "saved": 0, "rejected": [{**answer["rejected"][1], "index": 0}]}


def test_the_same_event_again_is_there_also_where_another_index_objects_to_it_as_well(app, collection):
    collection.create_index("props.order", unique=True)
    again = order("first", 1, eventId="e1")
    send(app, again)
    assert send(app, again) == {"ok": True, "saved": 1, "duplicates": 1, "storage": "mongo"}
    assert waiting(app) == []


def test_what_is_refused_is_not_counted(app, collection):
    collection.create_index("props.order", unique=True)
    send(app, order("first", 1), order("second", 1))
    app.extensions["switchyard"].telemetry_rollups.flush()
    totals = app.test_client().get("/api/telemetry/stats?app=web", headers=bearer("boss", "admin")).get_json()["totals"]
    assert (totals["count"], [row["name"] for row in totals["byName"]]) == (1, ["first"])


def test_the_drainer_puts_it_into_the_rejected_file_with_the_reason(app, collection, tmp_path):
    collection.create_index("props.order", unique=True, name="one_of_each")
    send(app, order("first", 1), order("second", 1))
    parts = app.extensions["switchyard"]
    spool = parts.telemetry._sink._spool
    spool.close()
    options = {"target": "db/a", "max_per_second": 10**9, "is_busy": lambda: False}
    drainer = Drainer(spool, parts.telemetry_events, parts.clock, parts.metrics, **options)
    drainer._run_round(Event())
    drainer._lock.release()
    (path,) = spool.folder.glob("*.rejected")
    row = json.loads(path.read_text())
    assert "second" in row["line"] and "one_of_each" in row["reason"]
    assert waiting(app) == []


def test_an_answer_that_does_not_name_the_index_is_settled_by_asking_for_the_id(collection):
    collection.insert_one({"_id": "a"})
    problems = [{"index": index, "code": 11000, "errmsg": "duplicate key"} for index in (0, 1)]
    found = judge(problems, collection, ["a", "b"].__getitem__)
    assert (found.there, list(found.refused)) == ([0], [1])
