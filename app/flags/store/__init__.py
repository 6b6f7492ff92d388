"""The interface of the stores of flags: file (one JSON document, open to manual edits), mongo, memory (for tests).

A store refuses a request with an ApiError (not_found, conflict, precondition_failed, limit_exceeded), and raises
StorageUnavailable when it cannot tell. It never replaces a record that it could not read, and never writes a record that
it could not read again.
"""

from typing import Protocol

from app.errors import ApiError
from app.flags.flag import Flag


class FlagStore(Protocol):
    """Every method may raise StorageUnavailable. A change is durable when its method returns."""

    def list_all(self) -> list[Flag]:
        """Return all flags, in any order."""

    def get(self, key: str) -> Flag:
        """Return one flag. Raises not_found."""

    def create(self, flag: Flag) -> None:
        """Add a flag. Raises conflict when its key exists."""

    def replace(self, flag: Flag, expected_version: int) -> None:
        """Replace the flag with the same key. Raises not_found, or precondition_failed when its version is another one."""

    def delete(self, key: str, expected_version: int | None) -> None:
        """Delete a flag; `expected_version` None deletes any version. Raises not_found and precondition_failed."""


def no_such_flag(key: str) -> ApiError:
    """Return the error for a key that the store does not have."""
    return ApiError("not_found", f"There is no flag {key}.")


def flag_exists(key: str) -> ApiError:
    """Return the error for a new flag whose key is taken."""
    return ApiError("conflict", f"There is a flag {key} already.")
