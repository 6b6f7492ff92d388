"""Lines become durable, many callers with one sync."""

import errno
import os
import shutil
from threading import Event

import gevent
import pytest

from app.storage.errors import StorageUnavailable
from app.storage.segments import segment
from app.storage.segments.segment import whole_lines
from app.storage.segments.writer import SegmentWriter


class Disk:
    """Stands for os.fsync: counts, fails when told to, and lets something happen meanwhile."""

    def __init__(self):
        self.syncs, self.error, self.meanwhile = 0, None, None

    def __call__(self, fd):
        self.syncs += 1
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        os.fsync(fd)
        if self.meanwhile:
            self.meanwhile()


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def make(tmp_path, disk):
    return lambda **limits: writer_in(tmp_path, **{"max_bytes": 10_000, "segment_bytes": 1000, "sync": disk, **limits})


def writer_in(folder, **limits):
    return SegmentWriter(folder, "lines", "LINES_MAX_BYTES", **limits)


def segments(folder):
    return segment.segments(folder, "lines")


def lines_in(folder):
    return [line for path in segments(folder) for line in whole_lines(path)]


def test_what_is_appended_is_on_disk_and_synced_when_append_returns(make, tmp_path, disk):
    writer = make()
    writer.append(b"one\n")
    assert lines_in(tmp_path) == [b"one\n"]
    assert disk.syncs == 1


def test_callers_that_come_during_a_sync_share_the_next_one(make, tmp_path, disk):
    writer = make()
    waiting = [gevent.spawn(writer.append, f"{n}\n".encode()) for n in range(50)]
    gevent.joinall(waiting, raise_error=True)
    assert sorted(lines_in(tmp_path)) == sorted(f"{n}\n".encode() for n in range(50))
    assert disk.syncs <= 2


def test_a_segment_that_is_full_is_followed_by_another(make, tmp_path):
    writer = make(segment_bytes=1024)
    for _ in range(10):
        writer.append(b"x" * 299 + b"\n")
    assert [path.stat().st_size for path in segments(tmp_path)] == [900, 900, 900, 300]


def test_a_write_larger_than_a_segment_still_fits_into_one(make, tmp_path):
    make(segment_bytes=1024).append(b"x" * 4999 + b"\n")
    assert len(lines_in(tmp_path)) == 1


def test_past_its_limit_the_spool_is_full_and_what_it_has_stays(make, tmp_path):
    writer = make(max_bytes=1000)
    writer.append(b"x" * 899 + b"\n")
    with pytest.raises(StorageUnavailable):
        writer.append(b"y" * 199 + b"\n")
    assert len(lines_in(tmp_path)) == 1


def test_room_made_by_somebody_else_is_found(make, tmp_path):
    writer = make(max_bytes=1000)
    writer.append(b"x" * 899 + b"\n")
    writer.close()
    segments(tmp_path)[0].unlink()
    writer.append(b"y" * 199 + b"\n")
    assert writer.folder_bytes == 200


def test_two_who_share_a_folder_keep_its_limit_but_for_a_64th(make, tmp_path):
    writers = [make(max_bytes=64_000, segment_bytes=50_000) for _ in range(2)]
    refused = 0
    for turn in range(800):
        try:
            writers[turn % 2].append(b"x" * 99 + b"\n")
        except StorageUnavailable:
            refused += 1
    assert refused > 100
    assert 63_900 <= sum(path.stat().st_size for path in segments(tmp_path)) <= 65_000


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_sync_raises_for_every_caller_that_shared_it_and_takes_the_lines_back(make, tmp_path, disk, error):
    writer = make()
    writer.append(b"good\n")
    disk.error = error
    waiting = [gevent.spawn(writer.append, b"lost\n") for _ in range(3)]
    gevent.joinall(waiting)
    assert [(type(greenlet.exception), greenlet.exception.code) for greenlet in waiting] == [(StorageUnavailable, "storage_full")] * 3
    assert lines_in(tmp_path) == [b"good\n"]


def test_after_a_failure_the_next_append_begins_a_new_segment(make, tmp_path, disk):
    writer = make()
    writer.append(b"good\n")
    disk.error = errno.EIO
    with pytest.raises(StorageUnavailable):
        writer.append(b"lost\n")
    disk.error = None
    writer.append(b"again\n")
    assert lines_in(tmp_path) == [b"good\n", b"again\n"]
    assert len(segments(tmp_path)) == 2
    assert writer.last_error is None


def test_a_write_that_is_killed_in_the_middle_cannot_take_later_lines_with_it(make, tmp_path, disk):
    """The lines of the killed write are on disk and counted by nobody; a failure after it must not cut at the old place."""
    writer, gate = make(), Event()
    writer.append(b"first\n")
    sync, writer._sync = writer._sync, lambda fd: gate.wait() and sync(fd)
    killed = gevent.spawn(writer.append, b"killed\n")
    gevent.sleep(0.01)
    follower = gevent.spawn(writer.append, b"follower\n")
    gevent.sleep(0)
    killed.kill()
    writer._sync = sync
    follower.join()
    assert follower.exception is None, "it was in the next commit"
    writer.append(b"second\n")
    disk.error = errno.EIO
    with pytest.raises(StorageUnavailable):
        writer.append(b"third\n")
    gate.set()
    assert {b"first\n", b"second\n"} <= set(lines_in(tmp_path))
    assert b"third\n" not in lines_in(tmp_path)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_everything_gathers_no_empty_files(make, tmp_path, disk, error):
    writer, disk.error = make(), error
    for _ in range(5):
        with pytest.raises(StorageUnavailable):
            writer.append(b"x\n")
    assert segments(tmp_path) == []


def test_trouble_is_forgotten_when_the_disk_takes_something_again(make, tmp_path, disk):
    writer, disk.error = make(), errno.ENOSPC
    with pytest.raises(StorageUnavailable):
        writer.append(b"x\n")
    writer.try_again()
    assert writer.last_error
    disk.error = None
    writer.try_again()
    assert writer.last_error is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path, disk):
    (tmp_path / "file").write_text("in the way")
    writer = writer_in(tmp_path / "file", max_bytes=1000, segment_bytes=100, sync=disk)
    with pytest.raises(StorageUnavailable):
        writer.append(b"x\n")


def test_a_torn_last_line_is_passed_over(make, tmp_path):
    make().append(b"one\ntwo\n")
    with open(segments(tmp_path)[0], "ab") as file:
        file.write(b'{"half')
    assert lines_in(tmp_path) == [b"one\n", b"two\n"]


def test_what_comes_after_its_segment_was_deleted_goes_into_a_new_one(make, tmp_path):
    writer = make()
    writer.append(b"one\n")
    segments(tmp_path)[0].unlink()
    writer.append(b"two\n")
    assert lines_in(tmp_path) == [b"two\n"]


def test_a_folder_that_is_moved_away_is_followed_by_another(make, tmp_path):
    folder = tmp_path / "spool"
    writer = writer_in(folder, max_bytes=10_000, segment_bytes=1000)
    writer.append(b"one\n")
    folder.rename(tmp_path / "aside")
    writer.append(b"two\n")
    assert lines_in(folder) == [b"two\n"]
    assert lines_in(tmp_path / "aside") == [b"one\n"]


def test_what_is_written_into_a_segment_that_is_deleted_meanwhile_is_written_again(tmp_path, disk):
    folder = tmp_path / "spool"
    writer = writer_in(folder, max_bytes=10_000, segment_bytes=1000, sync=disk)
    writer.append(b"one\n")

    def delete():
        disk.meanwhile = None
        shutil.rmtree(folder)

    disk.meanwhile = delete
    writer.append(b"two\n")
    assert lines_in(folder) == [b"two\n"]


def test_nothing_is_saved_where_every_segment_is_deleted_at_once(make, tmp_path, disk):
    disk.meanwhile = lambda: [path.unlink() for path in segments(tmp_path)]
    with pytest.raises(StorageUnavailable):
        make().append(b"lost\n")


def test_refused_writes_leave_no_empty_segments(make, tmp_path, disk):
    writer = make()
    disk.error = errno.ENOSPC
    for _ in range(5):
        with pytest.raises(StorageUnavailable):
            writer.append(b"lost\n")
    assert segments(tmp_path) == []


def test_trouble_is_forgotten_without_a_write_when_the_disk_is_well_again(tmp_path):
    (tmp_path / "spool").write_text("in the way")
    writer = writer_in(tmp_path / "spool", max_bytes=1000, segment_bytes=100)
    with pytest.raises(StorageUnavailable):
        writer.append(b"x\n")
    writer.try_again()
    assert writer.last_error
    (tmp_path / "spool").unlink()
    writer.try_again()
    assert writer.last_error is None
    assert list((tmp_path / "spool").iterdir()) == [], "the probe is removed again"
