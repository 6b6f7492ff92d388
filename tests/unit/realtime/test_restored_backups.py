"""What a process knows of the ones before it: the ids that were answered, and whether its files or its machine were put back.

(topic, epoch, seq) never names two messages, and a message that was acknowledged is not lost to another one.
"""

import os
import shutil
import time

import pytest
import structlog

from app.clock import system_clock
from app.metrics import Metrics
from app.realtime.archive.archive import DurableArchive
from app.realtime.archive.spool import MessageSpool
from app.realtime.log.memory import MemoryTopicLog
from app.realtime.log.sequence_store import SLOT_BYTES, TOUCHED_MS, FileSequenceStore, _put, _row
from tests.apps import Clock
from tests.unit.realtime.memory_messages import MemoryMessages


class Server:
    """Processes over one data directory and one MongoDB. `boot` is the start of the machine."""

    def __init__(self, folder):
        self.folder = folder / "data"
        self.store, self.clock, self.boot, self.given = MemoryMessages(), Clock(), "boot-1", {}

    def start(self):
        self.clock.pass_ms(10_000)
        self.sequences = FileSequenceStore(self.folder / "realtime" / "numbers", ("t*",), 100, lambda: self.boot)
        self.log = MemoryTopicLog(max_messages=50, max_bytes=100_000, max_topics=100, sequences=self.sequences)
        self.spool = MessageSpool(self.folder / "realtime", 1_000_000, self.clock)
        self.archive = DurableArchive(self.store, self.spool, ("t*",), 100_000, self.clock, Metrics(), numbering=self.log)
        self.log.listen(self.archive.add)
        self.sequences.open()
        self.archive.open()

    def publish(self, topic="t", count=1, id=None, user="u"):
        for _ in range(count):
            self.clock.pass_ms(1)
            payload = b"%d" % len(self.given)
            appended = self.log.append(topic, payload, self.clock(), id, user)
            if not appended.duplicate:
                place = (topic, appended.epoch, appended.seq)
                assert place not in self.given, f"{place} is given twice"
                self.given[place] = payload
        return appended

    def save(self):
        for _ in range(4):
            self.archive.turn()

    def rest(self):
        self.clock.pass_ms(10_000)
        self.save()

    def stop(self):
        self.sequences.seal()
        self.save()
        self.kill()

    def kill(self):
        self.sequences.close()
        self.spool.close()

    def stored_payloads(self):
        return sorted(int(message.payload) for message in self.store.messages.values())

    def epoch(self, topic="t"):
        return self.log.head(topic).epoch


@pytest.fixture(autouse=True)
def log_on_stdout():
    """An application that another test made in this process has sent the log elsewhere."""
    structlog.reset_defaults()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


# A publisher repeats an id


def test_an_id_that_is_repeated_after_a_stop_gets_the_first_answer(server):
    first = server.publish(id="m1")
    server.stop()
    server.start()
    again = server.publish(id="m1")
    assert (again.duplicate, again.seq, again.epoch) == (True, first.seq, first.epoch)
    assert not server.publish(id="m1", user="other").duplicate
    assert not server.publish("t2", id="m1").duplicate


def test_an_id_that_is_repeated_after_a_kill_gets_the_first_answer_where_the_message_is_on_the_disk(server):
    server.store.is_away = True
    first = server.publish(id="m1")
    server.save()
    server.publish(id="m2")
    server.kill()
    server.start()
    assert server.publish(id="m1") == first._replace(duplicate=True)
    assert not server.publish(id="m2").duplicate, "what the kill took with it is published now"


def test_an_id_is_known_again_after_a_crash_of_the_machine(server):
    first = server.publish(id="m1")
    server.save()
    server.kill()
    server.boot = "boot-2"
    server.start()
    assert server.epoch() != first.epoch
    assert server.publish(id="m1") == first._replace(duplicate=True)


def test_ids_that_mongodb_has_are_known_as_soon_as_it_answers(server):
    first = server.publish(id="m1")
    server.stop()
    server.store.is_away = True
    server.start()
    server.publish(id="m2")
    server.store.is_away = False
    server.rest()
    assert server.publish(id="m1") == first._replace(duplicate=True)


def test_an_answer_of_this_process_is_not_replaced_by_one_of_the_archive(server):
    server.publish(id="m1")
    server.stop()
    server.store.is_away = True
    server.start()
    second = server.publish(id="m1")
    server.store.is_away = False
    server.rest()
    assert server.publish(id="m1") == second._replace(duplicate=True)


# DATA_DIR or the machine is put back


def snapshot(server, to):
    shutil.copytree(server.folder, to)


def put_back(server, copy, *, reuses_inodes):
    path = server.folder / "realtime" / "numbers"
    inode = path.stat().st_ino
    shutil.rmtree(server.folder)
    shutil.copytree(copy, server.folder)
    if not reuses_inodes:
        while path.stat().st_ino == inode or _row(path.read_bytes()[:SLOT_BYTES])["inode"] == path.stat().st_ino:
            shutil.copy2(path, other := path.with_name("other"))
            os.rename(other, path)


@pytest.fixture
def behind(server, tmp_path, request, capsys):
    """A server whose files are those of five messages, while eight were published."""

    def make(*, in_place, is_away=False, boot="boot-1", reuses_inodes=False):
        server.publish(count=5)
        server.stop()
        if in_place:
            copy = tmp_path / "copy"
            snapshot(server, copy)
            server.start()
            server.publish(count=3)
            server.stop()
            bring_back(copy / "realtime" / "numbers", server.folder / "realtime" / "numbers")
        else:
            snapshot(server, tmp_path / "copy")
            server.start()
            server.publish(count=3)
            server.stop()
            time.sleep(TOUCHED_MS / 1000)
            put_back(server, tmp_path / "copy", reuses_inodes=reuses_inodes)
        server.store.is_away, server.boot = is_away, boot
        capsys.readouterr()
        server.start()
        return server

    return make


def bring_back(copy, path):
    """As a snapshot of a machine does it, with the inode and the times of the file: so far as they are known from its header."""
    shutil.copy(copy, path)
    with open(path, "rb+") as file:
        header = _row(file.read(SLOT_BYTES))
        _put(file.fileno(), 0, {**header, "inode": path.stat().st_ino, "written": system_clock()})


@pytest.mark.parametrize("is_away", [False, True])
@pytest.mark.parametrize("reuses_inodes", [False, True])
def test_over_a_data_directory_that_was_put_back_from_a_copy_topics_begin_new_epochs(behind, capsys, is_away, reuses_inodes):
    server = behind(in_place=False, is_away=is_away, reuses_inodes=reuses_inodes)
    out = capsys.readouterr().out
    assert "error" in out and ("numbers_put_back" in out or "numbers_not_believed" in out)
    assert (server.log.head("t").seq, server.epoch() not in {epoch for _, epoch, _ in server.given}) == (0, True)
    server.publish(count=4)
    server.store.is_away = False
    server.rest()
    assert server.stored_payloads() == [*range(12)]


def test_on_a_machine_that_was_put_back_from_a_snapshot_the_archive_knows_and_topics_begin_new_epochs(behind, capsys):
    server = behind(in_place=True)
    assert "numbers_not_believed" in capsys.readouterr().out
    server.publish(count=4)
    server.save()
    assert server.stored_payloads() == [*range(12)]


def test_where_mongodb_is_away_at_the_start_of_a_machine_its_numbers_are_not_believed(behind, capsys):
    server = behind(in_place=True, is_away=True, boot="boot-2")
    assert "numbers_not_believed" in capsys.readouterr().out
    server.publish(count=4)
    server.store.is_away = False
    server.rest()
    assert server.stored_payloads() == [*range(12)]


def test_where_the_machine_has_run_since_the_numbers_are_believed_without_mongodb(server):
    place = server.publish(count=5)
    server.stop()
    server.store.is_away = True
    server.start()
    assert server.publish() == place._replace(seq=6)


def test_what_was_put_back_is_found_before_anything_is_stored_where_mongodb_comes_later(behind, capsys):
    """The files were put back in place under a machine that runs on: nothing on it can tell. What was published meanwhile is under
    numbers of others, and neither of the two messages is lost."""
    server = behind(in_place=True, is_away=True)
    epoch, server.given = server.epoch(), {place: payload for place, payload in server.given.items() if place[2] <= 5}
    for number in range(8, 12):
        server.given["pad", number] = b""
        server.log.append("t", b"%d" % number, server.clock())
    server.store.is_away = False
    server.rest()
    assert "numbers_not_believed" in capsys.readouterr().out
    assert server.epoch() != epoch
    server.given = dict.fromkeys(range(12), b"")
    server.publish()
    server.save()
    assert server.stored_payloads() == [*range(13)]


def test_a_process_that_was_put_back_while_it_ran_finds_out_with_the_first_place_that_is_taken(server, capsys):
    place = server.publish(count=5)
    server.save()
    others = {}
    for seq in range(6, 9):  # stored by the machine before it was put back to this state
        message = next(iter(server.store.messages.values()))._replace(seq=seq, id=f"other {seq}", payload=b"%d" % (100 + seq))
        others["t", place.epoch, seq] = server.store.messages["t", place.epoch, seq] = message
    server.publish(count=6)
    server.save()
    out = capsys.readouterr().out
    assert out.count("numbers_not_believed") == 1 and "archive_place_taken" in out
    assert server.epoch() != place.epoch
    assert all(server.store.messages[at] == message for at, message in others.items()), "nothing is replaced"
    server.publish()
    server.save()
    assert server.stored_payloads() == [*range(12), 106, 107, 108]
    server.archive._ladder.save()
    assert server.epoch() != place.epoch


def test_an_answer_that_was_lost_is_no_other_message(server, capsys):
    place = server.publish(count=5)
    server.store.loses_answers = True
    server.save()
    server.rest()
    assert server.epoch() == place.epoch
    assert server.stored_payloads() == [*range(5)]
    assert "archive_place_taken" not in capsys.readouterr().out


@pytest.mark.parametrize("is_stopped", [False, True])
def test_after_an_ordinary_end_the_epochs_continue(server, is_stopped):
    place = server.publish(count=5)
    server.save()
    server.stop() if is_stopped else server.kill()
    server.start()
    assert server.publish() == place._replace(seq=6)
    server.save()
    assert server.stored_payloads() == [*range(6)]


def test_a_disk_from_which_no_ids_can_be_read_does_not_stop_the_start(server, monkeypatch):
    server.stop()
    monkeypatch.setattr(MessageSpool, "newest", lambda *_: (_ for _ in ()).throw(OSError(13, "Permission denied")))
    server.start()
    assert server.publish().seq == 1


def test_numbers_from_before_another_epoch_are_not_believed(server, tmp_path, capsys):
    """A crash of the machine began a new epoch, and then the machine was put back to before it: no seq tells it."""
    place, numbers = server.publish(count=5), server.folder / "realtime" / "numbers"
    server.stop()
    shutil.copy(numbers, tmp_path / "copy")
    server.start()
    server.kill()
    server.boot = "boot-2"
    server.start()
    assert server.publish(count=3).epoch != place.epoch
    server.stop()
    bring_back(tmp_path / "copy", numbers)
    server.boot = "boot-1"
    capsys.readouterr()
    server.start()
    assert "numbers_not_believed" in capsys.readouterr().out
    server.publish(count=4)
    server.save()
    assert server.stored_payloads() == [*range(12)]


def test_a_message_that_was_stored_apart_says_nothing_about_the_numbers(server, capsys):
    server.publish(count=5)
    server.save()
    message = next(iter(server.store.messages.values()))
    server.store.insert([message._replace(epoch=f"{message.epoch}~0", seq=9)], 0)
    place = server.publish()
    server.stop()
    server.start()
    assert server.publish() == place._replace(seq=7)


def test_the_spool_is_newer_than_mongodb(server, capsys):
    """After a crash of the machine the messages of the new epoch wait on disk; those of the old one in MongoDB are no news."""
    server.publish(count=5)
    server.save()
    server.kill()
    server.boot = "boot-2"
    server.start()
    server.store.is_away = True
    place = server.publish(count=3)
    server.save()
    server.kill()
    server.store.is_away = False
    server.start()
    assert server.publish() == place._replace(seq=4)
