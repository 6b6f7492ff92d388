"""All flags at one moment, immutable: what requests are answered from while the store is busy, slow or away."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from app.flags.flag import Flag
from app.storage.fingerprint import fingerprint


@dataclass(frozen=True)
class Snapshot:
    """`version` is the same wherever the flags are the same, in every worker. Iterates in the order of the keys."""

    flags: Mapping[str, Flag]
    version: str
    turning_points: tuple[int, ...]  # every startAt and endAt, sorted

    @classmethod
    def of(cls, flags: Iterable[Flag]) -> "Snapshot":
        by_key = {flag.key: flag for flag in sorted(flags, key=lambda flag: flag.key)}
        version = fingerprint([flag.fingerprint for flag in by_key.values()])
        times = {ms for flag in by_key.values() for ms in (flag.start_at, flag.end_at) if ms is not None}
        return cls(MappingProxyType(by_key), version, tuple(sorted(times)))

    def with_flag(self, flag: Flag) -> "Snapshot":
        return Snapshot.of({**self.flags, flag.key: flag}.values())

    def without(self, key: str) -> "Snapshot":
        return Snapshot.of(flag for flag in self.flags.values() if flag.key != key)

    def era(self, now: int) -> int:
        """How many windows have opened or closed by now: while it and `version` stay, so does every decision."""
        return bisect_right(self.turning_points, now)

    def keys_changed_since(self, earlier: "Snapshot") -> list[str]:
        keys = sorted(self.flags.keys() | earlier.flags.keys())
        return [key for key in keys if _says(self.flags.get(key)) != _says(earlier.flags.get(key))]


def _says(flag: Flag | None) -> Flag | None:
    """The flag without its date: touching a file changes nothing."""
    return flag and replace(flag, updated_at=0)
