"""The values that the builders of this package share, and the two steps that flags and telemetry configurations have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pymongo.database import Database

from app.clock import Clock
from app.health import Check
from app.lifecycle import Lifecycle
from app.metrics import Metrics
from app.settings import Settings
from app.storage import mongo
from app.storage.embedded_file import EmbeddedFile
from app.storage.local_copy import LocalCopy


@dataclass(frozen=True)
class Common:
    """Arguments of every builder. A builder adds its background tasks to `lifecycle` and its dependencies to `checks`."""

    settings: Settings
    clock: Clock  # wall clock, for dates
    uptime: Clock  # monotonic clock, for durations
    database: Database | None
    metrics: Metrics = field(default_factory=Metrics)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    checks: dict[str, Check] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        """The folder DATA_DIR, which exists."""
        return self.settings.data_dir

    @property
    def mongo_target(self) -> str:
        """The name of the database in MONGO_URI, under which files note what was moved to it."""
        return mongo.target(self.settings.mongo_uri or "")


def local_copy(common: Common, embedded: EmbeddedFile, to_json: Callable, from_json: Callable) -> LocalCopy:
    """Return the copy on disk that a process reads when MongoDB is away at its start.

    Before the first answer of MongoDB the copy holds what the embedded file still has to move there.
    """
    path = common.data_dir / "snapshots" / embedded.name
    return LocalCopy(path, common.mongo_target, to_json, from_json, before=embedded.recall)


def keep_current(common: Common, name: str, refresh_ms: int, steps: list[Callable[[], None]]) -> None:
    """Run `steps` in their order at the start and every `refresh_ms`: the embedded file is moved before MongoDB is read."""
    for step in steps:
        common.lifecycle.on_start(step)

    def refresh() -> None:
        for step in steps:
            step()

    common.lifecycle.every(name, refresh_ms / 1000, refresh)
