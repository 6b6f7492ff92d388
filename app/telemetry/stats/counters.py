"""Counters of what arrived since the last flush. Pure, and as cheap as an event can be counted: one key, one step in C.

What an event says about itself: an `api` event failed where `props.ok` is false or, without an `ok`, where `props.status`
is 400 or more, or 0 (no answer came). The value of a `perf` or `api` event is the first number among `props.value`,
`props.duration` and `props.ms`; a negative one is no value.

Names are bounded: each application and env has its first MAX_NAMES of a day, the most frequent ones first; what comes
after is counted under the name `(other)`. Such names usually have an id in them. Everything else is bounded by `shares`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from app.telemetry.event import StoredEvent
from app.telemetry.event_types import CAN_FAIL, READ_PROPS, WITH_VALUE
from app.telemetry.stats.bucket import DAY_MS, MINUTE_MS, Bucket
from app.telemetry.stats.sketch import bin_of

OTHER = "(other)"
NUMBERS = (float, int)
COUNTED_PROPS, COUNTED_TYPES = ("ok", "status", "value", "duration", "ms"), (*NUMBERS, bool)
MAX_NAMES = 300
KEYS_BETWEEN_PAUSES = 500
MAX_BOOKS = 2000  # pairs of application and env; one that comes after has all its names under `(other)`


Place = Callable[[str, str | None, int], tuple[str, str | None, int]]


def as_it_is(app: str, env: str | None, minute: int) -> tuple[str, str | None, int]:
    return app, env, minute


def no_pause() -> None:
    """For callers that delay no others."""


def with_pauses(items: Iterable, pause: Callable[[], None]) -> Iterator:
    for number, item in enumerate(items, 1):
        yield item
        if number % KEYS_BETWEEN_PAUSES == 0:
            pause()


class Counters:
    """Keys are (app, env, minute, type, name), those of `values` are pairs of that and a sketch's bin. In the place of a minute
    may stand a day: its first minute, negative."""

    def __init__(self):
        self.counts: Counter[tuple] = Counter()
        self.failed: Counter[tuple] = Counter()
        self.values: Counter[tuple] = Counter()

    def __len__(self) -> int:
        """How many counters there are."""
        return len(self.counts) + len(self.failed) + len(self.values)

    def add(self, events: Iterable[StoredEvent]) -> None:
        keys = [(event.app, event.env, event.ts // MINUTE_MS, event.type, event.name) for event in events]
        self.counts.update(keys)
        values, failed = [], []
        for key, event in zip(keys, events, strict=True):
            type_ = key[3]
            if type_ in READ_PROPS:
                props = event.props
                if type_ in WITH_VALUE and (value := value_in(props)) is not None:
                    values.append((key, bin_of(value)))
                if type_ in CAN_FAIL and has_failed(props):
                    failed.append(key)
        self.values.update(values)
        self.failed.update(failed)

    def bounded(self, names: "Names", place: Place = as_it_is, pause: Callable[[], None] = no_pause) -> "Counters":
        """The same in the places and under the names that are allowed, the most frequent first. `place` maps (app, env, minute)."""
        kept, moved = Counters(), {}
        for key, count in with_pauses(self.counts.most_common(), pause):
            moved[key] = _bounded(key, names, place)
            kept.counts[moved[key]] += count
        for key, count in with_pauses(self.failed.items(), pause):
            kept.failed[moved[key]] += count
        for (key, bin_), count in with_pauses(self.values.items(), pause):
            kept.values[moved[key], bin_] += count
        return kept

    def merge(self, other: "Counters") -> None:
        self.counts.update(other.counts)
        self.failed.update(other.failed)
        self.values.update(other.values)

    def buckets(self) -> list[Bucket]:
        buckets: dict[tuple, Bucket] = {}
        for (*place, type_, name), count in self.counts.items():
            _bucket(buckets, place).counts.setdefault(type_, {})[name] = count
        for (*place, _, name), count in self.failed.items():
            _bucket(buckets, place).failed[name] = count
        for ((*place, type_, name), bin_), count in self.values.items():
            _bucket(buckets, place).values.setdefault(type_, {}).setdefault(name, {})[bin_] = count
        return list(buckets.values())


class Names:
    """Which names are counted under their own; forgotten when a new day of our clock begins."""

    def __init__(self, max_names: int = MAX_NAMES, max_books: int = MAX_BOOKS):
        self._max_names = max_names
        self._max_books = max_books
        self._books: dict[tuple, set[tuple]] = {}
        self._day = 0

    def at(self, now: int) -> "Names":
        if now // DAY_MS != self._day:
            self._day, self._books = now // DAY_MS, {}
        return self

    def knows(self, app: str, env: str | None, type_: str, name: str) -> bool:
        """Takes it in where there is room."""
        book = self._books.get((app, env))
        if book is None:
            if len(self._books) >= self._max_books:
                return False
            book = self._books[app, env] = set()
        if (type_, name) in book:
            return True
        if len(book) >= self._max_names:
            return False
        book.add((type_, name))
        return True


def without_trees(events: Iterable[StoredEvent]) -> list[StoredEvent]:
    """The events with nothing but what the counters need, since events may wait for a moment until they are counted."""
    return [replace(event, props=_counted(event.props), user=None) for event in events]


def _counted(props: dict[str, Any]) -> dict[str, Any]:
    return {name: props[name] for name in COUNTED_PROPS if type(props.get(name)) in COUNTED_TYPES}


def has_failed(props: dict[str, Any]) -> bool:
    ok = props.get("ok")
    if type(ok) is bool:
        return not ok
    status = props.get("status")
    return type(status) in NUMBERS and (status >= 400 or status == 0)


def value_in(props: dict[str, Any]) -> float | None:
    value = props.get("value")
    if type(value) not in NUMBERS:
        value = props.get("duration")
        if type(value) not in NUMBERS:
            value = props.get("ms")
            if type(value) not in NUMBERS:
                return None
    return value if value >= 0 else None


def slices(batches: Iterable[list[StoredEvent]], size: int) -> Iterator[list[StoredEvent]]:
    """The events of all batches in lists of about that many."""
    together: list[StoredEvent] = []
    for batch in batches:
        together += batch
        if len(together) >= size:
            yield together
            together = []
    if together:
        yield together


def _bounded(key: tuple, names: Names, place: Place) -> tuple:
    app, env, minute, type_, name = key
    found = place(app, env, minute)
    has_name = found[0] == app and names.knows(app, found[1], type_, name)
    return (*found, type_, name if has_name else OTHER)


def _bucket(buckets: dict[tuple, Bucket], place: list) -> Bucket:
    app, env, minute = place
    found = buckets.get((app, env, minute))
    if found is None:
        found = buckets[app, env, minute] = Bucket(app, env, abs(minute) * MINUTE_MS, narrowest_ms=MINUTE_MS if minute > 0 else DAY_MS)
    return found
