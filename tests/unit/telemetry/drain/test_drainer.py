"""The drainer on a real folder, with a MongoDB in memory: what it moves, what it keeps, what it never deletes."""

import os

import gevent
import pytest
from bson import decode as decode_bson
from gevent.event import Event

from app.metrics import Metrics
from app.storage.errors import StorageUnavailable
from app.storage.segments.rejected import RejectedFile
from app.storage.segments.segment import has_writer, lock_alone
from app.telemetry.drain.drainer import Drainer
from app.telemetry.sinks import SinkRefused
from app.telemetry.sinks.mongo import Inserted
from app.telemetry.sinks.spool import SpoolSink
from app.telemetry.spool.event_lines import segments
from tests.apps import Clock
from tests.unit.telemetry.spool.test_chunks import event, line


class MemoryMongo:
    """Keeps documents. Fails while `error` is set, and refuses the ids in `never` and `puzzling`."""

    def __init__(self):
        self.documents, self.order, self.asked, self.error, self.never, self.puzzling = {}, [], 0, None, set(), set()
        self.before = lambda: None

    def known(self, ids):
        if self.error:
            raise self.error
        return len(self.documents.keys() & set(ids))

    def insert(self, documents):
        self.asked += 1
        self.before()
        if self.error:
            raise self.error
        decoded = [decode_bson(document) for document in documents]
        if any(document["_id"] in self.puzzling for document in decoded):
            raise SinkRefused("what is this?")
        refused = {index: "MongoDB: never" for index, document in enumerate(decoded) if document["_id"] in self.never}
        taken = [document for index, document in enumerate(decoded) if index not in refused]
        duplicates = [index for index, document in enumerate(taken) if document["_id"] in self.documents]
        self.order += [document["_id"] for document in taken if document["_id"] not in self.documents]
        self.documents |= {document["_id"]: document for document in taken}
        return Inserted(duplicates, refused)


@pytest.fixture
def mongo():
    return MemoryMongo()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def make_spool(tmp_path, clock, metrics):
    def make(**changes):
        limits = {"max_bytes": 10_000_000, "segment_bytes": 2048, "known_ids": 0, "ttl_days": 90, "is_store": False}
        spool = SpoolSink(tmp_path / "spool", metrics=metrics, clock=clock, **{**limits, **changes})
        spool.open()
        return spool

    return make


@pytest.fixture
def spool(make_spool):
    return make_spool()


@pytest.fixture
def make(spool, mongo, clock, metrics):
    made = []

    def make():
        made.append(Drainer(spool, mongo, clock, metrics, target="db/a", max_per_second=10**9, is_busy=lambda: False))
        return made[-1]

    yield make
    for drainer in made:
        drainer._lock.release()


def run_round(drainer):
    """Run one round, without a rest between chunks."""
    return drainer._run_round(Event())


def write(folder, name, *lines):
    """Make a segment whose writer is gone."""
    folder.mkdir(exist_ok=True)
    path = folder / f"events-{name}.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def test_the_spool_is_moved_into_mongo_in_its_order_and_its_files_are_deleted(make, spool, mongo):
    write(spool.folder, "0002-1-a", line("c"), line("d"))
    write(spool.folder, "0001-1-b", line("a"), line("b"))
    run_round(make())
    assert mongo.order == ["a", "b", "c", "d"]
    assert segments(spool.folder) == []


def test_the_segment_of_a_living_writer_is_moved_and_kept_until_the_writer_closes_it(make, spool, mongo):
    drainer = make()
    spool.write([event("a")])
    run_round(drainer)
    assert mongo.order == ["a"]
    assert len(segments(spool.folder)) == 1
    spool.write([event("b")])
    run_round(drainer)
    assert mongo.order == ["a", "b"]
    spool.close()
    run_round(drainer)
    assert segments(spool.folder) == []
    assert mongo.asked == 2, "acknowledged events are not sent again"


def test_a_line_that_its_writer_has_not_finished_is_not_moved(make, spool, mongo):
    spool.write([event("a")])
    path = segments(spool.folder)[0]
    with open(path, "ab") as file:
        file.write(b'{"_id":"ha')
    drainer = make()
    run_round(drainer)
    with open(path, "ab") as file:
        file.write(line("half")[10:])
    spool.close()
    run_round(drainer)
    assert mongo.order == ["a", "half"]
    assert not RejectedFile(path).path.exists()


def test_while_mongo_is_away_nothing_is_deleted_and_the_waits_grow(make, spool, mongo):
    write(spool.folder, "0001-1-a", line("a"))
    drainer, mongo.error = make(), StorageUnavailable("away")
    waits = [run_round(drainer) for _ in range(4)]
    assert waits == sorted(waits) and waits[0] < waits[-1]
    assert len(segments(spool.folder)) == 1
    mongo.error = None
    run_round(drainer)
    assert mongo.order == ["a"]


def test_after_a_lost_answer_the_events_are_sent_again_and_stored_once(make, spool, mongo):
    write(spool.folder, "0001-1-a", line("a"), line("b"))
    insert = mongo.insert

    def lose_the_answer(documents):
        insert(documents)
        mongo.insert = insert
        raise StorageUnavailable("the connection was closed")

    mongo.insert = lose_the_answer
    drainer = make()
    run_round(drainer)
    assert len(segments(spool.folder)) == 1
    run_round(drainer)
    assert mongo.order == ["a", "b"]
    assert segments(spool.folder) == []


def test_a_line_that_is_no_event_goes_to_the_rejected_file_and_holds_up_no_other(make, spool, mongo, metrics):
    path = write(spool.folder, "0001-1-a", line("a"), b"nonsense\n", line("b"), line("torn")[:-9])
    run_round(make())
    assert mongo.order == ["a", "b"]
    assert segments(spool.folder) == []
    assert RejectedFile(path).path.read_text().count("\n") == 2
    assert metrics.spool_rejected_lines_total._value.get() == 2


def test_an_event_that_mongo_will_never_take_goes_to_the_rejected_file(make, spool, mongo):
    path = write(spool.folder, "0001-1-a", line("a"), line("bad"), line("b"))
    mongo.never = {"bad"}
    run_round(make())
    assert mongo.order == ["a", "b"]
    assert "MongoDB: never" in RejectedFile(path).path.read_text()
    assert segments(spool.folder) == []


def test_a_segment_that_mongo_refuses_for_an_unforeseen_reason_waits_and_does_not_hold_up_the_next(make, spool, mongo):
    write(spool.folder, "0001-1-a", line("odd"))
    write(spool.folder, "0002-1-a", line("b"))
    mongo.puzzling = {"odd"}
    drainer = make()
    assert run_round(drainer) > 0
    assert mongo.order == ["b"]
    assert [path.name for path in segments(spool.folder)] == ["events-0001-1-a.jsonl"]
    assert "what is this?" in drainer.backlog.check()["waitsFor"]
    mongo.puzzling = set()
    run_round(drainer)
    assert segments(spool.folder) == []
    assert "waitsFor" not in drainer.backlog.check()


def test_a_segment_that_cannot_be_read_does_not_hold_up_the_next(make, spool, mongo):
    (spool.folder / "events-0001-1-a.jsonl").mkdir()
    write(spool.folder, "0002-1-a", line("b"))
    run_round(make())
    assert mongo.order == ["b"]


def test_a_segment_is_kept_while_its_rejected_file_cannot_be_written(make, spool, mongo):
    path = write(spool.folder, "0001-1-a", b"nonsense\n")
    RejectedFile(path).path.mkdir()
    write(spool.folder, "0002-1-a", line("b"))
    drainer = make()
    run_round(drainer)
    assert path.exists()
    assert mongo.order == ["b"]
    RejectedFile(path).path.rmdir()
    run_round(drainer)
    assert not path.exists() and RejectedFile(path).path.exists()


def test_a_restarted_drainer_continues_from_the_saved_offset(make, spool, mongo):
    write(spool.folder, "0001-1-a", *[line(f"e{n}") for n in range(1200)])
    first, stop = make(), Event()
    mongo.before = lambda: stop.set() if mongo.asked == 2 else None
    first._run_round(stop)
    first._progress.save()
    first._lock.release()
    assert mongo.asked == 2
    run_round(make())
    assert mongo.asked == 3
    assert mongo.order == [f"e{n}" for n in range(1200)]


def test_a_segment_that_was_rewritten_in_place_is_moved_from_its_start(make, spool, mongo):
    path = write(spool.folder, "0001-1-a", *[line(f"e{n:04}") for n in range(1200)])
    first, stop = make(), Event()
    mongo.before = lambda: stop.set() if mongo.asked == 2 else None
    first._run_round(stop)
    first._progress.save()
    first._lock.release()
    with open(path, "rb+") as file:
        file.seek(300 * len(line("e0000")))
        file.write(line("x0000"))
    run_round(make())
    assert len(mongo.documents) == 1201


def test_only_one_of_two_drainers_moves_events_and_the_other_takes_over(make, spool, mongo):
    first, second = make(), make()
    write(spool.folder, "0001-1-a", line("a"))
    run_round(first)
    write(spool.folder, "0002-1-a", line("b"))
    run_round(second)
    assert mongo.order == ["a"]
    first._lock.release()
    run_round(second)
    assert mongo.order == ["a", "b"]


def test_the_drainer_stops_between_two_chunks(make, spool, mongo):
    write(spool.folder, "0001-1-a", *[line(f"e{n}") for n in range(2000)])
    stop = Event()
    mongo.before = stop.set
    make().run(stop)
    assert len(mongo.order) == 500


def test_the_ttl_never_deletes_events_that_wait_for_mongo(make_spool, clock):
    spool = make_spool(ttl_days=1)
    path = write(spool.folder, "0001-1-a", line("a"))
    os.utime(path, (0, 0))
    clock.pass_ms(10**12)
    spool.tend()
    assert path.exists()


def test_a_writer_closes_its_segment_when_it_is_no_longer_written_to(make, spool, mongo, monkeypatch):
    drainer = make()
    spool.write([event("a")])
    drainer.backlog.watch()
    run_round(drainer)
    assert len(segments(spool.folder)) == 1
    monkeypatch.setattr("app.telemetry.sinks.spool.UNUSED_S", 0)
    drainer.backlog.watch()
    run_round(drainer)
    assert segments(spool.folder) == []


def test_while_mongo_is_away_an_unused_segment_is_not_closed(make, spool, mongo, monkeypatch):
    monkeypatch.setattr("app.telemetry.sinks.spool.UNUSED_S", 0)
    drainer, mongo.error = make(), StorageUnavailable("away")
    for n in range(5):
        spool.write([event(f"e{n}")])
        run_round(drainer)
        drainer.backlog.watch()
    assert len(segments(spool.folder)) == 1


def test_health_is_degraded_while_there_is_a_backlog_and_shows_its_size_and_age(make, spool, mongo, clock):
    drainer = make()
    assert (drainer.backlog.check()["state"], drainer.backlog.check()["draining"]) == ("up", False)
    write(spool.folder, "0001-1-a", line("a"))
    clock.pass_ms(5000)
    report = drainer.backlog.check()
    assert report["state"] == "degraded"
    assert (report["backlogBytes"], report["backlogSegments"], report["oldestAgeMs"]) == (len(line("a")), 1, 5000)
    run_round(drainer)
    report = drainer.backlog.check()
    assert (report["state"], report["backlogBytes"], report["oldestAgeMs"], report["drained"]) == ("up", 0, 0, 1)


def test_every_worker_reports_the_same_backlog(make, spool, mongo):
    working, standing_by = make(), make()
    write(spool.folder, "0001-1-a", line("a"))
    mongo.error = StorageUnavailable("away")
    run_round(working)
    assert working.backlog.check() == standing_by.backlog.check()
    assert standing_by.backlog.check()["waitsFor"].startswith("MongoDB")
    mongo.error = None
    run_round(working)
    assert working.backlog.check() == standing_by.backlog.check()


def test_the_age_of_the_backlog_is_never_negative_after_the_clock_was_set_back(make, spool, clock):
    write(spool.folder, "0001-1-a", line("a"))
    clock.pass_ms(-10_000_000)
    assert make().backlog.check()["oldestAgeMs"] == 0


def test_a_segment_that_another_process_deletes_is_no_trouble(make, spool, mongo):
    path = write(spool.folder, "0001-1-a", *[line(f"e{n}") for n in range(600)])
    mongo.before = lambda: path.unlink(missing_ok=True)
    drainer = make()
    run_round(drainer)
    assert len(mongo.order) == 600
    assert "waitsFor" not in drainer.backlog.check()


def test_no_segment_is_deleted_while_a_writer_adds_to_it(make, spool, mongo):
    """Five writers begin a segment for nearly every event while a drainer runs without a rest."""
    drainer, stop = make(), Event()
    spool._writer._segment_bytes = 200
    draining = gevent.spawn(lambda: [(run_round(drainer), gevent.sleep(0)) for _ in range(400) if not stop.is_set()])
    writers = [gevent.spawn(lambda n=n: [spool.write([event(f"w{n}-{i}")]) for i in range(40)]) for n in range(5)]
    gevent.joinall(writers, raise_error=True)
    stop.set()
    draining.join()
    spool.close()
    run_round(drainer)
    assert sorted(mongo.order) == sorted(f"w{n}-{i}" for n in range(5) for i in range(40))
    assert segments(spool.folder) == []


def test_a_new_segment_is_locked_before_it_appears_in_the_folder(spool, monkeypatch):
    def lock(fd):
        assert segments(spool.folder) == [], "a drainer would delete it, since it looks as if its writer were gone"
        return lock_alone(fd)

    monkeypatch.setattr("app.storage.segments.writer.lock_alone", lock)
    spool.write([event("a")])
    (path,) = segments(spool.folder)
    assert has_writer(path)
    spool.close()
    assert not has_writer(path)


# MongoDB is restored from a backup: it gets again all events of the segments that still exist.


def half_moved(make, spool, mongo):
    """Return a drainer that was stopped after two chunks, and a backup that MongoDB made after the first."""
    write(spool.folder, "0001-1-a", *[line(f"e{n}") for n in range(1200)])
    drainer, stop, backup = make(), Event(), {}
    mongo.before = lambda: (backup.update(mongo.documents), stop.set()) if mongo.asked == 2 else None
    drainer._run_round(stop)
    mongo.before = lambda: None
    assert len(backup) == 500 and len(mongo.documents) == 1000
    return drainer, backup


@pytest.mark.parametrize("how", ["by the next process", "by the same one, after MongoDB was away", "by the same one, before it deletes"])
def test_a_database_restored_from_a_backup_gets_the_whole_segment_again(make, spool, mongo, how):
    drainer, backup = half_moved(make, spool, mongo)
    mongo.documents = backup
    if how == "by the next process":
        drainer._progress.save()
        drainer._lock.release()
        drainer = make()
    elif how == "by the same one, after MongoDB was away":
        mongo.error = StorageUnavailable("away")
        run_round(drainer)
        mongo.error = None
    else:
        mongo.before = lambda: mongo.documents.clear() if mongo.asked == 3 else None
    run_round(drainer)
    assert mongo.documents.keys() == {f"e{n}" for n in range(1200)}
    assert segments(spool.folder) == []


def test_rejected_lines_do_not_count_as_missing_events(make, spool, mongo):
    write(spool.folder, "0001-1-a", line("a"), *[line(f"bad{n}") for n in range(150)], b"nonsense\n")
    mongo.never = {f"bad{n}" for n in range(150)}
    run_round(make())
    assert segments(spool.folder) == []
    assert mongo.asked == 1


def test_events_that_are_deleted_right_after_they_are_stored_are_moved_twice_and_no_more(make, spool, mongo):
    write(spool.folder, "0001-1-a", line("a"))
    mongo.known = lambda ids: 0
    run_round(make())
    assert segments(spool.folder) == []
    assert mongo.asked == 2
