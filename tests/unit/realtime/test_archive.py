"""The ladder of durable topics: MongoDB, else the disk, else memory as far as it goes; and what a replay finds on it."""

import json

import gevent
import pytest
from gevent.event import Event

from app.errors import ApiError
from app.metrics import Metrics
from app.realtime.archive.archive import DurableArchive
from app.realtime.archive.refused_messages import RefusedMessages
from app.realtime.archive.spool import MessageSpool
from app.realtime.log import Message
from app.storage.segments.segment import segments
from tests.apps import NOW, Clock
from tests.unit.realtime.memory_messages import MemoryMessages


class House:
    def __init__(self, folder, *, disk_bytes=1_000_000, buffer_bytes=100_000):
        self.folder, self.disk_bytes, self.buffer_bytes = folder, disk_bytes, buffer_bytes
        self.store, self.clock, self.metrics = MemoryMessages(), Clock(), Metrics()
        self.begin()

    def begin(self):
        """The process: what was in memory is gone, and its files have no writer any more."""
        self.spool = MessageSpool(self.folder, self.disk_bytes, self.clock)
        self.archive = DurableArchive(self.store, self.spool, ("t*",), self.buffer_bytes, self.clock, self.metrics)

    def kill(self):
        self.spool.close()
        self.begin()

    def keep(self, *seqs, topic="t", size=2):
        for seq in seqs:
            self.archive.add(Message(topic, "e", seq, f"m{seq}", NOW, b'"' + b"x" * size + b'"', "u1"))

    def round(self):
        """What the background task does again and again."""
        self.archive.turn()

    def rest(self):
        self.clock.pass_ms(10_000)
        for _ in range(3):
            self.round()

    def fate(self, name):
        return self.metrics.realtime_archived_total.labels(name)._value.get()

    def fetch(self, after, last, topic="t"):
        found = self._ask(self.archive.fetch, after, last, topic)
        self.was_whole = found.is_whole
        return [message.seq for message in found.messages]

    def has_all(self, after, last, topic="t"):
        return self._ask(self.archive.check_complete, after, last, topic)

    def _ask(self, question, after, last, topic):
        answers = []
        question(topic, "e", after, last, lambda answer, now: answers.append(answer))
        gevent.sleep(0.01)
        return answers[0]

    @property
    def files(self):
        return segments(self.folder, "messages")


@pytest.fixture
def make(tmp_path):
    houses = []

    def make(**limits):
        houses.append(House(tmp_path, **limits))
        return houses[-1]

    yield make
    for house in houses:
        house.spool.close()


@pytest.fixture
def house(make):
    return make()


def test_while_mongodb_answers_the_disk_is_not_touched(house):
    house.keep(1, 2, 3)
    house.keep(1, topic="other")
    house.round()
    assert (house.store.seqs(), house.store.seqs("other"), house.files) == ([1, 2, 3], [], [])
    assert house.fate("stored") == 3
    assert house.archive.check() == {"archiveWaiting": 0, "archiveSpooledBytes": 0}


def test_when_mongodb_is_away_messages_go_to_the_disk_and_from_there_into_it_in_order_and_once(house):
    house.store.is_away = True
    for seq in range(1, 8):
        house.keep(seq)
        house.round()
    assert house.fate("spooled") == 7
    report = house.archive.check()
    assert (report["state"], report["archiveWaiting"]) == ("degraded", 0)
    house.store.is_away = False
    house.keep(8)
    house.rest()
    assert house.store.order == [("t", "e", seq) for seq in range(1, 9)]
    assert (house.files, house.fate("stored")) == ([], 8)
    assert "state" not in house.archive.check()


def test_a_mongodb_that_is_away_is_asked_now_and_then_and_not_every_time(house):
    house.store.is_away = True
    for seq in range(1, 101):
        house.keep(seq)
        house.round()
        house.clock.pass_ms(100)
    assert 3 <= house.store.asked <= 7


def test_what_is_new_does_not_overtake_what_waits_on_disk(house):
    house.store.is_away = True
    house.keep(1)
    house.round()
    house.store.is_away = False
    house.clock.pass_ms(10_000)
    house.keep(2)
    house.archive._ladder.save()
    assert house.store.order == []
    house.rest()
    assert [seq for _, _, seq in house.store.order] == [1, 2]


def test_what_mongodb_took_while_its_answer_was_lost_is_not_there_twice(house):
    house.store.loses_answers = True
    house.keep(1, 2)
    house.round()
    house.rest()
    assert house.store.seqs() == [1, 2]


def test_what_is_on_disk_survives_a_kill_and_is_moved_by_the_next_process(house):
    house.store.is_away = True
    house.keep(1, 2)
    house.round()
    house.keep(3)  # still in memory: this is what a kill costs
    house.kill()
    house.store.is_away = False
    house.rest()
    assert (house.store.seqs(), house.files) == ([1, 2], [])
    assert house.store.messages["t", "e", 1].user == "u1"


def test_a_kill_in_the_middle_of_moving_moves_again_what_changes_nothing(house, monkeypatch):
    monkeypatch.setattr("app.realtime.archive.ladder.BATCH", 2)
    house.store.is_away = True
    house.keep(*range(1, 8))
    house.round()
    house.store.is_away = False
    house.clock.pass_ms(10_000)
    house.archive._ladder.move()
    house.kill()
    house.rest()
    assert (house.store.seqs(), house.files) == ([*range(1, 8)], [])


@pytest.mark.parametrize(
    "line",
    [
        b'{"topic":"t","epoch":"e","seq":9,"id":"m","ts":999999999999999999,"payload":1}',
        b'{"topic":"t","epoch":"e","seq":99999999999999999999,"id":"m","ts":1,"payload":1}',
        b'{"topic":"t","epoch":"e","seq":9,"id":"m","ts":1,"payload":"\xff"}',
        b'{"topic":"t","epoch":"e","seq":9,"id":"m","ts":1}',
        b"[]",
        b"",
    ],
)
def test_a_line_that_is_no_message_is_put_aside_and_nobody_waits_behind_it(house, line):
    (house.folder / "messages-0000000000001-1-a.jsonl").write_bytes(line + b"\n")
    house.keep(1)
    house.rest()
    assert (house.store.seqs(), house.files) == ([1], [])
    assert [path.read_bytes().count(b"\n") for path in house.folder.glob("*.rejected")] == [1]


def test_when_mongodb_is_slower_than_those_who_publish_the_disk_takes_over_before_memory_is_full(make):
    house = make(buffer_bytes=30_000)

    def slow(messages, now, insert=house.store.insert):
        house.keep(*range(1, 36), size=242)
        insert(messages, now)

    house.store.insert = slow
    house.keep(*range(1, 11), topic="t2", size=242)
    house.archive._ladder.save()
    assert (house.fate("stored"), house.fate("spooled"), house.fate("dropped")) == (10, 35, 0)


def test_whoever_waits_for_a_replay_gets_an_answer_whatever_happens(house, monkeypatch):
    monkeypatch.setattr(house.spool, "find", lambda *_: 1 / 0)
    assert (house.fetch(0, 5), house.was_whole) == ([], False)


def test_a_line_that_a_crash_cut_through_is_put_aside_and_the_others_are_moved(house):
    house.store.is_away = True
    house.keep(1, 2)
    house.round()
    with open(house.files[0], "ab") as file:
        file.write(b'{"topic":"t","ep')
    house.kill()
    house.store.is_away = False
    house.rest()
    assert (house.store.seqs(), house.files) == ([1, 2], [])
    assert len(list(house.folder.glob("*.rejected"))) == 1


def test_where_the_disk_is_full_they_stay_in_memory_as_far_as_it_goes_and_then_the_oldest_are_dropped(make):
    house = make(disk_bytes=3000, buffer_bytes=10_000)
    house.store.is_away = True
    for seq in range(1, 101):
        house.keep(seq, size=242)
        house.round()
    kept = house.archive.check()["archiveWaiting"]
    assert kept == 20
    spooled, dropped = house.fate("spooled"), house.fate("dropped")
    assert spooled + dropped + kept == 100 and 5 < spooled < 12
    house.store.is_away = False
    house.rest()
    assert house.store.seqs() == [*range(1, int(spooled) + 1), *range(81, 101)]


def test_one_process_moves_and_the_other_one_keeps_writing_and_ends_its_file_when_it_is_quiet(house, make, monkeypatch):
    other = make()
    assert house.spool.next_chunk(1) is None  # now it is its duty
    house.store.is_away = other.store.is_away = True
    house.keep(1)
    house.round()
    other.keep(2, topic="t2")
    other.round()
    house.store.is_away = False
    house.rest()
    assert (house.store.seqs(), house.store.seqs("t2")) == ([1], [2])
    other.store.is_away = False
    other.keep(3, topic="t2")
    other.rest()
    assert other.store.seqs("t2") == []
    house.rest()
    assert (house.store.seqs("t2"), len(house.files)) == ([2, 3], 1)
    monkeypatch.setattr("app.realtime.archive.spool.UNUSED_S", 0)
    other.rest()
    house.rest()
    assert house.files == []


def test_a_replay_finds_what_is_in_mongodb_on_disk_and_in_memory(house):
    house.keep(1, 2)
    house.round()
    house.store.is_away = True
    house.keep(3, 4)
    house.keep(1, topic="t2")
    house.round()
    house.keep(5)
    house.store.is_away = False
    house.archive._ladder._breaker.succeeded()
    assert house.fetch(0, 64) == [1, 2, 3, 4, 5]
    assert house.fetch(1, 3) == [2, 3]
    assert house.fetch(0, 64, "t2") == [1]
    assert house.fetch(5, 64) == []


def test_while_mongodb_is_away_a_replay_goes_on_with_the_first_that_is_at_hand(house):
    house.keep(*range(1, 11))
    house.round()
    house.store.is_away = True
    house.keep(*range(11, 15))
    house.round()
    house.keep(15)
    assert house.fetch(0, 5) == [11, 12, 13, 14, 15]
    assert house.fetch(0, 3) == [11, 12, 13]
    assert (house.fetch(15, 20), house.was_whole) == ([], False)


def test_a_replay_reads_only_the_files_that_hold_what_it_needs(house, monkeypatch):
    monkeypatch.setattr("app.realtime.archive.spool.SEGMENT_BYTES", 1000)
    house.begin()
    house.store.is_away = True
    for seq in range(1, 41):
        house.keep(seq)
        house.round()
    assert len(house.files) > 2
    assert [*house.spool.find("t", "e", 0, 40)] == [*range(1, 41)]
    read = []
    scan = house.spool._scan
    monkeypatch.setattr(house.spool, "_scan", lambda path: read.append(path) or scan(path))
    assert [*house.spool.find("t", "e", 38, 40)] == [39, 40]
    assert read == house.files[-1:]


def test_a_survey_says_whether_all_is_there_wherever_it_lies(house):
    house.keep(*range(1, 6))
    house.round()
    house.store.is_away = True
    house.keep(*range(6, 9))
    house.round()
    house.keep(9, 10)
    house.store.is_away = False
    house.clock.pass_ms(10_000)
    house.archive._ladder._breaker.succeeded()
    assert (house.has_all(0, 10), house.store.counted) == (True, (0, 5, []))
    assert not house.has_all(0, 11)
    del house.store.messages["t", "e", 3]
    assert (house.has_all(0, 10), house.has_all(3, 10)) == (False, True)


def test_while_mongodb_is_away_a_survey_vouches_only_for_what_is_at_hand(house):
    house.keep(*range(1, 6))
    house.round()
    house.store.is_away = True
    house.keep(6, 7)
    assert (house.has_all(0, 7), house.has_all(5, 7)) == (False, True)
    house.round()
    assert (house.has_all(0, 7), house.has_all(5, 7)) == (False, True)


def test_what_the_near_places_hold_in_the_middle_is_not_counted_twice(house):
    house.keep(1, 2, 3, 5)
    house.round()
    house.keep(3, 4)
    assert (house.has_all(0, 5), house.store.counted) == (True, (0, 5, [3, 4]))


def test_a_survey_that_fails_is_answered_all_the_same(house, monkeypatch):
    monkeypatch.setattr(house.store, "count", lambda *place: 1 / 0)
    assert house.has_all(0, 5) is False


# However slow MongoDB is

ROOM = {"disk_bytes": 100_000_000, "buffer_bytes": 10_000_000}


@pytest.mark.parametrize("answer_ms", [5, 100, 400, 1500])
def test_a_message_is_never_in_memory_alone_for_longer_than_a_round_and_one_answer_of_mongodb(make, answer_ms):
    house = make(**ROOM)
    ages, waiting = [], []
    keep = house.keep

    def pass_ms(ms):
        """Ten messages are published in each hundredth of a second, whatever the archive is doing, and at the end none for a while."""
        for _ in range(0, ms, 10):
            house.clock.pass_ms(10)
            if len(waiting) < 3000:
                keep(*range(1 + len(waiting), 11 + len(waiting)))
                waiting.extend([house.clock.now] * 10)
            oldest = len(waiting) - len(house.archive._ladder)
            ages.extend(house.clock.now - at for at in waiting[oldest : oldest + 1])

    house.store.answer = lambda: pass_ms(answer_ms)
    for _ in range(20):
        pass_ms(200)
        house.round()
    assert max(ages) <= 300 + answer_ms + 20
    assert house.store.seqs() == [*range(1, 3001)]
    assert (house.fate("spooled") == 0) is (answer_ms <= 100), "the disk is for where it cannot keep up"


def test_at_the_end_what_is_in_memory_goes_to_the_disk_before_mongodb_is_asked(make):
    house = make(**ROOM)
    house.keep(*range(1, 1001))
    on_disk = []
    house.store.answer = lambda: on_disk.append(sum(path.read_bytes().count(b"\n") for path in house.files))
    stop = Event()
    stop.set()
    house.archive.run(stop)
    assert (len(house.archive._ladder), on_disk[0]) == (0, 1000)
    assert house.store.seqs() == [*range(1, 1001)], "and then to MongoDB, as there is time"


def test_at_the_end_a_slow_mongodb_is_left_after_a_moment(make, monkeypatch):
    house = make(**ROOM)
    monkeypatch.setattr("app.realtime.archive.archive.MOVING_AT_END_S", 0.1)
    house.keep(*range(1, 2001))
    house.store.answer = lambda: gevent.sleep(0.06)
    stop = Event()
    stop.set()
    house.archive.run(stop)
    assert 200 <= len(house.store.seqs()) <= 400
    house.kill()
    house.store.answer = lambda: None
    house.rest()
    assert house.store.seqs() == [*range(1, 2001)]


def test_what_is_published_after_the_last_save_is_on_the_disk_before_it_is_answered(house):
    stop = Event()
    stop.set()
    house.archive.run(stop)
    house.keep(1)
    house.archive.confirm()
    house.kill()
    house.rest()
    assert house.store.seqs() == [1]


def test_what_is_published_after_the_last_save_and_finds_no_place_is_not_answered_as_published(make):
    house = make(disk_bytes=1024)
    house.store.is_away = True
    stop = Event()
    stop.set()
    house.archive.run(stop)
    house.keep(1, size=2000)
    with pytest.raises(ApiError, match="stopping"):
        house.archive.confirm()


def test_while_it_runs_no_publish_waits(house):
    house.store.is_away = True
    house.keep(1)
    house.archive.confirm()
    assert (house.files, house.store.asked) == ([], 0)


# What MongoDB will never take


def rejected(house):
    path = house.folder / "messages.rejected"
    rows = [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []
    return [(json.loads(row["line"])["id"], row["reason"]) for row in rows]


@pytest.mark.parametrize("is_spooled", [False, True])
def test_a_message_that_mongodb_refuses_is_put_aside_with_the_reason_and_nothing_waits_behind_it(house, is_spooled):
    house.store.refuses = {"m2", "m5"}
    house.store.is_away = is_spooled
    house.keep(*range(1, 8))
    house.round()
    house.store.is_away = False
    house.rest()
    assert (house.store.seqs(), house.files) == ([1, 3, 4, 6, 7], [])
    assert rejected(house) == [("m2", "it is refused"), ("m5", "it is refused")]
    assert (house.fate("refused"), house.fate("stored")) == (2, 5)


def test_a_refused_message_stands_in_the_file_once_however_often_it_is_refused(house):
    house.store.refuses = {"m1"}
    house.keep(1)
    house.round()
    house.kill()
    house.keep(1)
    house.round()
    assert len(rejected(house)) == 1


def test_an_objection_that_nobody_foresaw_is_tried_again_and_then_put_aside_too(house):
    house.store.strange = {"m1"}
    house.keep(1, 2)
    for _ in range(4):
        house.round()
        house.clock.pass_ms(10_000)
    assert (house.store.seqs(), rejected(house)) == ([2], [])
    house.round()
    house.rest()
    assert (rejected(house), house.files) == ([("m1", "it is strange")], [])
    house.keep(3)
    house.round()
    assert house.store.seqs() == [2, 3]


def test_an_objection_that_passes_costs_nothing(house):
    house.store.strange = {"m1"}
    house.keep(1)
    house.round()
    house.store.strange = set()
    house.rest()
    assert (house.store.seqs(), rejected(house)) == ([1], [])


def test_where_a_refused_message_cannot_be_put_aside_nothing_is_lost(house, monkeypatch):
    house.store.refuses = {"m1"}
    with monkeypatch.context() as patch:
        patch.setattr(
            "app.realtime.archive.refused_messages.RejectedFile.add", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        house.keep(1, 2)
        house.round()
    house.rest()
    assert (house.store.seqs(), rejected(house)) == ([2], [("m1", "it is refused")])


def test_the_file_of_refused_messages_has_a_bound(tmp_path):
    aside = RefusedMessages(tmp_path, max_bytes=1000)
    for seq in range(100):
        aside.add([(Message("t", "e", seq, f"m{seq}", NOW, b"1"), "it is refused")])
    assert (tmp_path / "messages.rejected").stat().st_size < 1300


def test_setting_the_clock_lengthens_no_pause(tmp_path):
    house = House(tmp_path)
    steady = Clock(5000)
    house.archive = DurableArchive(house.store, house.spool, ("t*",), 100_000, house.clock, house.metrics, steady=steady)
    house.store.is_away = True
    house.keep(1)
    house.round()
    house.store.is_away = False
    house.clock.pass_ms(-3_600_000)
    steady.pass_ms(600)
    house.round()
    house.round()
    assert house.store.seqs() == [1]
    house.spool.close()
