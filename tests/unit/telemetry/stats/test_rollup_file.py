"""The file of the statistics is replaced when it is deleted or damaged under a running server, and is kept within its maximum size."""

import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from app.storage.errors import StorageUnavailable
from app.telemetry.stats.bucket import DAY_MS, HOUR_MS, MINUTE_MS, Bucket, Delta
from app.telemetry.stats.store.delta_queue import DeltaQueue
from app.telemetry.stats.store.file import FileRollups
from tests.apps import NOW, Clock

AT = NOW - NOW % DAY_MS
MAX_BYTES = 1_000_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rollups.sqlite"


@pytest.fixture
def file(path):
    return FileRollups(path, ttl_days=90, clock=Clock())


def delta(seq, worker="w1", app="web", at=AT, name="/"):
    return Delta(worker, seq, NOW, [Bucket(app, None, at, {"page": {name: 1}})])


def count(file, level_ms=MINUTE_MS, app="web"):
    buckets = file.read(level_ms, app, None, 0, NOW + DAY_MS)
    return sum(n for bucket in buckets for n in bucket.counts["page"].values())


def test_a_file_that_was_deleted_is_made_again_by_the_next_write_and_by_the_next_read(file, path):
    file.apply(delta(1))
    path.unlink()
    assert count(file) == 0
    path.unlink()
    file.apply(delta(2))
    assert (count(file), file.check()["state"]) == (1, "up")


@pytest.mark.parametrize("left", ["-wal", "-shm", "both"])
def test_the_log_that_a_killed_server_left_beside_a_deleted_file_does_not_get_into_the_new_file(file, path, left):
    with closing(sqlite3.connect(path)) as killed:  # keeps the log, as a killed process does
        file.apply(delta(1))
        killed.execute("SELECT count(*) FROM cells").fetchone()
        file.apply(delta(2))
        kept = {suffix: path.with_name(path.name + suffix).read_bytes() for suffix in ("-wal", "-shm")}
    path.unlink()
    for suffix, text in kept.items():
        if left in (suffix, "both"):
            path.with_name(path.name + suffix).write_bytes(text)
    fresh = FileRollups(path, ttl_days=90, clock=Clock())
    fresh.apply(delta(3))
    assert count(fresh) == 1


def spoil_head(path):
    path.write_bytes(b"this is no database" * 1000)


def spoil_middle(path):
    size = path.stat().st_size
    with open(path, "r+b") as disk:
        disk.seek(4096)
        disk.write(os.urandom(size - 4096))


def cut(path):
    os.truncate(path, path.stat().st_size - 4096 - 100)


def other_tables(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE buckets (a); CREATE TABLE applied (b, c); CREATE TABLE waiting (d)")


@pytest.mark.parametrize("spoil", [spoil_head, spoil_middle, cut, other_tables])
@pytest.mark.parametrize("is_running", [True, False])
def test_a_damaged_file_is_moved_away_and_replaced(file, path, spoil, is_running):
    for seq in range(1, 30):
        file.apply(delta(seq, at=AT + seq * MINUTE_MS, name="x" * 200))
    spoil(path)
    file = file if is_running else FileRollups(path, ttl_days=90, clock=Clock())
    with capture_logs() as logs:
        file.apply(delta(30))
    assert count(file) == 1
    found = file.check()
    assert found["state"] == "degraded" and f"{path}.damaged" in found["error"]
    assert path.with_name(path.name + ".damaged").exists()
    assert [(log["event"], log["log_level"]) for log in logs] == [("rollups_damaged", "error")]
    path.with_name(path.name + ".damaged").unlink()
    assert file.check()["state"] == "up"


def test_a_file_that_is_damaged_several_times_leaves_one_copy(file, path):
    for seq in range(1, 6):
        file.apply(delta(seq))
        spoil_head(path)
    file.apply(delta(9))
    assert sorted(name.name for name in path.parent.glob("*damaged*")) == ["rollups.sqlite.damaged"]


def test_processes_that_find_it_damaged_at_once_make_one_new_file(path):
    spoil_head(path)
    files = [FileRollups(path, ttl_days=90, clock=Clock()) for _ in range(6)]

    def work(number):
        for seq in range(1, 4):
            for _ in range(50):
                try:
                    files[number].apply(delta(seq, worker=f"w{number}"))
                    break
                except StorageUnavailable:
                    time.sleep(0.02)  # as the next flush would

    with capture_logs() as logs, ThreadPoolExecutor(6) as workers:
        list(workers.map(work, range(6)))
    assert count(files[0]) == 18
    assert [log["event"] for log in logs] == ["rollups_damaged"]


@pytest.mark.parametrize("text", [b"not json", b"[]", None, 7, b'{"app":1}'])
def test_a_bucket_that_cannot_be_decoded_loses_only_its_own_counts(file, path, text):
    file.apply(delta(1))
    file.apply(delta(2, at=AT + MINUTE_MS))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE cells SET cell = ? WHERE level = ? AND at = ?", (text, MINUTE_MS, AT))
    assert count(file) == 1
    file.apply(delta(3))
    assert (count(file), count(file, DAY_MS)) == (2, 3)


def test_a_queued_delta_that_cannot_be_decoded_does_not_hold_up_the_others(file, path):
    queue = DeltaQueue(file, Clock())
    for seq in range(1, 60):
        queue.put(delta(seq))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE waiting SET delta = 'x' WHERE seq < 50")
    assert [found.seq for found in queue.first()] == list(range(50, 60))


def test_a_file_that_cannot_be_written_is_an_error_until_it_can(path):
    path.mkdir()
    file = FileRollups(path, ttl_days=90, clock=Clock())
    with pytest.raises(StorageUnavailable, match=r"rollups\.sqlite: "):
        file.apply(delta(1))
    path.rmdir()
    file.apply(delta(1))
    assert count(file) == 1


# The maximum size.


@pytest.fixture
def small(path):
    return FileRollups(path, ttl_days=0, clock=Clock(), max_bytes=MAX_BYTES)


def attack(file, rounds=40, app="invented-{n}-{m}"):
    """Add buckets of invented apps and times, many times the maximum size."""
    for n in range(1, rounds + 1):
        buckets = [Bucket(app.format(n=n, m=m % 5), f"e{m}", AT - (n * 100 + m) * MINUTE_MS, {"page": {"x" * 200: 1}}) for m in range(100)]
        file.apply(Delta("attacker", n, NOW, buckets))


def size_of(path):
    return sum(part.stat().st_size for part in path.parent.glob("rollups.sqlite*") if not part.name.endswith("-shm"))


@pytest.mark.parametrize("app", ["invented-{n}-{m}", "one"])
def test_the_file_keeps_its_maximum_size_and_other_apps_keep_every_minute(small, path, app):
    for seq in range(1, 61):
        small.apply(delta(seq, at=AT + seq * MINUTE_MS))
    attack(small, app=app)
    assert (count(small), count(small, HOUR_MS), count(small, DAY_MS)) == (60, 60, 60)
    assert small.check()["bytes"] <= 1.3 * MAX_BYTES
    assert size_of(path) < 2.5 * MAX_BYTES  # with the log that SQLite keeps beside it
    assert small.check()["state"] == "degraded" and "TELEMETRY_ROLLUPS_MAX_BYTES" in small.check()["error"]


def test_a_single_app_loses_its_oldest_minutes_first_and_keeps_its_days(small):
    for seq in range(1, 40):
        buckets = [Bucket("web", None, AT + (seq * 100 + n) * MINUTE_MS, {"page": {"x" * 200: 1}}) for n in range(100)]
        small.apply(Delta("w1", seq, NOW, buckets))
    minutes = [bucket.at for bucket in small.read(MINUTE_MS, "web", None, 0, NOW * 2)]
    assert 0 < len(minutes) < 3900 and max(minutes) == AT + 3999 * MINUTE_MS
    days = small.read(DAY_MS, "web", None, 0, NOW * 2)
    assert sum(n for bucket in days for n in bucket.counts["page"].values()) == 3900


def test_a_delta_that_is_repeated_after_its_minutes_were_deleted_counts_once_in_its_day(small):
    small.apply(delta(1))
    attack(small, app="web", rounds=30)
    before = count(small, DAY_MS)
    small.apply(delta(1))
    assert count(small, DAY_MS) == before
