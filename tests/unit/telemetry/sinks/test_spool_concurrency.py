"""One event that comes several times at once, to one process and to several: it is new once, read once, and durable for each answer."""

import itertools
import subprocess
import sys
from pathlib import Path

import gevent
import pytest

from app.storage.errors import StorageUnavailable
from app.telemetry.query import EventQuery, decode_cursor
from app.telemetry.sinks.id_reservations import RECORD, IdReservations
from app.telemetry.spool.event_lines import decode, segments
from tests.apps import NOW
from tests.contracts.test_event_sinks import events, make_spool

ROOT = Path(__file__).parents[4]
ticks = itertools.count(NOW)


def now_events(*ids):
    """Without a `ts`: each copy has the time of its own arrival."""
    return [event for id_ in ids for event in events(f"n{id_}", eventId=id_, now=next(ticks))]


def lines(folder):
    return [decode(line) for path in segments(folder) for line in path.read_bytes().splitlines()]


def read(spool, limit=1000):
    found, after = [], None
    while True:
        page = spool.find(EventQuery(exact={}, after=after, limit=limit))
        found += [event.name for event in page.events]
        if page.next_cursor is None:
            return found
        after = decode_cursor(page.next_cursor)


def test_eight_writers_of_the_same_events_at_once_store_and_count_each_once(tmp_path):
    spool, names = make_spool(tmp_path), [str(number) for number in range(30)]
    writers = [gevent.spawn(spool.write, now_events(*names[start:], *names[:start])) for start in range(0, 24, 3)]
    gevent.joinall(writers, raise_error=True)
    assert sum(len(names) - writer.value.duplicates for writer in writers) == 30
    assert sorted(event.name for event in lines(tmp_path)) == sorted(read(spool)) == sorted(f"n{name}" for name in names)


def test_who_waited_for_a_write_that_failed_writes_the_event_itself(tmp_path, monkeypatch):
    spool, failures = make_spool(tmp_path), [StorageUnavailable("no room", code="storage_full"), StorageUnavailable("read-only")]
    append = spool._append

    def fail_first(text):
        gevent.sleep(0.01)
        if failures:
            raise failures.pop(0)
        append(text)

    monkeypatch.setattr(spool, "_append", fail_first)
    writers = [gevent.spawn(spool.write, now_events("1")) for _ in range(4)]
    gevent.joinall(writers)
    assert [str(writer.exception) for writer in writers[:2]] == ["no room", "read-only"]
    assert [writer.value.duplicates for writer in writers[2:]] == [0, 1]
    assert len(lines(tmp_path)) == 1


def test_no_answer_comes_before_a_durable_copy(tmp_path):
    spool, other = make_spool(tmp_path), make_spool(tmp_path)
    spool._shared.reserve([now_events("1")[0].id])  # and its process has not written it yet
    assert other.write(now_events("1")).duplicates == 1
    assert len(lines(tmp_path)) == 1


def test_a_process_that_could_not_write_gives_the_id_back(tmp_path, monkeypatch):
    spool, other = make_spool(tmp_path), make_spool(tmp_path)

    def fail(_):
        raise StorageUnavailable("no room", code="storage_full")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "_append", fail)
        with pytest.raises(StorageUnavailable):
            spool.write(now_events("1"))
    assert other.write(now_events("1")).duplicates == 0
    assert spool.write(now_events("1")).duplicates == 1


def test_a_new_first_process_does_not_believe_reservations_of_a_dead_one(tmp_path):
    dead = make_spool(tmp_path)
    dead._shared.reserve([now_events("1")[0].id])
    dead.close()
    assert make_spool(tmp_path).write(now_events("1")).duplicates == 0


WRITING = """
import sys
from pathlib import Path
import gevent
from tests.unit.telemetry.sinks.test_spool_concurrency import make_spool, now_events
spool = make_spool(Path(sys.argv[1]), segment_bytes=4096)
print("ready", flush=True)
sys.stdin.readline()
new = 0
for start in range(0, 90, 3):
    names = [str(number) for number in range(start, start + 3)]
    writers = [gevent.spawn(spool.write, now_events(*names)) for _ in range(4)]
    gevent.joinall(writers, raise_error=True)
    new += sum(len(names) - writer.value.duplicates for writer in writers)
print(new)
"""


def test_four_processes_that_get_the_same_events_at_once_count_and_read_each_once(tmp_path):
    command = [sys.executable, "-c", WRITING, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert sum(map(int, answers)) == 90
    assert sorted(read(make_spool(tmp_path, known_ids=0), limit=7)) == sorted(f"n{number}" for number in range(90))


# Reading by the id alone


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_copies_with_times_of_their_own_are_read_once_at_the_newest_whatever_the_pages(tmp_path, limit):
    forgetful = make_spool(tmp_path, known_ids=0, segment_bytes=500)
    for name in ("a", "b", "a", "c", "b", "d", "a"):
        forgetful.write(now_events(name))
    assert read(forgetful, limit) == ["na", "nd", "nb", "nc"]


def test_a_copy_in_an_older_segment_than_its_newest_is_found_too(tmp_path):
    forgetful = make_spool(tmp_path, known_ids=0)
    early, between, late = now_events("a"), now_events("b"), now_events("a")
    for batch in (late, between, early):
        forgetful.write(batch)
        forgetful.close()
    assert read(forgetful, 1) == ["na", "nb"]


# The shared file


def ids(*names):
    return [events("a", eventId=name)[0].id for name in names]


def test_an_id_is_free_for_one_process_only(tmp_path):
    first, second = IdReservations(tmp_path, 100), IdReservations(tmp_path, 100)
    assert first.reserve(ids("a", "b")) == []
    assert second.reserve(ids("b", "c")) == ids("b")
    assert first.reserve(ids("c", "d")) == ids("c")
    second.give_back(ids("c"))
    assert first.reserve(ids("c")) == []


def test_a_file_that_grows_too_large_is_replaced_for_all_processes(tmp_path):
    first, second = IdReservations(tmp_path, 10), IdReservations(tmp_path, 10)
    for number in range(50):
        assert first.reserve(ids(f"{number}")) == []
        assert second.reserve(ids(f"{number}")) == ids(f"{number}")
    assert (tmp_path / ".ids").stat().st_size <= 22 * RECORD


def test_a_record_that_was_cut_off_is_written_over(tmp_path):
    first, second = IdReservations(tmp_path, 100), IdReservations(tmp_path, 100)
    first.reserve(ids("a"))
    with open(tmp_path / ".ids", "ab") as file:
        file.write(b"+e12")
    assert second.reserve(ids("b")) == []
    assert first.reserve(ids("b", "c")) == ids("b")
    assert second.reserve(ids("a", "c")) == ids("a", "c")


def test_where_the_file_cannot_be_written_nothing_is_known_of_others_and_nothing_else_fails(tmp_path):
    (tmp_path / ".ids").mkdir()
    assert IdReservations(tmp_path, 100).reserve(ids("a")) == []
    assert make_spool(tmp_path).write(events("a", eventId="a")).duplicates == 0
