"""While MongoDB is away numbers wait in the file; when it is back they are there once and in order, whoever brings them."""

import pytest

from app.telemetry.stats.cell import DAY_MS, MINUTE_MS, Cell, Delta
from app.telemetry.stats.store import RollupsUnavailable
from app.telemetry.stats.store.file import FileRollups
from app.telemetry.stats.store.ladder import RollupLadder
from app.telemetry.stats.store.memory import MemoryRollups
from tests.apps import NOW, Clock

AT = NOW - NOW % MINUTE_MS


class AbsentRollups(MemoryRollups):
    """MongoDB, there or not; an answer can be lost after the work was done."""

    def __init__(self):
        super().__init__()
        self.is_away = False
        self.loses_answers = False

    def apply(self, delta):
        if not self.is_away or self.loses_answers:
            super().apply(delta)
        if self.is_away:
            raise RollupsUnavailable("away")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def primary():
    return AbsentRollups()


@pytest.fixture
def file(tmp_path, clock):
    return FileRollups(tmp_path / "rollups.sqlite", ttl_days=90, clock=clock)


@pytest.fixture
def ladder(primary, file, clock):
    return RollupLadder(primary, file, clock)


def delta(seq, worker="w1"):
    return Delta(worker, seq, NOW, [Cell("web", None, AT, {"page": {"/": 1}})])


def count(store, level_ms=MINUTE_MS):
    return sum(cell.counts["page"]["/"] for cell in store.read(level_ms, "web", None, 0, NOW + DAY_MS))


def test_numbers_go_to_mongo_while_it_is_there(ladder, primary, file):
    ladder.apply(delta(1))
    assert (count(primary), file.waiting()) == (1, [])


def test_while_it_is_away_they_wait_and_nobody_is_told(ladder, primary, file):
    primary.is_away = True
    ladder.apply(delta(1))
    ladder.apply(delta(2))
    assert file.waiting() == [delta(1), delta(2)]


@pytest.mark.parametrize("loses_answers", [False, True])
def test_when_it_is_back_each_counts_once_and_in_order(ladder, primary, file, clock, loses_answers):
    primary.is_away, primary.loses_answers = True, loses_answers
    ladder.apply(delta(1))
    ladder.apply(delta(2))
    primary.is_away = False
    clock.pass_ms(10_000)
    ladder.apply(delta(3))
    assert (count(primary), file.waiting()) == (3, [])


def test_when_no_events_come_the_waiting_ones_are_brought_all_the_same(ladder, primary, file, clock):
    primary.is_away = True
    ladder.apply(delta(1))
    primary.is_away = False
    clock.pass_ms(10_000)
    ladder.tend()
    assert (count(primary), file.waiting()) == (1, [])


def test_what_a_killed_worker_left_is_brought_by_the_next_one(ladder, primary, file, clock):
    primary.is_away = True
    ladder.apply(delta(1))
    primary.is_away = False
    RollupLadder(primary, file, clock).tend()
    assert (count(primary), file.waiting()) == (1, [])


def test_two_workers_that_bring_the_same_ones_count_them_once(ladder, primary, file, clock):
    primary.is_away = True
    for seq in range(1, 51):
        ladder.apply(delta(seq))
    primary.is_away = False
    clock.pass_ms(10_000)
    primary.apply(file.waiting()[0])
    RollupLadder(primary, file, clock).tend()
    ladder.apply(delta(51))
    assert count(primary) == 51


def test_what_was_counted_before_there_was_a_mongo_moves_into_it_once(primary, file, clock):
    cells = [Cell("web", None, AT + minute * MINUTE_MS, {"page": {"/": 1}}) for minute in range(250)]
    file.apply(Delta("old", 1, NOW, cells))
    for _ in range(2):
        RollupLadder(primary, file, clock).tend()
    assert count(primary) == count(primary, DAY_MS) == 250
    assert file.waiting() == [] and count(file) == 0


def test_a_file_that_is_broken_costs_nothing_while_mongo_is_there(tmp_path, primary, clock):
    path = tmp_path / "rollups.sqlite"
    path.write_bytes(b"this is no database" * 100)
    ladder = RollupLadder(primary, FileRollups(path, ttl_days=90, clock=clock), clock)
    ladder.apply(delta(1))
    assert count(primary) == 1
    primary.is_away = True
    with pytest.raises(RollupsUnavailable):
        ladder.apply(delta(2))
    primary.is_away = False
    clock.pass_ms(10_000)
    ladder.apply(delta(2))
    assert count(primary) == 2


def test_the_file_forgets_what_is_older_than_the_ttl(file, clock):
    file.apply(delta(1))
    clock.pass_ms(91 * DAY_MS)
    file.apply(Delta("w1", 2, clock(), [Cell("web", None, clock() - clock() % MINUTE_MS, {"page": {"/": 1}})]))
    file.tend()
    assert [len(list(file.read(MINUTE_MS, "web", None, 0, clock()))), file.waiting()] == [1, []]
