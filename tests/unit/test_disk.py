"""Locks of files under DATA_DIR."""

import errno
import fcntl
import os

import pytest

from app.storage import disk
from app.storage.data_dir_owner import DataDirOwner
from app.storage.leader_lock import LeaderLock
from app.telemetry.sinks.id_reservations import IdReservations


def is_writable(fd):
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def open_files(folder):
    """(name, whether it can be written to) of each file of the folder that this process holds open."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path.startswith(f"{folder}/"):
                yield os.path.basename(path), is_writable(fd)
        except OSError:
            continue  # the folder of descriptors itself


def test_a_lock_is_held_by_one_and_shared_by_many(tmp_path):
    first, second = (disk.open_lock(tmp_path / "lock") for _ in range(2))
    assert disk.lock(first) and not disk.lock(second)
    assert disk.lock(first, shared=True) and disk.lock(second, shared=True)


def test_what_is_held_for_long_is_not_open_for_writing(tmp_path):
    """Else the kernel refuses to mount the file system of DATA_DIR read-only while a server lives."""
    owner, leader, ids = DataDirOwner(tmp_path, "a store"), LeaderLock(tmp_path / ".drainer.lock"), IdReservations(tmp_path, 10)
    owner.claim(1)
    assert leader.acquire()
    assert ids.reserve(["x" * 22]) == []
    assert dict(open_files(tmp_path)) == {"owner": False, ".drainer.lock": False, ".ids.lock": False, ".ids": False}
    leader.release()
    ids.close()


def test_a_file_system_that_locks_only_what_can_be_written_to_still_locks(tmp_path, monkeypatch):
    """As NFS does for an exclusive lock."""
    really = fcntl.flock

    def flock(fd, how):
        if how & fcntl.LOCK_EX and not is_writable(fd):
            raise OSError(errno.EBADF, "Bad file descriptor")
        really(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    first, second = (disk.open_lock(tmp_path / "lock") for _ in range(2))
    assert disk.lock(first) and not disk.lock(second)
    os.close(first)
    assert disk.lock(second)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(fd, how):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="offers no locks"):
        disk.lock(disk.open_lock(tmp_path / "lock"))
