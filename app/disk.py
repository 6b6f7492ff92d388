"""What makes a name on disk durable, for everybody who keeps files: the spool, flags, the applications' configuration."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """A new or renamed file is there after a crash only when its folder has been synced, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
