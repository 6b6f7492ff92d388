"""Builds feature flags: the store (MongoDB or one JSON file) and the snapshot over it."""

from collections.abc import Callable

from app.flags.flags import Flags
from app.flags.schemas import read_records, write_records
from app.flags.store.file import FileFlagStore
from app.flags.store.mongo import MongoFlagStore
from app.storage.embedded_file import EmbeddedFile
from app.wiring.common import Common, keep_current, local_copy


def build(common: Common, announce: Callable[[dict], object]) -> Flags:
    """Build the flags; `announce` is called with each change."""
    path, refresh_ms = common.data_dir / "flags.json", common.settings.flags_refresh_ms
    file = FileFlagStore(path)
    if common.database is None:
        flags = Flags(file, common.clock, common.metrics, announce, uptime=common.uptime)
        keep_current(common, "flags_refresh", refresh_ms, [flags.refresh])
    else:
        store = MongoFlagStore()
        embedded = EmbeddedFile(path, file.by_key, lambda key, flag: store.create(flag))
        copy = local_copy(common, embedded, write_records, read_records)
        flags = Flags(store, common.clock, common.metrics, announce, copy=copy, uptime=common.uptime)
        keep_current(common, "flags_refresh", refresh_ms, [embedded.move, flags.refresh])
    common.checks["flags"] = flags.check
    return flags
