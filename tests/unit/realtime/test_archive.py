"""The ladder of durable topics: MongoDB, else the disk, else memory as far as it goes; and what a replay finds on it."""

import gevent
import pytest

from app.metrics import Metrics
from app.realtime.archive.archive import DurableArchive
from app.realtime.archive.mongo import StoreUnavailable
from app.realtime.archive.spool import MessageSpool
from app.realtime.log import Message
from app.spool.segment import segments
from tests.apps import NOW, Clock


class MemoryMessages:
    """Stands for MongoDB; away while `is_away`."""

    def __init__(self):
        self.messages, self.order, self.is_away, self.asked, self.loses_answers = {}, [], False, 0, False

    def insert(self, messages, now):
        self.asked += 1
        if self.is_away:
            raise StoreUnavailable("away")
        for message in messages:
            place = (message.topic, message.epoch, message.seq)
            assert self.messages.setdefault(place, message) == message, "another message under this number"
            self.order.append(place)
        if self.loses_answers:
            self.loses_answers = False
            raise StoreUnavailable("the answer was lost")

    def find(self, topic, epoch, after, last):
        if self.is_away:
            raise StoreUnavailable("away")
        return [self.messages[place] for place in sorted(self.messages) if place[:2] == (topic, epoch) and after < place[2] <= last]

    def count(self, topic, epoch, after, last, without):
        self.counted = (after, last, without)
        return sum(message.seq not in without for message in self.find(topic, epoch, after, last))

    def seqs(self, topic="t"):
        return [seq for name, _, seq in sorted(self.messages) if name == topic]


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
            self.archive.keep(Message(topic, "e", seq, f"m{seq}", NOW, b'"' + b"x" * size + b'"', "u1"))

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
        return self._ask(self.archive.survey, after, last, topic)

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
