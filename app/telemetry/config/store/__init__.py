"""Where overrides are kept: file (one JSON document, also for hands), mongo, memory (for tests). This is their port.

What is kept has the names and limits of OverridesSchema; a store never guesses and never writes over what it could not read.
"""

from typing import Any, Protocol

from app.errors import ApiError

Overrides = dict[str, Any]


class ConfigStore(Protocol):
    """Every method may raise StorageUnavailable. What has returned is durable. The last write wins, but for one that names what
    it expects to be there ({}: nothing): it raises precondition_failed where something else is."""

    def read_all(self) -> dict[str, Overrides]:
        """By application; the caller's own to change."""

    def put(self, app: str, overrides: Overrides, expected: Overrides | None = None) -> None: ...

    def delete(self, app: str, expected: Overrides | None = None) -> None:
        """Raises not_found."""


def no_such_overrides(app: str) -> ApiError:
    return ApiError("not_found", f"{app} has no configuration of its own.")
