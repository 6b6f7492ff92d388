"""Where buckets are kept. The port is five methods, and every twin passes the same contract test:

    apply(delta)                              adds it to its minutes, hours and days, once, however often it is repeated
    read(level_ms, app, env, since, until)    the buckets that begin in [since, until); `env` None means every env
    apps(at_most)                             the applications that are counted here, the first ones first
    tend()                                    called again and again: keeps itself within its bound
    check()                                   its state for health: {"state", "error"?, …}

`mongo` and `file` (one SQLite file) are the real ones, `memory` is for tests, and `ladder` is made of the first two.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from app.telemetry.stats.bucket import Bucket, Delta


class RollupStore(Protocol):
    """The first three may raise StorageUnavailable; then the delta may be stored or not, and the caller applies it again."""

    def apply(self, delta: Delta) -> None: ...

    def read(self, level_ms: int, app: str, env: str | None, since: int, until: int) -> Iterable[Bucket]: ...

    def apps(self, at_most: int) -> list[str]: ...

    def tend(self) -> None: ...

    def check(self) -> dict[str, Any]: ...
