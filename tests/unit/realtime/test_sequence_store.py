"""(topic, epoch, seq) never names two messages, and nothing is passed over in silence: what a numbering may go on from."""

import os
import threading
import zlib
from contextlib import suppress
from itertools import count

import orjson
import pytest

from app.realtime.log import sequence_store as sequence_store
from app.realtime.log.memory import MemoryTopicLog
from app.realtime.log.sequence_store import SLOT_BYTES, FileSequenceStore
from app.storage.segments.segment import lock_alone
from tests.apps import NOW


class Machine:
    """Processes over one data directory, as far as the numbers see them. `boot` is its start."""

    def __init__(self, folder):
        self.path, self.boot, self.running = folder / "realtime" / "numbers", "boot-1", []

    def start(self, *patterns, max_topics=100):
        """A process: its log, with the numbers as an attribute."""
        sequences = FileSequenceStore(self.path, patterns or ("t*",), max_topics, lambda: self.boot)
        log = MemoryTopicLog(max_messages=5, max_bytes=100_000, max_topics=3, sequences=sequences)
        log.sequences = sequences
        sequences.open()
        return log

    def kill(self, log):
        log.sequences.close()

    def stop(self, log):
        log.sequences.seal()
        log.sequences.close()

    def crash(self, log):
        """All of it, with what was not synced: here, the file stays as it is, which the next one must not believe."""
        log.sequences.close()
        self.boot = f"{self.boot}+"


times = count(NOW)


def append(log, topic="t", count=1):
    return [log.append(topic, b"1", next(times)) for _ in range(count)][-1]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_after_a_stop_and_after_a_kill_the_numbering_goes_on_in_its_epoch(machine, end):
    first = machine.start()
    place = append(first, count=7)
    getattr(machine, end)(first)
    second = machine.start()
    head = second.head("t")
    assert (head.epoch, head.seq, head.first) == (place.epoch, 7, 8)
    assert second.read("t", 3, 10).gone == (4, 7)
    assert second.read("t", 7, 10).gone is None
    assert (append(second).seq, append(second).epoch) == (8, place.epoch)
    assert second.read("t", 7, 10).messages[0].seq == 8


def test_after_a_crash_of_the_machine_it_begins_anew(machine):
    first = machine.start()
    place = append(first)
    machine.crash(first)
    second = machine.start()
    assert (second.head("t").seq, second.head("t").epoch != place.epoch) == (0, True)


def test_what_was_sealed_outlives_the_machine_unless_something_was_published_after(machine):
    first = machine.start()
    place = append(first)
    machine.stop(first)
    machine.boot = "boot-2"
    second = machine.start()
    assert second.head("t").epoch == place.epoch
    second.sequences.seal()
    append(second)
    machine.crash(second)
    assert machine.start().head("t").epoch != place.epoch


def test_where_the_system_does_not_say_which_boot_it_is_only_a_seal_counts(machine):
    machine.boot = None
    first = machine.start()
    place = append(first)
    machine.kill(first)
    second = machine.start()
    assert second.head("t").epoch != place.epoch
    place = append(second)
    machine.stop(second)
    assert machine.start().head("t").epoch == place.epoch


def test_a_process_that_comes_while_another_one_is_there_begins_anew_and_the_one_after_goes_on_from_it(machine):
    """Else who had a position of the first would resume at the third without a word about what the second published."""
    first = machine.start()
    append(first, count=3)
    second = machine.start()
    assert second.head("t").seq == 0
    place = append(second, count=2)
    append(first)
    machine.stop(first)
    machine.stop(second)
    third = machine.start()
    assert (third.head("t").epoch, third.head("t").seq) == (place.epoch, 2)


def test_a_topic_that_was_not_durable_in_between_begins_anew(machine):
    first = machine.start("t*")
    place = append(first)
    machine.stop(first)
    machine.stop(machine.start("other"))
    assert machine.start("t*").head("t").epoch != place.epoch


def test_without_durable_topics_the_file_goes(machine):
    log = machine.start()
    append(log)
    machine.stop(log)
    FileSequenceStore(machine.path, (), 100).open()
    assert not machine.path.exists()


def test_a_topic_that_the_log_forgets_goes_on_with_what_was_forgotten_gone(machine):
    log = machine.start()
    place = append(log, "t", 2)
    append(log, "x1"), append(log, "x2"), append(log, "x3")
    assert log.head("t").first == 3
    assert (append(log, "t").seq, append(log, "t").epoch) == (3, place.epoch)


def test_a_topic_that_is_not_durable_is_not_in_the_file(machine):
    log = machine.start()
    append(log, "x")
    machine.kill(log)
    assert machine.start().head("x").seq == 0
    assert machine.path.stat().st_size == SLOT_BYTES


def test_of_too_many_topics_the_one_used_least_recently_begins_anew(machine):
    log = machine.start(max_topics=3)
    for topic in ("t1", "t2", "t3", "t1", "t4"):
        append(log, topic)
    assert machine.path.stat().st_size == 4 * SLOT_BYTES
    machine.kill(log)
    again = machine.start(max_topics=3)
    assert [again.head(topic).seq for topic in ("t1", "t2", "t3", "t4")] == [2, 0, 1, 1]
    machine.kill(again)
    fewer = machine.start(max_topics=2)
    assert [fewer.head(topic).seq for topic in ("t1", "t3", "t4")] == [2, 0, 1]


def test_the_longest_topic_has_room(machine):
    log = machine.start()
    append(log, "t" * 255)
    machine.kill(log)
    assert machine.start().head("t" * 255).seq == 1


def test_when_the_disk_is_in_trouble_publishing_goes_on_and_the_next_process_begins_anew(machine, monkeypatch):
    log = machine.start()
    place = append(log)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert append(log).seq == 2
    assert append(log).seq == 3
    machine.stop(log)
    assert machine.start().head("t").epoch != place.epoch


@pytest.mark.parametrize("content", [b"", b"x", b"{}" + b" " * 509 + b"\n", b"[1]", b"\0" * 2048])
def test_a_file_that_makes_no_sense_is_replaced(machine, content):
    machine.path.parent.mkdir()
    machine.path.write_bytes(content)
    log = machine.start()
    append(log)
    machine.kill(log)
    assert machine.start().head("t").seq == 1


def test_a_folder_that_cannot_be_used_costs_the_numbering_and_nothing_else(machine):
    machine.path.parent.write_text("in the way")
    log = machine.start()
    assert append(log).seq == 1
    log.sequences.seal()


def in_slot(row):
    text = orjson.dumps(row).ljust(SLOT_BYTES - 9)
    return text + b"%08x\n" % zlib.crc32(text)


GOOD = {"topic": "t", "epoch": "e", "seq": 3, "at": NOW}
HEADER = {"boot": None, "isSealed": True}


def left(machine, content):
    machine.path.parent.mkdir()
    machine.path.write_bytes(content)
    return machine.start().head("t")


def test_a_file_in_which_every_slot_is_right_is_taken_over(machine):
    head = left(machine, in_slot(HEADER) + in_slot(GOOD))
    assert (head.epoch, head.seq) == ("e", 3)


@pytest.mark.parametrize(
    "row",
    [
        {"name": "t", "epoch": "e", "seq": 3, "at": NOW},
        *({**GOOD, key: None} for key in GOOD),
        {**GOOD, "topic": 1},
        {**GOOD, "epoch": ""},
        {**GOOD, "seq": -1},
        {**GOOD, "seq": 3.5},
        {**GOOD, "seq": True},
        {**GOOD, "at": "now"},
        {**GOOD, "topic": "t1"},
        [1],
        None,
        "t",
    ],
)
def test_one_row_that_makes_no_sense_costs_the_numbering_and_not_the_start(machine, row):
    other = {**GOOD, "topic": "t1"}
    head = left(machine, in_slot(HEADER) + in_slot(GOOD) + in_slot(other) + in_slot(row))
    assert (head.seq, head.epoch != "e") == (0, True)


@pytest.mark.parametrize("header", [{}, [], None, {"boot": None, "isSealed": "no"}, {"boot": [], "isSealed": False}])
def test_a_header_that_makes_no_sense_vouches_for_nothing(machine, header):
    assert left(machine, in_slot(header) + in_slot(GOOD)).seq == 0


def test_a_changed_digit_is_not_believed(machine):
    assert left(machine, in_slot(HEADER) + in_slot(GOOD).replace(b'"seq":3', b'"seq":2')).seq == 0


def test_a_file_of_the_form_without_checksums_is_not_believed(machine):
    slots = [orjson.dumps(row).ljust(SLOT_BYTES - 1) + b"\n" for row in (HEADER, GOOD)]
    assert left(machine, b"".join(slots)).seq == 0


def test_whatever_else_goes_wrong_at_the_start_does_not_stop_it(machine, monkeypatch):
    append(log := machine.start())
    machine.kill(log)
    monkeypatch.setattr(FileSequenceStore, "_begin", lambda *_: 1 / 0)
    log = machine.start()
    assert (append(log).seq, machine.path.exists()) == (1, False)


def test_of_two_that_begin_at_once_only_one_goes_on_in_the_epoch(machine, monkeypatch):
    """Each has its own files open, as two processes have; both are held up where the old file was read and the new one is not there."""
    for _ in range(5):
        place = append(first := machine.start())
        machine.kill(first)
        both, begin = threading.Barrier(2), FileSequenceStore._begin
        logs = []

        def slowly(numbers, rows, both=both, begin=begin):
            with suppress(threading.BrokenBarrierError):
                both.wait(0.1)
            begin(numbers, rows)

        with monkeypatch.context() as patch:
            patch.setattr(FileSequenceStore, "_begin", slowly)
            patch.setattr(os, "getpid", threading.get_ident)
            threads = [threading.Thread(target=lambda logs=logs: logs.append(machine.start())) for _ in range(2)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
        assert sorted(log.head("t").epoch == place.epoch for log in logs) == [False, True]
        [machine.kill(log) for log in logs]


def test_the_old_file_is_held_until_the_new_one_is_in_its_place(machine, monkeypatch):
    append(first := machine.start())
    machine.kill(first)
    could_lock, rename = [], type(machine.path).rename

    def look(half, path):
        with open(path, "rb") as old:
            could_lock.append(lock_alone(old.fileno()))
        return rename(half, path)

    monkeypatch.setattr(type(machine.path), "rename", look)
    assert machine.start().head("t").seq == 1
    assert could_lock == [False]


def test_who_does_not_get_its_turn_starts_without_the_numbers(machine, monkeypatch):
    place = append(first := machine.start())
    machine.kill(first)
    monkeypatch.setattr(sequence_store, "TURN_WITHIN_S", 0.05)
    with open(machine.path.with_name("numbers.lock"), "w") as other:
        assert lock_alone(other.fileno())
        log = machine.start()
    assert (append(log).seq, log.head("t").epoch != place.epoch) == (1, True)


def fails(*_, **__):
    raise OSError(30, "Read-only file system")


def test_a_file_that_cannot_be_removed_is_spoiled(machine, monkeypatch):
    for cannot in (["unlink"], ["unlink", "ftruncate"]):
        place = append(log := machine.start())
        with monkeypatch.context() as patch:
            patch.setattr(type(machine.path), "unlink", fails)
            if "ftruncate" in cannot:
                patch.setattr(os, "ftruncate", fails)
            patch.setattr(log.sequences, "_slot_of", fails)
            after = append(log)
        assert (after.epoch, after.seq) == (place.epoch, place.seq + 1)
        machine.kill(log)
        assert machine.path.exists()
        assert (again := machine.start()).head("t").epoch != place.epoch
        machine.kill(again)


def test_when_the_file_can_neither_be_removed_nor_spoiled_every_durable_topic_goes_on_in_a_new_epoch(machine, monkeypatch):
    log = machine.start()
    places = {topic: append(log, topic, 2) for topic in ("t1", "t2", "x")}
    with monkeypatch.context() as patch:
        patch.setattr(type(machine.path), "unlink", fails)
        patch.setattr(os, "ftruncate", fails)
        patch.setattr(os, "pwrite", fails)
        first = append(log, "t1")
    assert (first.seq, first.epoch != places["t1"].epoch) == (1, True)
    assert (append(log, "t1").seq, append(log, "t1").epoch) == (2, first.epoch)
    assert log.head("t2").epoch != places["t2"].epoch
    assert (append(log, "x").seq, log.head("x").epoch) == (3, places["x"].epoch)
    later = machine.start()
    assert [(later.head(topic).epoch, later.head(topic).seq) for topic in ("t1", "t2")] == [
        (places["t1"].epoch, 2),
        (places["t2"].epoch, 2),
    ]


def test_what_is_published_after_a_seal_that_failed_and_left_the_file_behind_is_in_a_new_epoch(machine, monkeypatch):
    place = append(log := machine.start())
    with monkeypatch.context() as patch:
        patch.setattr(type(machine.path), "unlink", fails)
        for call in ("ftruncate", "pwrite", "fsync"):
            patch.setattr(os, call, fails)
        log.sequences.seal()
    assert append(log).epoch != place.epoch


def test_the_file_is_held_until_it_is_removed(machine, monkeypatch):
    append(log := machine.start())
    could_lock, unlink = [], type(machine.path).unlink

    def look(path, **options):
        with open(path, "rb") as file:
            could_lock.append(lock_alone(file.fileno()))
        unlink(path, **options)

    monkeypatch.setattr(type(machine.path), "unlink", look)
    monkeypatch.setattr(log.sequences, "_slot_of", fails)
    append(log)
    assert could_lock == [False]


def test_a_user_with_thousands_of_topics_takes_no_numbering_of_others(machine):
    log = machine.start(max_topics=16)
    kept = {"t:server": None, "t:service": "billing", "t:ann": "ann"}
    places = {topic: log.append(topic, b"1", next(times), None, user, user == "billing") for topic, user in kept.items()}
    for number in range(100):
        log.append(f"t:new:{number}", b"1", next(times), None, "mallory")
    assert machine.path.stat().st_size <= 20 * SLOT_BYTES
    machine.kill(log)
    again = machine.start(max_topics=16)
    assert {topic: (again.head(topic).epoch, again.head(topic).seq) for topic in kept} == {
        topic: (place.epoch, place.seq) for topic, place in places.items()
    }
    again.append("t:new:99", b"1", next(times), None, "mallory")
    for number in range(100, 200):
        again.append(f"t:new:{number}", b"1", next(times), None, "mallory")
    machine.kill(again)
    third = machine.start(max_topics=16)
    assert [third.head(topic).seq for topic in kept] == [1, 1, 1], "whose topics they are outlives the process"


def test_a_topic_that_others_publish_to_keeps_its_numbering_when_its_first_publisher_gives_it_up(machine):
    log = machine.start(max_topics=16)

    def publish(user, topic):
        return log.append(topic, b"1", next(times), None, user)

    publish("mallory", "t:chat"), publish("mallory", "t:chat:2")
    place, other = publish("ann", "t:chat"), publish("bob", "t:chat:2")
    for round_ in range(2):
        for number in range(100):
            publish("mallory", f"t:new:{round_}:{number}")
        machine.kill(log)
        log = machine.start(max_topics=16)
    assert (log.head("t:chat").epoch, log.head("t:chat").seq) == (place.epoch, place.seq)
    assert (log.head("t:chat:2").epoch, log.head("t:chat:2").seq) == (other.epoch, other.seq)


def test_parties_that_take_turns_at_giving_topics_up_end_no_numbering_of_a_third(machine):
    log = machine.start(max_topics=16)
    for user in ("mallory", "eve", "ann", "eve", "trent", "peggy", "mallory"):
        place = log.append("t:chat", b"1", next(times), None, user)
    for number in range(200):
        log.append(f"t:new:{number}", b"1", next(times), None, ("mallory", "eve", "trent", "peggy")[number // 50])
    machine.kill(log)
    again = machine.start(max_topics=16)
    assert (again.head("t:chat").epoch, again.head("t:chat").seq) == (place.epoch, place.seq)


def test_the_longest_topic_has_room_with_all_that_publish_to_it(machine):
    log = machine.start()
    for user in range(10):
        log.append("t" * 255, b"1", next(times), None, f"user {user}")
    log.sequences.record("t" * 255, "e" * 24, 2**53 - 1, next(times), "0123456789ab")
    machine.kill(log)
    assert machine.start().head("t" * 255).seq == 2**53 - 1
