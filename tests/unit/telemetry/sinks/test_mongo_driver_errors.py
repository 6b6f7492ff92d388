"""What a driver can say while a primary steps down, a write concern is not met or time is over; said here by a database of
values that has done the write or has not. Whatever the order, what was answered as saved is there once in the end."""

import tempfile
from pathlib import Path

import pytest
from bson import decode as decode_bson
from gevent.event import Event
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.errors import AutoReconnect, ExecutionTimeout, NetworkTimeout, NotPrimaryError, OperationFailure, ServerSelectionTimeoutError
from pymongo.write_concern import WriteConcern

from app.metrics import Metrics
from app.storage.errors import StorageUnavailable
from app.telemetry.drain.drainer import Drainer
from app.telemetry.sinks import SinkRefused
from app.telemetry.sinks.ladder import Ladder
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.sinks.spool import SpoolSink
from app.telemetry.spool.event_lines import segments
from tests.apps import Clock
from tests.unit.telemetry.spool.test_chunks import event

ERRORS = {
    "a primary that steps down": NotPrimaryError("not primary", {"ok": 0, "code": 10107}),
    "a primary that shuts down": OperationFailure("interrupted at shutdown", 11600, {"ok": 0, "code": 11600}),
    "a connection that is closed": AutoReconnect("connection closed"),
    "an answer that does not come": NetworkTimeout("timed out"),
    "time that is over": ExecutionTimeout("operation exceeded time limit", 50),
    "no server at all": ServerSelectionTimeoutError("no servers found"),
    "a login that is not allowed": OperationFailure("not authorized", 13),
    "a quota": OperationFailure("you are over your space quota", 8000),
}
ANSWERS = {
    "a write concern that is not met": {"ok": 1, "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}},
    "each document refused by what is no primary": {"ok": 1, "writeErrors": [{"index": 0, "code": 10107, "errmsg": "not primary"}]},
    "a disk without room": {"ok": 1, "writeErrors": [{"index": 0, "code": 14031, "errmsg": "out of disk space"}]},
    "an objection that nobody foresaw": {"ok": 1, "writeErrors": [{"index": 0, "code": 4711, "errmsg": "hm"}]},
}


class FakeDatabase:
    """`next` are (what to say, whether the write is done all the same), used up one a command."""

    def __init__(self):
        self.documents, self.next, self.commands = {}, [], []
        self.name, self.write_concern = "telemetry_events", WriteConcern()

    def __getitem__(self, name):
        return self

    def count_documents(self, query):
        return len(self.documents.keys() & set(query["_id"]["$in"]))

    def send(self, _database, command, documents, _timeout_s):
        self.commands.append(command)
        said, is_done = self.next.pop(0) if self.next else (None, True)
        answer = self._write(documents) if is_done else {"ok": 1}
        if isinstance(said, Exception):
            raise said
        return said or answer

    def _write(self, documents):
        problems = []
        for index, document in enumerate(documents):
            decoded = decode_bson(document)
            if decoded["_id"] in self.documents:
                problems.append({"index": index, "code": 11000, "keyPattern": {"_id": 1}, "errmsg": "duplicate key"})
            self.documents.setdefault(decoded["_id"], decoded)
        return {"ok": 1, **({"writeErrors": problems} if problems else {})}


class House:
    """Ladder, spool and drainer as they are wired, on a database of values."""

    def __init__(self, folder):
        self.database, self.clock, metrics = FakeDatabase(), Clock(), Metrics()
        self.sink = MongoSink(self.database, self.database.send)
        limits = {"max_bytes": 10_000_000, "segment_bytes": 500, "known_ids": 100, "ttl_days": 90, "is_store": False}
        self.spool = SpoolSink(folder, metrics=metrics, clock=self.clock, **limits)
        self.spool.open()
        self.ladder = Ladder(self.sink, self.spool, self.clock, metrics)
        self.drainer = Drainer(self.spool, self.sink, self.clock, metrics, target="db/a", max_per_second=10**9, is_busy=lambda: False)

    def close(self):
        self.spool.close()
        self.drainer._lock.release()


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    yield house
    house.close()


@pytest.mark.parametrize("is_done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize("said", [*ERRORS, *ANSWERS])
def test_after_any_of_these_the_event_is_in_the_spool_and_later_once_in_mongo(house, said, is_done):
    house.database.next = [(ERRORS.get(said) or ANSWERS.get(said), is_done)]
    assert house.ladder.write([event("a")]).storage == "spool"
    house.spool.close()
    house.drainer._run_round(Event())
    assert list(house.database.documents) == ["a"]
    assert segments(house.spool.folder) == []


@pytest.mark.parametrize("said", [*ERRORS, *ANSWERS])
def test_the_drainer_keeps_the_segment_after_any_of_these(house, said):
    house.spool.write([event("a")])
    house.spool.close()
    house.database.next = [(ERRORS.get(said) or ANSWERS.get(said), False)]
    house.drainer._run_round(Event())
    assert len(segments(house.spool.folder)) == 1
    assert not list(house.spool.folder.glob("*.rejected"))
    house.drainer._run_round(Event())
    assert list(house.database.documents) == ["a"]


NEVER = {"ok": 1, "writeErrors": [{"index": 1, "code": 121, "errmsg": "Document failed validation"}]}


THREE_BATCHES = [["a"], ["bad", "c"], ["d"]]


def _shares(house):
    return house.sink._insert_all([(1e9, [_bson(name) for name in names]) for names in THREE_BATCHES])


def test_a_document_that_mongo_will_never_take_costs_no_other(house):
    house.database.next = [(NEVER, True)]
    assert [share.refused for share in _shares(house)] == [{}, {0: "MongoDB: Document failed validation"}, {}]


def test_an_objection_that_nobody_foresaw_costs_only_the_batch_it_came_for(house):
    house.database.next = [({"ok": 1, "writeErrors": [{"index": 1, "code": 4711, "errmsg": "hm"}]}, True)]
    assert [bool(share.unforeseen) for share in _shares(house)] == [False, True, False]
    house.database.next = [({"ok": 1, "writeErrors": [{"index": 0, "code": 4711, "errmsg": "hm"}]}, True)]
    with pytest.raises(SinkRefused):
        house.sink.write([event("e")])


def test_every_write_waits_for_the_journal_and_the_majority_unless_the_uri_says_otherwise(house):
    house.ladder.write([event("a")])
    house.database.write_concern = WriteConcern(w=1, wtimeout=100)
    house.ladder.write([event("b")])
    house.database.write_concern = WriteConcern(w=0)
    house.ladder.write([event("c")])
    concerns = [command["writeConcern"] for command in house.database.commands]
    assert concerns == [{"w": "majority", "j": True}, {"w": 1, "j": True, "wtimeout": 100}, {"w": "majority", "j": True}]


def test_who_waited_while_mongo_failed_does_not_wait_for_a_timeout_of_his_own(house):
    house.database.next = [(ERRORS["an answer that does not come"], False)]
    with pytest.raises(StorageUnavailable):
        house.sink.write([event("a")])
    with pytest.raises(StorageUnavailable):
        house.sink._insert_all([(house.sink._failed_at - 0.1, [_bson("b")])])
    assert len(house.database.commands) == 1
    assert house.sink.write([event("c")]).storage == "mongo"


def _bson(name):
    from app.telemetry.sinks.bson import encode_events

    return encode_events([event(name)])[0]


moves = st.one_of(
    st.lists(st.integers(0, 30), min_size=1, max_size=4).map(lambda numbers: ("send", numbers)),
    st.sampled_from([*ERRORS, *ANSWERS]).flatmap(lambda said: st.booleans().map(lambda is_done: ("say", said, is_done))),
    st.sampled_from([("drain",), ("rotate",), ("restart",)]),
    st.integers(-10_000, 10_000).map(lambda ms: ("clock", ms)),
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(moves, max_size=30))
def test_for_any_order_of_events_failures_restarts_and_clock_jumps_what_was_saved_is_there_once(steps):
    with tempfile.TemporaryDirectory() as folder:
        house, saved = House(Path(folder)), set()
        for kind, *what in steps:
            if kind == "send":
                names = [f"e{number}" for number in what[0]]
                try:
                    house.ladder.write([event(name) for name in names])
                    saved.update(names)
                except StorageUnavailable:
                    pass
            elif kind == "say":
                house.database.next.append((ERRORS.get(what[0]) or ANSWERS.get(what[0]), what[1]))
            elif kind == "drain":
                house.drainer._run_round(Event())
            elif kind == "rotate":
                house.spool.close()
            elif kind == "clock":
                house.clock.pass_ms(what[0])
            else:
                house = _restarted(house, Path(folder))
        house.database.next.clear()
        house.spool.close()
        house.drainer._run_round(Event())
        assert saved <= house.database.documents.keys()
        assert segments(Path(folder)) == []
        house.close()


def _restarted(house, folder):
    house.close()
    again = House(folder)
    again.database.documents, again.database.next = house.database.documents, house.database.next
    again.clock.now = house.clock.now
    return again
