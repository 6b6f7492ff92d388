"""An event that MongoDB refuses for ever is reported as refused, kept in a file, and never answered as saved."""

import json

import pytest
from gevent.event import Event

from app.storage.mongo_errors import judge
from app.telemetry.drain.drainer import Drainer
from app.telemetry.spool.event_lines import decode
from tests.apps import WRITE_KEY, bearer, make_app

KEY = {"X-Write-Key": WRITE_KEY}


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


def test_an_event_that_a_unique_index_of_the_operator_refuses_is_rejected_and_kept_and_the_others_are_saved(app, collection):
    collection.create_index("props.order", unique=True, name="one_of_each")
    assert send(app, order("first", 1))["saved"] == 1
    answer = send(app, order("new", 2), order("second", 1), order("newer", 3))
    assert (answer["saved"], answer["storage"]) == (2, "mongo") and "duplicates" not in answer
    assert [(row["index"], row["code"]) for row in answer["rejected"]] == [(1, "refused")]
    assert waiting(app) == ["second"]
    assert sorted(document["name"] for document in collection.find()) == ["first", "new", "newer"]


def test_the_index_of_a_rejected_event_is_the_one_in_the_batch_that_was_sent(app, collection):
    collection.create_index("props.order", unique=True)
    send(app, order("first", 1))
    answer = send(app, {"name": ""}, order("second", 1), {"name": "good"})
    assert [(row["index"], row["code"]) for row in answer["rejected"]] == [(0, "bad_request"), (1, "refused")]
    assert answer["saved"] == 1
    assert send(app, order("third", 1)) == {"ok": True, "saved": 0, "rejected": [{**answer["rejected"][1], "index": 0}]}


def test_an_event_that_is_sent_again_is_a_duplicate_although_another_index_refuses_it_too(app, collection):
    collection.create_index("props.order", unique=True)
    again = order("first", 1, eventId="e1")
    send(app, again)
    assert send(app, again) == {"ok": True, "saved": 1, "duplicates": 1, "storage": "mongo"}
    assert waiting(app) == []


def test_a_refused_event_is_not_counted(app, collection):
    collection.create_index("props.order", unique=True)
    send(app, order("first", 1), order("second", 1))
    app.extensions["switchyard"].telemetry_rollups.flush()
    totals = app.test_client().get("/api/telemetry/stats?app=web", headers=bearer("boss", "admin")).get_json()["totals"]
    assert (totals["count"], [row["name"] for row in totals["byName"]]) == (1, ["first"])


def test_the_drainer_moves_a_refused_event_into_the_rejected_file_with_the_reason(app, collection, tmp_path):
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


def test_where_mongo_does_not_name_the_index_the_event_is_looked_up_by_its_id(collection):
    collection.insert_one({"_id": "a"})
    problems = [{"index": index, "code": 11000, "errmsg": "duplicate key"} for index in (0, 1)]
    found = judge(problems, collection, ["a", "b"].__getitem__)
    assert (found.there, list(found.refused)) == ([0], [1])
