"""Files and folders under DATA_DIR, for every part that keeps some: private to the account (and group) of the server, and there
after a crash.

Private, since whoever can open a lock can hold it: another account of the machine would stop flag changes and the drainer.
An umask may make them narrower still. `open(path, mode, opener=private)` is how a file is made here.
"""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

FOLDER_MODE = 0o750
FILE_MODE = 0o640
WIDER = 0o777 & ~FOLDER_MODE


def private(path: str | os.PathLike, flags: int) -> int:
    """For the `opener` of open(): the descriptor of a file that, where it is made by this, others cannot open."""
    return os.open(path, flags, FILE_MODE)


def open_lock(path: str | os.PathLike) -> int:
    """The descriptor of a lock file, made where there is none. It can only read: while a process holds a descriptor that can write,
    the kernel refuses to mount the file system read-only, and a lock is held for as long as a server lives."""
    return private(path, os.O_RDONLY | os.O_CREAT)


def make_file(path: Path) -> None:
    """For a library that makes its file with a mode of its own: there, and empty, before it looks."""
    with suppress(FileExistsError):
        os.close(private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))


def make_folder(folder: Path) -> None:
    """Durably, with its parents, where it is not there."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(FOLDER_MODE, exist_ok=True)
    sync_folder(folder.parent)


def is_open_to_others(folder: Path) -> bool:
    """Whether an existing folder lets other accounts in, or its group write."""
    return bool(folder.stat().st_mode & WIDER)


def lock(fd: int, *, shared: bool = False) -> bool:
    """True when it is held, until the file is closed; False while another process holds it. Raises OSError, with a sentence where
    the file system offers no locks: some of NFS and FUSE."""
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    try:
        try:
            fcntl.flock(fd, how)
        except OSError as error:
            if error.errno != errno.EBADF or shared:
                raise
            _let_write(fd)
            fcntl.flock(fd, how)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OSError(error.errno, f"the file system offers no locks (flock): {error.strerror}") from None
    return True


def _let_write(fd: int) -> None:
    """Linux locks a file on NFS as fcntl does, and fcntl takes an exclusive lock only by a descriptor that can write (flock(2))."""
    writable = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    try:
        os.dup2(writable, fd, inheritable=False)
    finally:
        os.close(writable)


def lacks_locks(folder: Path) -> str | None:
    """Why files in this folder cannot be locked, if they cannot. Raises OSError for any other trouble."""
    probe = folder / f".probe-lock-{os.getpid()}"
    fd = private(probe, os.O_WRONLY | os.O_CREAT)
    try:
        lock(fd)
    except OSError as error:
        return error.strerror
    finally:
        os.close(fd)
        probe.unlink(missing_ok=True)
    return None


def sync_folder(folder: Path) -> None:
    """A new or renamed file is there after a crash only when its folder has been synced, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
