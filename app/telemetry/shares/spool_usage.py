"""How much each application has stored in the spool's folder, for all processes that write there.

The account is what lies in the folder: the sum over its segments. Each writer keeps beside its segment a small file, .apps-NAME,
that says how many bytes each application has there, and writes it again at most once a second; the other processes read those, and
never the segments. Only the end of a segment whose writer was killed is read, once, in turns, and then noted like the others; so is
all of a segment that an older version wrote.

Invariants: (1) what this process has answered as stored counts at once, and what is being written counts before it is; (2) what
another process stored counts within two rounds of `look`, so several workers together may pass an application's limit by what they
store in two seconds; (3) nothing else is forgotten, however a process ends, since what a file does not say is counted under
`(other)` until it is read.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from app.serving.fairness import TimeSlice
from app.storage.disk import private
from app.storage.segments.segment import has_writer, segments, size_of, whole_lines
from app.telemetry.shares.spool_share import MAX_APPS, OTHER, SpoolShare
from app.telemetry.sinks import SinkShareFull

PREFIX, HALF = ".apps-", ".apps"
APPS_A_SEGMENT = 64  # that have a count of their own in it
ROUND_SHARE = 50  # a look takes at most a fiftieth of the time, however many segments there are
RECENTLY_S = 60.0
ALL = 2**62
LINES_BETWEEN_TURNS = 64


class SegmentUsage(msgspec.Struct):
    """The first `size` bytes of a segment, by application in the order in which they came."""

    size: int = 0
    apps: dict[str, int] = {}

    def add(self, app: str, size: int) -> None:
        self.size += size
        party = app if app in self.apps or len(self.apps) < APPS_A_SEGMENT else OTHER
        self.apps[party] = self.apps.get(party, 0) + size


class _Line(msgspec.Struct):
    app: str


_app_of = msgspec.json.Decoder(_Line).decode
_read_noted = msgspec.json.Decoder(SegmentUsage).decode


class SpoolUsage:
    """`named` are the applications that have a part of their own whether they have stored something or not."""

    def __init__(self, folder: Path, kind: str, *, max_bytes: int, share: float, named: Iterable[str] = ()):
        self._folder = folder
        self._kind = kind
        self._bound = tuple(sorted(named))
        self._rule = SpoolShare(max_bytes, share, len(self._bound) + MAX_APPS + 1)
        self._parties: dict[str, None] = dict.fromkeys(self._bound)
        self._own: dict[Path, SegmentUsage] = {}
        self._saved: dict[Path, int] = {}  # the size that its file says
        self._others: dict[Path, SegmentUsage] = {}
        self._reserved: Counter[str] = Counter()  # by application, what is being written
        self._stored: dict[str, int] = {}  # by party, what is reserved included
        self._refused_at: dict[str, float] = {}
        self._next_look = 0.0

    def reserve(self, sizes: Mapping[str, int]) -> None:
        """Bytes by application that are about to be written. Raises SinkShareFull where some have no room; then none are reserved."""
        if self._rule.share >= 1:
            return
        full = {}
        for app, size in sizes.items():
            party = self._party(app)
            limit, stored = self._rule.limit_of(party, self._stored), self._stored.get(party, 0)
            if stored + size > limit:
                full[app] = _sentence(app, party, stored, limit)
                self._refused_at[party] = time.monotonic()
            else:
                self._reserved[app] += size
                self._stored[party] = stored + size
        if full:
            self.release({app: size for app, size in sizes.items() if app not in full})
            raise SinkShareFull(full)

    def release(self, sizes: Mapping[str, int]) -> None:
        """They were not written."""
        for app, size in sizes.items():
            self._end(app, size)
            party = self._party(app)
            self._stored[party] = self._stored.get(party, 0) - size

    def note(self, path: Path, sizes: Mapping[str, int]) -> None:
        """What was reserved stands in this segment now."""
        noted = self._own.setdefault(path, SegmentUsage(0, {}))
        for app, size in sizes.items():
            noted.add(app, size)
            self._end(app, size)

    def full_parties(self) -> list[str]:
        """Those that were refused lately."""
        since = time.monotonic() - RECENTLY_S
        self._refused_at = {party: at for party, at in self._refused_at.items() if at > since}
        return sorted(self._refused_at)

    def holds_back_all(self) -> bool:
        """True where each application that has something here was refused lately: for these the spool is full."""
        stored = [party for party, size in self._stored.items() if size > 0]
        return bool(stored) and set(stored) <= set(self.full_parties())

    def is_near_a_limit(self, part: float) -> bool:
        return any(size > part * self._rule.limit_of(party, self._stored) for party, size in self._stored.items())

    def look(self, *, at_most_bytes: int = ALL) -> None:
        """Every second: write what this process noted, read what the others did. When `at_most_bytes` of segments were read, what
        the notes of further ones do not say is counted under `(other)` until the next look."""
        started, is_partial = time.monotonic(), at_most_bytes < ALL
        if self._rule.share >= 1 or started < self._next_look:
            return
        paths = segments(self._folder, self._kind)
        self._forget_gone(set(paths))
        self.save()
        for path in paths:
            if path not in self._own:
                self._others[path], read = self._noted_by_another(path, at_most_bytes)
                at_most_bytes -= read
        self._add_up()
        if not is_partial:
            self._next_look = time.monotonic() + ROUND_SHARE * (time.monotonic() - started)

    def save(self) -> None:
        """For the other processes. A disk in trouble costs exactness and nothing else."""
        for path, noted in self._own.items():
            if self._saved.get(path) != noted.size and self._write(path, noted):
                self._saved[path] = noted.size

    def forget(self, path: Path) -> None:
        """The segment is gone."""
        with suppress(OSError):
            _beside(path).unlink(missing_ok=True)

    def _party(self, app: str) -> str:
        if app not in self._parties:
            if len(self._parties) + 1 >= self._rule.parties:
                return OTHER
            self._parties[app] = None
        return app

    def _end(self, app: str, size: int) -> None:
        self._reserved[app] -= size
        if self._reserved[app] <= 0:
            del self._reserved[app]

    def _forget_gone(self, there: set[Path]) -> None:
        for kept in (self._own, self._saved, self._others):
            for path in kept.keys() - there:
                del kept[path]
        for file in self._folder.glob(f"{PREFIX}{self._kind}-*"):
            if file.with_name(file.name.removeprefix(PREFIX)) not in there:
                file.unlink(missing_ok=True)

    def _noted_by_another(self, path: Path, at_most_bytes: int) -> tuple[SegmentUsage, int]:
        """And how many bytes were read for it."""
        size, noted = size_of(path), self._others.get(path)
        if noted is not None and noted.size == size and OTHER not in noted.apps:
            return noted, 0
        noted = self._read(path, size)
        missing = size - noted.size
        if 0 < missing <= at_most_bytes and not has_writer(path):
            return self._read_segment(path, noted), missing
        if missing:
            noted.add(OTHER, missing)
        return noted, 0

    def _read(self, path: Path, size: int) -> SegmentUsage:
        """Nothing, where its writer has noted nothing, or of another file."""
        with suppress(OSError, msgspec.DecodeError):
            noted = _read_noted(_beside(path).read_bytes())
            if 0 <= noted.size <= size and sum(noted.apps.values()) == noted.size:
                return noted
        return SegmentUsage(0, {})

    def _read_segment(self, path: Path, noted: SegmentUsage) -> SegmentUsage:
        """From where its writer's note ends: the rest of a process that was killed."""
        time_slice = TimeSlice()
        for count, line in enumerate(whole_lines(path, noted.size), 1):
            noted.add(_app_in(line), len(line))
            if count % LINES_BETWEEN_TURNS == 0:
                time_slice.yield_if_over()
        if (torn := size_of(path) - noted.size) > 0:
            noted.add(OTHER, torn)
        self._write(path, noted)
        return noted

    def _write(self, path: Path, noted: SegmentUsage) -> bool:
        half = path.with_name(f".{path.name}{HALF}.{os.getpid()}")
        with suppress(OSError):
            with open(half, "wb", opener=private) as file:
                file.write(msgspec.json.encode(noted))
            half.rename(_beside(path))
            return True
        return False

    def _add_up(self) -> None:
        """From the segments, the oldest first, and what is being written."""
        self._parties = dict.fromkeys(self._bound)
        stored: Counter[str] = Counter()
        segments_ = {**self._others, **self._own}
        for apps in [*(segments_[path].apps for path in sorted(segments_)), self._reserved]:
            for app, size in apps.items():
                stored[OTHER if app == OTHER else self._party(app)] += size
        self._stored = dict(stored)


def _beside(path: Path) -> Path:
    return path.with_name(PREFIX + path.name)


def _app_in(line: bytes) -> str:
    try:
        return _app_of(line).app
    except (msgspec.DecodeError, UnicodeDecodeError):
        return OTHER  # no event; the import names such lines


def _sentence(app: str, party: str, stored: int, limit: int) -> str:
    who = f"The application {app} has" if party == app else f"The application {app} and others beyond the first {MAX_APPS} have"
    return f"{who} used up the share of the spool: {stored} of {limit} bytes (SPOOL_APP_SHARE)."
