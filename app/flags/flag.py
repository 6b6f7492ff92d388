"""One flag, and the snapshot of all flags: immutable values.

The rules of a flag are a plain mapping here: `rules` evaluates them, `schemas` checks their JSON.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
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
        """Return whether `now` is in [start_at, end_at); a bound of None does not limit the window."""
        return (self.start_at is None or now >= self.start_at) and (self.end_at is None or now < self.end_at)

    @property
    def has_empty_window(self) -> bool:
        """True when the flag ends at its start or before it."""
        return self.start_at is not None and self.end_at is not None and self.start_at >= self.end_at

    @cached_property
    def record(self) -> dict[str, Any]:
        """The flag as JSON, for answers and for the file. It is built once per flag: do not change it."""
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
        """Changes with any field of the record, also when a manual edit left `version` as it was."""
        return fingerprint(self.record)


@dataclass(frozen=True)
class Snapshot:
    """All flags at one moment, in the order of their keys. Equal flags have an equal `version` in every worker."""

    flags: Mapping[str, Flag]
    version: str
    window_bounds: tuple[int, ...]  # every startAt and endAt, sorted

    @classmethod
    def of(cls, flags: Iterable[Flag]) -> "Snapshot":
        """Build the snapshot of `flags`, which may come in any order."""
        by_key = {flag.key: flag for flag in sorted(flags, key=lambda flag: flag.key)}
        version = fingerprint([flag.fingerprint for flag in by_key.values()])
        bounds = {ms for flag in by_key.values() for ms in (flag.start_at, flag.end_at) if ms is not None}
        return cls(MappingProxyType(by_key), version, tuple(sorted(bounds)))

    def with_flag(self, flag: Flag) -> "Snapshot":
        """Return this snapshot with `flag` added, in the place of an older flag with its key."""
        return Snapshot.of({**self.flags, flag.key: flag}.values())

    def without(self, key: str) -> "Snapshot":
        """Return this snapshot without the flag `key`."""
        return Snapshot.of(flag for flag in self.flags.values() if flag.key != key)

    def bounds_passed(self, now: int) -> int:
        """Count the starts and ends of windows up to `now`. While this and `version` stay, every decision stays."""
        return bisect_right(self.window_bounds, now)

    def keys_changed_since(self, earlier: "Snapshot") -> list[str]:
        """Return the sorted keys of flags that were added, deleted or changed; a new `updated_at` alone is no change."""
        keys = sorted(self.flags.keys() | earlier.flags.keys())
        return [key for key in keys if _undated(self.flags.get(key)) != _undated(earlier.flags.get(key))]


def _undated(flag: Flag | None) -> Flag | None:
    return flag and replace(flag, updated_at=0)


def _iso(ms: int | None) -> str | None:
    return None if ms is None else to_iso(ms)
