"""What every sink promises, proved over each twin, so that the humble one can be believed and the real one trusted."""

import gevent
import pytest

from app.metrics import Metrics
from app.storage import mongo
from app.storage.errors import StorageUnavailable
from app.telemetry.batch import read_batch
from app.telemetry.query import EventQuery, decode_cursor
from app.telemetry.sinks.memory import MemorySink
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.sinks.spool import SpoolSink
from tests.apps import NOW, Clock


def make_spool(folder, **changes):
    limits = {"max_bytes": 10_000_000, "segment_bytes": 2048, "known_ids": 1000, "ttl_days": 90, "metrics": Metrics(), "clock": Clock()}
    spool = SpoolSink(folder, **{**limits, **changes})
    spool.open()
    return spool


@pytest.fixture(params=["memory", "spool", "mongo"])
def sink(request, tmp_path):
    if request.param == "memory":
        return MemorySink()
    if request.param == "spool":
        return make_spool(tmp_path)
    return MongoSink(mongo.connect(request.getfixturevalue("mongo_uri"), 5000))


def events(*names, now=NOW, app="web", **fields):
    return read_batch({"app": app, "events": [{"type": "event", "name": name, **fields} for name in names]}, now, 1000).events


def names(page):
    return [event.name for event in page.events]


def test_what_is_written_is_found_again_as_it_was(sink):
    written = events("a", props={"n": 1, "f": 1.5, "s": "é😀", "none": None, "list": [1, {"deep": True}], "http.method": "GET", "$x": 0})
    sink.write(written)
    assert sink.find(EventQuery(exact={})).events == written


def test_every_field_survives(sink):
    body = {"app": "web", "release": "1", "env": "e", "userId": "u", "sessionId": "s", "user": {"a": [1]}, "sentAt": NOW - 10**7}
    written = read_batch({**body, "events": [{"type": "perf", "name": "lcp", "ts": NOW - 10**7, "eventId": "x"}]}, NOW, 10).events
    sink.write(written)
    assert written[0].raw_ts is not None
    assert sink.find(EventQuery(exact={})).events == written


def test_writing_an_event_again_changes_nothing_and_is_counted(sink):
    batch = events("a", eventId="1") + events("b", eventId="2")
    assert sink.write(batch).duplicates == 0
    again = events("a", eventId="1") + events("c", eventId="3")
    assert sink.write(again).duplicates == 1
    assert sorted(names(sink.find(EventQuery(exact={})))) == ["a", "b", "c"]


def test_the_same_event_twice_in_one_batch_is_one_event(sink):
    assert sink.write(events("a", "a", eventId="1")).duplicates == 1
    assert names(sink.find(EventQuery(exact={}))) == ["a"]


def test_who_writes_is_told_which_events_were_known(sink):
    sink.write(events("a", eventId="1") + events("b", eventId="2"))
    again = events("x") + events("b", eventId="2") + events("y") + events("a", eventId="1")
    assert list(sink.write(again).known) == [1, 3]


def test_pages_are_the_newest_first_and_continue_where_the_last_ended(sink):
    for n in range(10):
        sink.write(events(f"n{n}", now=NOW + n // 2))
    seen, after = [], None
    while True:
        page = sink.find(EventQuery(exact={}, after=after, limit=3))
        seen += page.events
        if page.next_cursor is None:
            break
        after = decode_cursor(page.next_cursor)
    assert [event.position for event in seen] == sorted((event.position for event in seen), reverse=True)
    assert sorted(event.name for event in seen) == [f"n{n}" for n in range(10)]


def test_filters_hold_all_together(sink):
    sink.write(events("a", userId="u1") + events("b", userId="u1", app="shop") + events("a", userId="u2"))
    sink.write(events("a", userId="u1", now=NOW + 1000))
    assert len(sink.find(EventQuery(exact={"app": "web", "name": "a", "user_id": "u1"})).events) == 2
    until = EventQuery(exact={"app": "web", "user_id": "u1"}, since=NOW, until=NOW + 1000)
    assert [event.ts for event in sink.find(until).events] == [NOW]
    assert names(sink.find(EventQuery(exact={"app": "web", "type": "page"}))) == []


def test_many_writers_at_once_lose_nothing(sink):
    writers = [gevent.spawn(sink.write, events(f"w{n}", f"w{n}x")) for n in range(40)]
    gevent.joinall(writers, raise_error=True)
    found = sink.find(EventQuery(exact={}, limit=1000))
    assert sorted(names(found)) == sorted([f"w{n}" for n in range(40)] + [f"w{n}x" for n in range(40)])


# --- the spool alone


def test_a_new_process_finds_what_the_last_one_wrote_and_knows_its_event_ids(tmp_path):
    make_spool(tmp_path).write(events("a", eventId="1"))
    again = make_spool(tmp_path)
    assert again.write(events("a", eventId="1")).duplicates == 1
    assert names(again.find(EventQuery(exact={}))) == ["a"]


def test_a_new_process_knows_the_newest_ids_before_older_ones(tmp_path):
    first = make_spool(tmp_path, segment_bytes=300)
    for number in range(20):
        first.write(events("a", eventId=str(number)))
    again = make_spool(tmp_path, known_ids=5)
    for number in (100, 101, 102):
        again.write(events("a", eventId=str(number)))
    assert again.write(events("a", eventId="19")).duplicates == 1


def test_an_event_that_stands_twice_on_disk_is_read_once(tmp_path):
    forgetful = make_spool(tmp_path, known_ids=0)
    for _ in range(3):
        forgetful.write(events("a", eventId="1", ts=NOW))
    assert forgetful.write(events("a", eventId="1", ts=NOW)).duplicates == 0
    assert names(forgetful.find(EventQuery(exact={}))) == ["a"]


def test_a_corrupt_line_costs_only_itself(tmp_path):
    make_spool(tmp_path).write(events("a"))
    (tmp_path / "events-0000000000001-1-ab.jsonl").write_bytes(b'not json\n{"_id":"x"}\n[]\n\xff\xfe\n{"_id":"y","ts":5}\n')
    spool = make_spool(tmp_path)
    assert names(spool.find(EventQuery(exact={}))) == ["a"]
    assert spool.check()["state"] == "up"


def test_segments_older_than_the_ttl_are_dropped(tmp_path):
    import os

    clock = Clock()
    spool = make_spool(tmp_path, ttl_days=90, clock=clock)
    spool.write(events("old"))
    spool.close()
    old = next(tmp_path.glob("events-*"))
    os.utime(old, (NOW / 1000 - 91 * 86_400,) * 2)
    spool.write(events("new"))
    spool.tend()
    assert names(spool.find(EventQuery(exact={}))) == ["new"]


def test_the_segment_of_a_living_writer_is_never_dropped_under_it(tmp_path):
    import os

    spool = make_spool(tmp_path, ttl_days=90, clock=Clock())
    spool.write(events("old"))
    os.utime(next(tmp_path.glob("events-*")), (0, 0))
    spool.tend()
    spool.write(events("new"))
    assert sorted(names(spool.find(EventQuery(exact={})))) == ["new", "old"]


def test_what_a_killed_process_left_half_made_is_swept_away_in_time(tmp_path):
    import os

    spool = make_spool(tmp_path, clock=Clock())
    for name in (".events-1-1-a.jsonl", ".probe-7", ".drainer.lock"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".events-2-1-a.jsonl").touch()
    os.utime(tmp_path / ".events-2-1-a.jsonl", (NOW / 1000, NOW / 1000))
    spool.tend()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".drainer.lock", ".events-2-1-a.jsonl"]


def test_a_ttl_of_zero_keeps_everything(tmp_path):
    import os

    spool = make_spool(tmp_path, ttl_days=0)
    spool.write(events("old"))
    os.utime(next(tmp_path.glob("events-*")), (0, 0))
    spool.tend()
    assert names(spool.find(EventQuery(exact={}))) == ["old"]


def test_a_spool_that_is_nearly_full_says_so_before_it_is(tmp_path):
    spool = make_spool(tmp_path, max_bytes=1500)
    assert spool.check()["state"] == "up"
    spool.write(events("a", props={"text": "x" * 1250}))
    assert spool.check()["state"] == "degraded"


def test_lines_put_aside_have_a_share_of_the_room_of_their_own(tmp_path):
    spool = make_spool(tmp_path, max_bytes=8000)
    assert spool.may_keep_refused()
    (tmp_path / "events-1.jsonl.rejected").write_bytes(b"x" * 1000)
    spool.tend()
    assert not spool.may_keep_refused() and spool.write(events("a")).duplicates == 0


# --- MongoDB alone


def test_a_mongo_that_is_away_is_unavailable_within_its_timeout():
    from tests.servers.ports import free_port

    sink = MongoSink(mongo.connect(f"mongodb://127.0.0.1:{free_port()}/x", 300))
    with pytest.raises(StorageUnavailable):
        sink.write(events("a"))
    with pytest.raises(StorageUnavailable):
        sink.find(EventQuery(exact={}))


def test_a_login_in_the_uri_works_and_a_wrong_one_is_unavailable(mongo_server_with_login):

    server = mongo_server_with_login
    sink = MongoSink(mongo.connect(server.uri, 5000))
    sink.write(events("a"))
    assert "a" in names(sink.find(EventQuery(exact={})))
    wrong = MongoSink(mongo.connect(server.uri_as(server.login[0], "wrong"), 5000))
    with pytest.raises(StorageUnavailable):
        wrong.write(events("b"))
