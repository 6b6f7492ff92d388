"""While MongoDB is away numbers wait in the file; when it is back they are there once and in order, whoever brings them."""

import pytest

from app.storage.errors import StorageUnavailable
from app.telemetry.stats.bucket import DAY_MS, MINUTE_MS, Bucket, Delta
from app.telemetry.stats.store.file import FileRollups, _decode_delta
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
            raise StorageUnavailable("away")


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
    return Delta(worker, seq, NOW, [Bucket("web", None, AT, {"page": {"/": 1}})])


def count(store, level_ms=MINUTE_MS):
    return sum(bucket.counts["page"]["/"] for bucket in store.read(level_ms, "web", None, 0, NOW + DAY_MS))


def test_numbers_go_to_mongo_while_it_is_there(ladder, primary, file):
    ladder.apply(delta(1))
    assert (count(primary), file.waiting()) == (1, [])


def test_while_it_is_away_they_wait_and_nobody_is_told(ladder, primary, file):
    primary.is_away = True
    ladder.apply(delta(1))
    ladder.apply(delta(2))
    assert file.waiting() == [delta(1), delta(2)]


def test_hours_and_days_that_count_more_than_their_minutes_move_whole(primary, file, clock):
    """Times long ago have only their day, and of an hour whose minutes had no room only the hour is left."""
    day = AT - AT % DAY_MS
    long_ago = Bucket("web", None, day, {"page": {"/": 5}}, {}, {"perf": {"lcp": {3: 2}}}, narrowest_ms=DAY_MS)
    file.apply(Delta("w", 1, NOW, [Bucket("web", None, AT, {"page": {"/": 2}}, {"a": 1}), long_ago]))
    file.apply(Delta("w", 2, NOW, [Bucket("web", "prod", AT, {"page": {"/": 1}})]))
    file._transact(lambda db: db.execute("DELETE FROM cells WHERE level = ?", (MINUTE_MS,)))
    file.apply(Delta("w", 3, NOW, [Bucket("web", None, AT + MINUTE_MS, {"page": {"/": 4}})]))
    before = [count(file, level_ms) for level_ms in (MINUTE_MS, 60 * MINUTE_MS, DAY_MS)]
    assert before == [4, 7, 12]
    RollupLadder(primary, file, clock).tend()
    assert [count(primary, level_ms) for level_ms in (MINUTE_MS, 60 * MINUTE_MS, DAY_MS)] == before
    (found,) = [bucket for bucket in primary.read(DAY_MS, "web", None, 0, NOW) if bucket.env is None]
    assert (found.failed, found.values) == ({"a": 1}, {"perf": {"lcp": {3: 2}}})


@pytest.mark.parametrize("loses_answers", [False, True])
def test_when_it_is_back_each_counts_once_and_in_order(ladder, primary, file, clock, loses_answers):
    primary.is_away, primary.loses_answers = True, loses_answers
    ladder.apply(delta(1))
    ladder.apply(delta(2))
    primary.is_away = False
    clock.pass_ms(10_000)
    ladder.apply(delta(3))
    ladder.tend()
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
    ladder.tend()
    ladder.apply(delta(52))
    assert (count(primary), file.waiting()) == (52, [])


class CatchingUp(AbsentRollups):
    """Each delta that waited takes until the test says so; meanwhile others may be brought."""

    def __init__(self):
        super().__init__()
        self.meanwhile = None

    def apply(self, delta):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        super().apply(delta)


def test_while_an_outage_is_caught_up_new_numbers_are_safe_at_once_and_in_order(file, clock):
    primary = CatchingUp()
    ladder = RollupLadder(primary, file, clock)
    primary.is_away = True
    for seq in range(1, 31):
        ladder.apply(delta(seq))
    primary.is_away = False
    clock.pass_ms(10_000)
    seen = []

    def somebody_counts():
        ladder.apply(delta(31))  # would not return, or be lost at kill -9, if it had to wait for the others
        seen.append([delta.seq for delta in all_waiting(file)])

    primary.meanwhile = somebody_counts
    ladder.tend()
    assert seen and seen[0][-1] == 31
    assert (count(primary), file.waiting()) == (31, [])
    ladder.apply(delta(32))
    assert (count(primary), file.waiting()) == (32, [])


def all_waiting(file):
    return sorted(file._ask(lambda db: [_decode_delta(row[0]) for row in db.execute("SELECT delta FROM waiting")]), key=lambda d: d.seq)


def test_what_is_parked_at_the_very_end_of_catching_up_is_not_overtaken_by_the_next(file, clock, primary):
    """MongoDB ignores an earlier delta that comes after a later one: its events would be counted nowhere."""
    ladder = RollupLadder(primary, file, clock)
    primary.is_away = True
    ladder.apply(delta(1))
    primary.is_away = False
    clock.pass_ms(10_000)
    look, late = file.waiting, [delta(2)]

    def look_just_before_another_comes():
        found = look()
        if not found and late and not ladder._one_at_a_time.locked():
            ladder.apply(late.pop())
        return found

    file.waiting = look_just_before_another_comes
    ladder.tend()
    assert not late
    ladder.apply(delta(3))
    ladder.tend()
    assert (count(primary), look()) == (3, [])


def test_what_another_process_left_is_no_reason_for_our_numbers_to_wait(primary, file, clock):
    file.park(delta(1, worker="dead"))
    ladder = RollupLadder(primary, file, clock)
    ladder.apply(delta(1))
    assert (count(primary), len(file.waiting())) == (1, 1)
    ladder.tend()
    assert (count(primary), file.waiting()) == (2, [])


def test_what_was_counted_before_there_was_a_mongo_moves_into_it_once(primary, file, clock):
    buckets = [Bucket("web", None, AT + minute * MINUTE_MS, {"page": {"/": 1}}) for minute in range(250)]
    file.apply(Delta("old", 1, NOW, buckets))
    for _ in range(2):
        RollupLadder(primary, file, clock).tend()
    assert count(primary) == count(primary, DAY_MS) == 250
    assert file.waiting() == [] and count(file) == 0


def test_a_file_that_is_broken_costs_nothing_and_is_begun_again(tmp_path, primary, clock):
    path = tmp_path / "rollups.sqlite"
    path.write_bytes(b"this is no database" * 100)
    ladder = RollupLadder(primary, FileRollups(path, ttl_days=90, clock=clock), clock)
    ladder.apply(delta(1))
    assert count(primary) == 1
    primary.is_away = True
    ladder.apply(delta(2))
    primary.is_away = False
    clock.pass_ms(10_000)
    ladder.tend()
    assert count(primary) == 2
    assert ladder.check()["state"] == "degraded" and "rollups.sqlite.damaged" in ladder.check()["error"]


def test_a_full_file_takes_no_more_and_says_so(tmp_path, primary, clock):
    file = FileRollups(tmp_path / "rollups.sqlite", ttl_days=90, clock=clock, max_bytes=100_000)
    ladder = RollupLadder(primary, file, clock)
    primary.is_away = True
    buckets = [Bucket("web", None, AT + n * MINUTE_MS, {"page": {"x" * 200: 1}}) for n in range(100)]
    with pytest.raises(StorageUnavailable, match="TELEMETRY_ROLLUPS_MAX_BYTES"):
        for seq in range(1, 100):
            ladder.apply(Delta("w1", seq, NOW, buckets))
    assert file.check()["bytes"] < 200_000


def test_the_file_forgets_what_is_older_than_the_ttl(file, clock):
    file.apply(delta(1))
    clock.pass_ms(91 * DAY_MS)
    file.apply(Delta("w1", 2, clock(), [Bucket("web", None, clock() - clock() % MINUTE_MS, {"page": {"/": 1}})]))
    file.tend()
    assert [len(list(file.read(MINUTE_MS, "web", None, 0, clock()))), file.waiting()] == [1, []]
