"""Where flags are kept: file (one JSON document, also for hands), mongo, memory (for tests). This is their port.

A store refuses with an ApiError of the catalogue (not_found, conflict, precondition_failed, limit_exceeded) and says
StorageUnavailable whenever it cannot know; it never guesses, never writes over what it could not read, and writes nothing
that it could not read again.
"""

from typing import Protocol

from app.errors import ApiError
from app.flags.flag import Flag


class FlagStore(Protocol):
    """Every method may raise StorageUnavailable. What has returned is durable."""

    def list_all(self) -> list[Flag]: ...

    def get(self, key: str) -> Flag:
        """Raises not_found."""

    def create(self, flag: Flag) -> None:
        """Raises conflict where the key exists."""

    def replace(self, flag: Flag, expected_version: int) -> None:
        """Put `flag` in the place of the one with its key. Raises not_found, or precondition_failed for another version."""

    def delete(self, key: str, expected_version: int | None) -> None:
        """None deletes whatever version is there. Raises not_found and precondition_failed."""


def no_such_flag(key: str) -> ApiError:
    return ApiError("not_found", f"There is no flag {key}.")


def flag_exists(key: str) -> ApiError:
    return ApiError("conflict", f"There is a flag {key} already.")
