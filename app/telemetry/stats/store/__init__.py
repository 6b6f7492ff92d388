"""Stores of buckets, all of which pass the same contract test.

`mongo` and `file` (one SQLite file) are the real stores, and `memory` is for tests. `ladder` writes to `mongo`, and while MongoDB does not
answer it keeps deltas in the file (`delta_queue`). Each store has a maximum size; `eviction` decides which application loses buckets then.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from app.telemetry.stats.bucket import Bucket, Delta


class RollupStore(Protocol):
    """`apply`, `read` and `apps` may raise StorageUnavailable. A delta may or may not be stored then, and the caller applies it again."""

    def apply(self, delta: Delta) -> None:
        """Add a delta to the buckets of its minutes, hours and days, once, however often it is repeated."""
        ...

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> Iterable[Bucket]:
        """Return the buckets of a level that begin in [since, until), in epoch milliseconds; with `env` None those of every env."""
        ...

    def apps(self, at_most: int) -> list[str]:
        """Return the applications that have buckets, those that were counted first before the others."""
        ...

    def tend(self) -> None:
        """Run every few seconds: delete what is too old or exceeds the maximum size."""
        ...

    def check(self) -> dict[str, Any]:
        """Return the state for health: {"state", "error"?, ...}."""
        ...
