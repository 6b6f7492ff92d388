"""A disk of a few megabytes that a test can fill or make read-only."""

import contextlib
import os
import sys
import time

from tests.servers import cleanup, commands
from tests.servers.real import Unavailable


class SmallDisk:
    """A tmpfs mounted on `folder`, until `close`."""

    def __init__(self, size_bytes):
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            raise Unavailable("a small disk is a tmpfs, which only root on Linux may mount")
        self.folder = cleanup.new_folder("disk")
        commands.run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", self.folder)

    def start(self):
        return self

    def fill(self, but_for_bytes=0):
        """Fill the disk except for `but_for_bytes`."""
        room = os.statvfs(self.folder)
        (self.folder / "ballast").write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - but_for_bytes)))

    def free(self):
        (self.folder / "ballast").unlink()

    @contextlib.contextmanager
    def read_only(self):
        self._remount_read_only()
        try:
            yield
        finally:
            commands.run("mount", "-o", "remount,rw", self.folder)

    def _remount_read_only(self, patience_s=5):
        """Remount, and retry while the disk is busy: a write in progress ends soon, a file held open for writing does not."""
        ends = time.monotonic() + patience_s
        while True:
            try:
                return commands.run("mount", "-o", "remount,ro", self.folder)
            except Unavailable:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.05)

    def close(self):
        commands.run("umount", "--lazy", self.folder)
        cleanup.remove(self.folder)
