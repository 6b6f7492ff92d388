"""A disk of a few megabytes, to be filled and made read-only: what a full one does is not the same as what we think it does."""

import contextlib
import os
import sys

from tests.servers import commands, keeper
from tests.servers.real import Unavailable


class SmallDisk:
    """A tmpfs mounted on `folder`, until `close`."""

    def __init__(self, size_bytes):
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            raise Unavailable("a small disk is a tmpfs, which only root on Linux may mount")
        self.folder = keeper.folder("disk")
        commands.run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", self.folder)

    def start(self):
        return self

    def fill(self, but_for_bytes=0):
        """Take all the room there is, but for so much."""
        room = os.statvfs(self.folder)
        (self.folder / "ballast").write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - but_for_bytes)))

    def free(self):
        (self.folder / "ballast").unlink()

    @contextlib.contextmanager
    def read_only(self):
        commands.run("mount", "-o", "remount,ro", self.folder)
        try:
            yield
        finally:
            commands.run("mount", "-o", "remount,rw", self.folder)

    def close(self):
        commands.run("umount", "--lazy", self.folder)
        keeper.remove(self.folder)
