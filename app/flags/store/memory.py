"""Stores flags in memory, until the process ends: for tests, and inside the file store."""

from app.errors import ApiError
from app.flags.flag import Flag
from app.flags.store import flag_exists, no_such_flag


class MemoryFlagStore:
    """Holds the flags in a dictionary by key."""

    def __init__(self, *flags: Flag):
        self._flags = {flag.key: flag for flag in flags}

    def list_all(self) -> list[Flag]:
        """Return the flags in the order of their creation."""
        return list(self._flags.values())

    def get(self, key: str) -> Flag:
        """Return one flag. Raises not_found."""
        try:
            return self._flags[key]
        except KeyError:
            raise no_such_flag(key) from None

    def create(self, flag: Flag) -> None:
        """Add a flag. Raises conflict."""
        if flag.key in self._flags:
            raise flag_exists(flag.key)
        self._flags[flag.key] = flag

    def replace(self, flag: Flag, expected_version: int) -> None:
        """Replace a flag. Raises not_found and precondition_failed."""
        self._expect(flag.key, expected_version)
        self._flags[flag.key] = flag

    def delete(self, key: str, expected_version: int | None) -> None:
        """Delete a flag. Raises not_found and precondition_failed."""
        self._expect(key, expected_version)
        del self._flags[key]

    def _expect(self, key: str, version: int | None) -> None:
        if self.get(key).version != version and version is not None:
            raise ApiError("precondition_failed")
