"""Counts the events that arrived since the last flush. Pure, and cheap: each event is one key, counted in C.

An `api` event failed if `props.ok` is false or, without `ok`, if `props.status` is 400 or more, or 0 (no answer came). The value of a
`perf` or `api` event is the first number among `props.value`, `props.duration` and `props.ms`; a negative number is no value.

Names are limited: each application and env has MAX_NAMES a day under their own names, the most frequent of a flush first. All others,
which usually contain an id, are counted under `(other)`. `grouping` limits applications, envs and times.
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
MAX_NAME_SETS = 2000  # pairs of application and env; a further pair has all its names under `(other)`

Group = tuple[str, str | None, int]  # application, env, and minute or day


def with_pauses(items: Iterable, pause: Callable[[], None]) -> Iterator:
    """Yield the items, and call `pause` after every KEYS_BETWEEN_PAUSES of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % KEYS_BETWEEN_PAUSES == 0:
            pause()


class Counters:
    """Keys are (app, env, minute, type, name), with minutes since 1970. Those of `values` are pairs of such a key and a bin of the
    sketch. A negative minute means the day that begins with that minute."""

    def __init__(self) -> None:
        self.counts: Counter[tuple] = Counter()
        self.failed: Counter[tuple] = Counter()
        self.values: Counter[tuple] = Counter()

    def __len__(self) -> int:
        """Return the number of counters."""
        return len(self.counts) + len(self.failed) + len(self.values)

    def add(self, events: Iterable[StoredEvent]) -> None:
        """Count the events."""
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

    def limited(self, names: "Names", group_of: Callable[[str, str | None, int], Group], pause: Callable[[], None]) -> "Counters":
        """Return the same counts under the names and in the groups that are allowed, where the most frequent come first. `group_of`
        takes app, env and minute, and `pause` lets other work run."""
        kept, moved = Counters(), {}
        for key, count in with_pauses(self.counts.most_common(), pause):
            moved[key] = _limited(key, names, group_of)
            kept.counts[moved[key]] += count
        for key, count in with_pauses(self.failed.items(), pause):
            kept.failed[moved[key]] += count
        for (key, bin_), count in with_pauses(self.values.items(), pause):
            kept.values[moved[key], bin_] += count
        return kept

    def merge(self, other: "Counters") -> None:
        """Add the other counters to these."""
        self.counts.update(other.counts)
        self.failed.update(other.failed)
        self.values.update(other.values)

    def buckets(self) -> list[Bucket]:
        """Return the counts as buckets of minutes, and of days for the negative ones."""
        buckets: dict[tuple, Bucket] = {}
        for (*group, type_, name), count in self.counts.items():
            _bucket(buckets, group).counts.setdefault(type_, {})[name] = count
        for (*group, _, name), count in self.failed.items():
            _bucket(buckets, group).failed[name] = count
        for ((*group, type_, name), bin_), count in self.values.items():
            _bucket(buckets, group).values.setdefault(type_, {}).setdefault(name, {})[bin_] = count
        return list(buckets.values())


class Names:
    """The names that are counted under their own name. They are forgotten when a new day begins by the server's clock."""

    def __init__(self, max_names: int = MAX_NAMES, max_sets: int = MAX_NAME_SETS):
        self._max_names = max_names
        self._max_sets = max_sets
        self._sets: dict[tuple, set[tuple]] = {}  # by application and env
        self._day = 0

    def at(self, now: int) -> "Names":
        """Return itself, without yesterday's names when a new day has begun."""
        if now // DAY_MS != self._day:
            self._day, self._sets = now // DAY_MS, {}
        return self

    def has_room_for(self, app: str, env: str | None, type_: str, name: str) -> bool:
        """Return True for a name that is in its set; a new name is added to it while there is room."""
        names = self._sets.get((app, env))
        if names is None:
            if len(self._sets) >= self._max_sets:
                return False
            names = self._sets[app, env] = set()
        if (type_, name) in names:
            return True
        if len(names) >= self._max_names:
            return False
        names.add((type_, name))
        return True


def without_trees(events: Iterable[StoredEvent]) -> list[StoredEvent]:
    """Return the events with only the props that are counted: events may wait until they are counted, and large props take memory."""
    return [replace(event, props=_counted(event.props), user=None) for event in events]


def _counted(props: dict[str, Any]) -> dict[str, Any]:
    return {name: props[name] for name in COUNTED_PROPS if type(props.get(name)) in COUNTED_TYPES}


def has_failed(props: dict[str, Any]) -> bool:
    """Whether an api event with these props failed; the rule is at the top of this module."""
    ok = props.get("ok")
    if type(ok) is bool:
        return not ok
    status: Any = props.get("status")
    return type(status) in NUMBERS and (status >= 400 or status == 0)


def value_in(props: dict[str, Any]) -> float | None:
    """Return the value of a perf or api event with these props, None where it has none."""
    value: Any = props.get("value")
    if type(value) not in NUMBERS:
        value = props.get("duration")
        if type(value) not in NUMBERS:
            value = props.get("ms")
            if type(value) not in NUMBERS:
                return None
    return value if value >= 0 else None


def slices(batches: Iterable[list[StoredEvent]], size: int) -> Iterator[list[StoredEvent]]:
    """Yield the events of all batches in lists of about `size`."""
    together: list[StoredEvent] = []
    for batch in batches:
        together += batch
        if len(together) >= size:
            yield together
            together = []
    if together:
        yield together


def _limited(key: tuple, names: Names, group_of: Callable[[str, str | None, int], Group]) -> tuple:
    app, env, minute, type_, name = key
    group = group_of(app, env, minute)
    has_name = group[0] == app and names.has_room_for(app, group[1], type_, name)
    return (*group, type_, name if has_name else OTHER)


def _bucket(buckets: dict[tuple, Bucket], group: list) -> Bucket:
    app, env, minute = group
    found = buckets.get((app, env, minute))
    if found is None:
        found = buckets[app, env, minute] = Bucket(app, env, abs(minute) * MINUTE_MS, narrowest_ms=MINUTE_MS if minute > 0 else DAY_MS)
    return found
