"""What a flag is: one immutable value, and the form it has on the wire and in the file.

Rules stay a plain mapping here; which ones exist is `rules`' table, which shapes they have is `schemas`' business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from app.json_values import to_iso
from app.storage.fingerprint import fingerprint


@dataclass(frozen=True)
class Flag:
    """Times are epoch milliseconds. `version` counts the writes of this record, starting with 1."""

    key: str
    enabled: bool = False
    rules: Mapping[str, Any] = field(default_factory=dict)
    start_at: int | None = None
    end_at: int | None = None
    description: str | None = None
    version: int = 1
    updated_at: int = 0

    def is_in_window(self, now: int) -> bool:
        """Within [start_at, end_at); an end that is not given is open."""
        return (self.start_at is None or now >= self.start_at) and (self.end_at is None or now < self.end_at)

    @property
    def has_empty_window(self) -> bool:
        return self.start_at is not None and self.end_at is not None and self.start_at >= self.end_at

    @cached_property
    def record(self) -> dict[str, Any]:
        """The wire form; made once per flag, so read it and do not change it."""
        record = {
            "key": self.key,
            "enabled": self.enabled,
            "rules": dict(self.rules),
            "startAt": _iso(self.start_at),
            "endAt": _iso(self.end_at),
            "version": self.version,
            "updatedAt": to_iso(self.updated_at),
        }
        return record if self.description is None else {**record, "description": self.description}

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever anything in the record does, also when a hand changed it and left `version` alone."""
        return fingerprint(self.record)


def _iso(ms: int | None) -> str | None:
    return None if ms is None else to_iso(ms)
