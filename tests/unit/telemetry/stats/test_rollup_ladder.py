"""While MongoDB is away, deltas wait in the file. When it is back, each counts once and in order, whichever worker moves it."""

import pytest

from app.storage.errors import StorageUnavailable
from app.telemetry.stats.bucket import DAY_MS, MINUTE_MS, Bucket, Delta
from app.telemetry.stats.store.delta_queue import DeltaQueue, _decode_delta
from app.telemetry.stats.store.file import FileRollups
from app.telemetry.stats.store.ladder import RollupLadder
from app.telemetry.stats.store.memory import MemoryRollups
from tests.apps import NOW, Clock

AT = NOW - NOW % MINUTE_MS


class AbsentRollups(MemoryRollups):
    """A MongoDB that fails while `is_away` is set: before it applies the delta, or after it, with `loses_answers`."""

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
def queue(file, clock):
    return DeltaQueue(file, clock)


@pytest.fixture
def ladder(primary, file, clock):
    return RollupLadder(primary, file, clock)


def delta(seq, worker="w1"):
    return Delta(worker, seq, NOW, [Bucket("web", None, AT, {"page": {"/": 1}})])


def count(store, level_ms=MINUTE_MS):
    return sum(bucket.counts["page"]["/"] for bucket in store.read(level_ms, "web", None, 0, NOW + DAY_MS))


def test_deltas_go_to_mongo_while_it_answers(ladder, primary, queue):
    ladder.apply(delta(1))
    assert (count(primary), queue.first()) == (1, [])


def test_deltas_wait_in_the_file_while_mongo_is_away_and_no_caller_gets_an_error(ladder, primary, queue):
    primary.is_away = True
    ladder.apply(delta(1))
    ladder.apply(delta(2))
    assert queue.first() == [delta(1), delta(2)]


def test_counts_of_hours_and_days_beyond_their_minutes_move_too(primary, file, clock):
    """Events of long ago are counted only in their day, and an hour whose minutes were deleted only in the hour."""
    day = AT - AT % DAY_MS
    long_ago = Bucket("web", None, day, {"page": {"/": 5}}, {}, {"perf": {"lcp": {3: 2}}}, narrowest_ms=DAY_MS)
    file.apply(Delta("w", 1, NOW, [Bucket("web", None, AT, {"page": {"/": 2}}, {"a": 1}), long_ago]))
    file.apply(Delta("w", 2, NOW, [Bucket("web", "prod", AT, {"page": {"/": 1}})]))
    file.sqlite.transact(lambda db: db.execute("DELETE FROM cells WHERE level = ?", (MINUTE_MS,)))
    file.apply(Delta("w", 3, NOW, [Bucket("web", None, AT + MINUTE_MS, {"page": {"/": 4}})]))
    before = [count(file, level_ms) for level_ms in (MINUTE_MS, 60 * MINUTE_MS, DAY_MS)]
    assert before == [4, 7, 12]
    RollupLadder(primary, file, clock).tend()
    assert [count(primary, level_ms) for level_ms in (MINUTE_MS, 60 * MINUTE_MS, DAY_MS)] == before
    (found,) = [bucket for bucket in primary.read(DAY_MS, "web", None, 0, NOW) if bucket.env is None]
    assert (found.failed, found.values) == ({"a": 1}, {"perf": {"lcp": {3: 2}}})


@pytest.mark.parametrize("loses_answers", [False, True])
def test_deltas_that_waited_count_once_and_in_order_when_mongo_is_back(ladder, primary, queue, clock, loses_answers):
    primary.is_away, primary.loses_answers = True, loses_answers
    ladder.apply(delta(1))
    ladder.apply(delta(2))
    primary.is_away = False
    clock.pass_ms(10_000)
    ladder.apply(delta(3))
    ladder.tend()
    assert (count(primary), queue.first()) == (3, [])


def test_waiting_deltas_are_moved_although_no_new_one_comes(ladder, primary, clock, queue):
    primary.is_away = True
    ladder.apply(delta(1))
    primary.is_away = False
    clock.pass_ms(10_000)
    ladder.tend()
    assert (count(primary), queue.first()) == (1, [])


def test_deltas_of_a_killed_worker_are_moved_by_the_next_one(ladder, primary, file, clock, queue):
    primary.is_away = True
    ladder.apply(delta(1))
    primary.is_away = False
    RollupLadder(primary, file, clock).tend()
    assert (count(primary), queue.first()) == (1, [])


def test_deltas_that_two_workers_move_count_once(ladder, primary, file, clock, queue):
    primary.is_away = True
    for seq in range(1, 51):
        ladder.apply(delta(seq))
    primary.is_away = False
    clock.pass_ms(10_000)
    primary.apply(queue.first()[0])
    RollupLadder(primary, file, clock).tend()
    ladder.apply(delta(51))
    ladder.tend()
    ladder.apply(delta(52))
    assert (count(primary), queue.first()) == (52, [])


class CatchingUp(AbsentRollups):
    """Calls `meanwhile` before it applies the next delta."""

    def __init__(self):
        super().__init__()
        self.meanwhile = None

    def apply(self, delta):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        super().apply(delta)


def test_a_new_delta_is_in_the_file_at_once_while_others_are_moved(file, clock, queue):
    primary = CatchingUp()
    ladder = RollupLadder(primary, file, clock)
    primary.is_away = True
    for seq in range(1, 31):
        ladder.apply(delta(seq))
    primary.is_away = False
    clock.pass_ms(10_000)
    seen = []

    def flush_another():
        ladder.apply(delta(31))  # if it waited for the others in memory, kill -9 would lose it
        seen.append([delta.seq for delta in all_queued(file)])

    primary.meanwhile = flush_another
    ladder.tend()
    assert seen and seen[0][-1] == 31
    assert (count(primary), queue.first()) == (31, [])
    ladder.apply(delta(32))
    assert (count(primary), queue.first()) == (32, [])


def all_queued(file):
    deltas = file.sqlite.read(lambda db: [_decode_delta(row[0]) for row in db.execute("SELECT delta FROM waiting")])
    return sorted(deltas, key=lambda delta: delta.seq)


def test_a_delta_that_is_queued_at_the_end_of_catching_up_is_not_overtaken_by_the_next(file, clock, primary, queue):
    """MongoDB ignores a delta that comes after a later one of the same worker: its events would not be counted."""
    ladder = RollupLadder(primary, file, clock)
    primary.is_away = True
    ladder.apply(delta(1))
    primary.is_away = False
    clock.pass_ms(10_000)
    first, late = queue.first, [delta(2)]

    def find_just_before_another_is_queued():
        found = first()
        if not found and late and not ladder._one_at_a_time.locked():
            ladder.apply(late.pop())
        return found

    ladder._queue.first = find_just_before_another_is_queued
    ladder.tend()
    assert not late
    ladder.apply(delta(3))
    ladder.tend()
    assert (count(primary), first()) == (3, [])


def test_deltas_do_not_wait_behind_those_of_another_process(primary, file, clock, queue):
    queue.put(delta(1, worker="dead"))
    ladder = RollupLadder(primary, file, clock)
    ladder.apply(delta(1))
    assert (count(primary), len(queue.first())) == (1, 1)
    ladder.tend()
    assert (count(primary), queue.first()) == (2, [])


def test_buckets_that_were_counted_before_there_was_a_mongo_move_into_it_once(primary, file, clock, queue):
    buckets = [Bucket("web", None, AT + minute * MINUTE_MS, {"page": {"/": 1}}) for minute in range(250)]
    file.apply(Delta("old", 1, NOW, buckets))
    for _ in range(2):
        RollupLadder(primary, file, clock).tend()
    assert count(primary) == count(primary, DAY_MS) == 250
    assert queue.first() == [] and count(file) == 0


def test_a_damaged_file_loses_no_delta_and_is_replaced(tmp_path, primary, clock):
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


def test_a_full_file_takes_no_more_deltas_and_the_error_names_the_setting(tmp_path, primary, clock):
    file = FileRollups(tmp_path / "rollups.sqlite", ttl_days=90, clock=clock, max_bytes=100_000)
    ladder = RollupLadder(primary, file, clock)
    primary.is_away = True
    buckets = [Bucket("web", None, AT + n * MINUTE_MS, {"page": {"x" * 200: 1}}) for n in range(100)]
    with pytest.raises(StorageUnavailable, match="TELEMETRY_ROLLUPS_MAX_BYTES"):
        for seq in range(1, 100):
            ladder.apply(Delta("w1", seq, NOW, buckets))
    assert file.check()["bytes"] < 200_000


def test_buckets_older_than_the_ttl_are_deleted_from_the_file(file, clock, queue):
    file.apply(delta(1))
    clock.pass_ms(91 * DAY_MS)
    file.apply(Delta("w1", 2, clock(), [Bucket("web", None, clock() - clock() % MINUTE_MS, {"page": {"/": 1}})]))
    file.tend()
    assert [len(list(file.read(MINUTE_MS, "web", None, 0, clock()))), queue.first()] == [1, []]
