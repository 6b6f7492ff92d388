"""Makes DATA_DIR usable, reports what is wrong with it, and claims it for one store."""

import os
from pathlib import Path

from app.logs import get_logger
from app.settings import SettingsError
from app.settings.in_use import IN_USE
from app.storage import disk, mongo
from app.storage.data_dir_owner import FILES, DataDirOwner
from app.wiring.common import Common

log = get_logger(__name__)
ORPHANED_WORKER_S = 2.0  # workers whose master was killed notice it within a second
WITHOUT_LOCKS = "nothing can be stored in its files: no events, no flags, no configurations; use a local disk"
OPEN_TO_OTHERS = "another account of this machine can hold its locks, which stops changes of flags and the drainer"


def prepare(data_dir: Path) -> None:
    """Make the folder. Raise SettingsError where it cannot be written to; log where locks or permissions are missing."""
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        data_dir.mkdir(disk.FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"switchyard: DATA_DIR {data_dir} is not usable: {error.strerror}") from None
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise SettingsError(f"switchyard: DATA_DIR {data_dir} is not usable: it cannot be written to")
    if disk.is_open_to_others(data_dir):
        log.warning("data_dir_is_open", path=str(data_dir), consequence=OPEN_TO_OTHERS, remedy=f"chmod 750 {data_dir}")
    if trouble := disk.lacks_locks(data_dir):
        log.error("data_dir_has_no_locks", path=str(data_dir), error=trouble, consequence=WITHOUT_LOCKS)


def claim(common: Common) -> None:
    """Claim the folder when the worker starts, and renew the claim.

    At a first start other claimants belong to another server, so the wait is short. After a SIGHUP with other settings they are old
    workers that still drain.
    """
    settings = common.settings
    owner = DataDirOwner(common.data_dir, mongo.place(settings.mongo_uri) if settings.mongo_uri else FILES)
    old_workers_s = settings.drain_timeout_ms / 1000 + ORPHANED_WORKER_S
    common.lifecycle.on_start(lambda: owner.claim(old_workers_s if IN_USE.has_served else ORPHANED_WORKER_S))
    common.lifecycle.every("data_dir_owner", 10, owner.look_after)
