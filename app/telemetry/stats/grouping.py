"""Limits the counters of each application, so that invented applications, envs, names and times displace only one another. Pure.

- The first MAX_APPS applications of each write key, and the first MAX_ENVS envs of each application, are counted under their own
  names, all others under `(other)`. An application or env that has events every day keeps its name, and so does an application that
  the settings name for a write key.
- Events within NEAR_MS of now are counted in their minute, all others in their day.
- When there are too many counters, the application with most counters loses first: its rarest counters are added up under `(other)`
  in their day. Events that fit nowhere even then are lost, and counted as lost. They are events of that application.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from app.telemetry.stats.bucket import DAY_MS, MINUTE_MS
from app.telemetry.stats.counters import OTHER, Counters, Group, with_pauses

MAX_APPS = 100
MAX_ENVS = 20
NEAR_MS = DAY_MS
MINUTES_A_DAY = DAY_MS // MINUTE_MS


class Grouping:
    """Decides under which application, env and time an event is counted. The applications in `named` always keep their names. With
    `near_ms` None, every event is counted in its minute."""

    def __init__(self, *, named: Iterable[str] = (), near_ms: int | None = NEAR_MS, max_apps: int = MAX_APPS, max_envs: int = MAX_ENVS):
        self._named = frozenset(named)
        self._near_ms = near_ms
        self._apps = _DailyWords(max_apps)
        self._envs = _DailyWords(max_envs)
        self._day = 0
        self._nearest = (0, 0)

    def keep(self, apps: Iterable[str]) -> None:
        """Keep the names of these applications, which were counted before this process began, whichever applications send first now."""
        self._named |= frozenset(apps)

    def at(self, now: int) -> "Grouping":
        """Return itself, ready for events that arrive at `now` (epoch milliseconds)."""
        if now // DAY_MS != self._day:
            self._day = now // DAY_MS
            self._apps.start_day()
            self._envs.start_day()
        if self._near_ms is not None:
            self._nearest = ((now - self._near_ms) // MINUTE_MS, (now + self._near_ms) // MINUTE_MS)
        return self

    def group_of(self, key: str, app: str, env: str | None, minute: int) -> Group:
        """Return the group for an event that came with the write key of this name."""
        if app not in self._named and not self._apps.has_room_for(key, app):
            return OTHER, None, self._time(minute)
        if env is not None and not self._envs.has_room_for(app, env):
            env = OTHER
        return app, env, self._time(minute)

    def _time(self, minute: int) -> int:
        first, last = self._nearest
        return minute if self._near_ms is None or first <= minute <= last else day_of(minute)


class _DailyWords:
    """The first `max_words` words of each owner. A word that was not used the day before is removed."""

    def __init__(self, max_words: int):
        self._max_words = max_words
        self._words: dict[str, dict[str, bool]] = {}  # by owner and word: whether it was used today

    def has_room_for(self, owner: str, word: str) -> bool:
        """Return True for a word that is in the set; a new word is added to it while there is room."""
        words = self._words.setdefault(owner, {})
        if word not in words and len(words) >= self._max_words:
            return False
        words[word] = True
        return True

    def start_day(self) -> None:
        kept = {owner: {word: False for word, is_used in words.items() if is_used} for owner, words in self._words.items()}
        self._words = {owner: words for owner, words in kept.items() if words}


def day_of(minute: int) -> int:
    """Return the day of a minute: its first minute, negative. Returns a day as it is."""
    return minute if minute <= 0 else -(minute - minute % MINUTES_A_DAY)


def fitted(counters: Counters, max_counters: int, pause: Callable[[], None]) -> tuple[Counters, int]:
    """Return the same counts in at most so many counters, and the number of events that are lost. Each application may have an equal
    part of the counters; the others may use what it does not need."""
    if len(counters) <= max_counters:
        return counters, 0
    sketches = Counter(key for key, _ in counters.values)
    costs = {key: 1 + (key in counters.failed) + sketches[key] for key in counters.counts}
    sizes: Counter[str] = Counter()
    for key, cost in costs.items():
        sizes[key[0]] += cost
    allowed = _equal_part(sizes.values(), max_counters)
    kept, used, moved, lost = Counters(), Counter[str](), {}, 0
    for key, count in with_pauses(counters.counts.most_common(), pause):
        app = key[0]
        stays = sizes[app] <= allowed or used[app] + costs[key] <= allowed // 2
        target = key if stays else (app, key[1] and OTHER, day_of(key[2]), key[3], OTHER)
        if target not in kept.counts:
            if not stays and used[app] >= allowed:
                lost += count
                continue
            used[app] += costs[key] if stays else 1
        kept.counts[target] += count
        moved[key] = target
    for key, count in counters.failed.items():
        target = moved.get(key)
        _add(kept.failed, target, count, used, allowed, is_paid=target == key)
    for (key, bin_), count in with_pauses(counters.values.items(), pause):
        target = moved.get(key)
        _add(kept.values, target and (target, bin_), count, used, allowed, is_paid=target == key)
    return kept, lost


def _add(counter: Counter, target: tuple | None, count: int, used: Counter[str], allowed: int, *, is_paid: bool = False) -> None:
    """Add a failure or a value to the counter of its event, unless the application has used up its counters. With `is_paid` the
    counter is included in `used` already."""
    if target is None:
        return
    if target not in counter and not is_paid:
        app = target[0] if isinstance(target[0], str) else target[0][0]
        if used[app] >= allowed:
            return
        used[app] += 1
    counter[target] += count


def _equal_part(sizes: Iterable[int], whole: int) -> int:
    """Return the largest number that each may use so that all together use no more than `whole`."""
    rest = sorted(sizes)
    while rest and rest[0] * len(rest) <= whole:
        whole -= rest.pop(0)
    return whole // len(rest) if rest else whole
