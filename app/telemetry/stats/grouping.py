"""Who may have how many counters, so that invented applications, envs, names and times displace only one another. Pure.

- Each write key has its first MAX_APPS applications under their own names, each application its first MAX_ENVS envs; what comes
  after is counted under `(other)`. One that is counted every day keeps its place, and so does one that a write key names.
- A minute of its own has what is near now; what happened longer ago, or will, counts in its day.
- When counters have to be given up, the application that has most loses first: its rarest are counted together, under `(other)`,
  in their day. What does not fit even so is lost and counted as lost: events of that application and of no other.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from app.telemetry.stats.bucket import DAY_MS, MINUTE_MS
from app.telemetry.stats.counters import OTHER, Counters, with_pauses

MAX_APPS = 100
MAX_ENVS = 20
NEAR_MS = DAY_MS
MINUTES_A_DAY = DAY_MS // MINUTE_MS


class Grouping:
    """Under which application, env and time something is counted. `named` are applications that always have a place; `near_ms` None
    means that every time has its minute."""

    def __init__(self, *, named: Iterable[str] = (), near_ms: int | None = NEAR_MS, max_apps: int = MAX_APPS, max_envs: int = MAX_ENVS):
        self._named = frozenset(named)
        self._near_ms = near_ms
        self._apps = _DailyWords(max_apps)
        self._envs = _DailyWords(max_envs)
        self._day = 0
        self._nearest = (0, 0)

    def keep(self, apps: Iterable[str]) -> None:
        """These were counted before this process began: they keep their places, whoever sends first now."""
        self._named |= frozenset(apps)

    def at(self, now: int) -> "Grouping":
        if now // DAY_MS != self._day:
            self._day = now // DAY_MS
            self._apps.start_day()
            self._envs.start_day()
        if self._near_ms is not None:
            self._nearest = ((now - self._near_ms) // MINUTE_MS, (now + self._near_ms) // MINUTE_MS)
        return self

    def of(self, key: str, app: str, env: str | None, minute: int) -> tuple[str, str | None, int]:
        if app not in self._named and not self._apps.takes(key, app):
            return OTHER, None, self._time(minute)
        if env is not None and not self._envs.takes(app, env):
            env = OTHER
        return app, env, self._time(minute)

    def _time(self, minute: int) -> int:
        first, last = self._nearest
        return minute if self._near_ms is None or first <= minute <= last else day_of(minute)


class _DailyWords:
    """The first so many words of each owner. A word that was not used on the day before loses its place."""

    def __init__(self, max_words: int):
        self._max_words = max_words
        self._words: dict[str, dict[str, bool]] = {}  # whether it was used today

    def takes(self, owner: str, word: str) -> bool:
        words = self._words.setdefault(owner, {})
        if word not in words and len(words) >= self._max_words:
            return False
        words[word] = True
        return True

    def start_day(self) -> None:
        kept = {owner: {word: False for word, is_used in words.items() if is_used} for owner, words in self._words.items()}
        self._words = {owner: words for owner, words in kept.items() if words}


def day_of(minute: int) -> int:
    """A day in the place of a minute: its first minute, negative. A day stays itself."""
    return minute if minute <= 0 else -(minute - minute % MINUTES_A_DAY)


def fitted(counters: Counters, max_counters: int, pause: Callable[[], None]) -> tuple[Counters, int]:
    """With at most so many counters, and how many events are counted nowhere any more. Each application may have as many as any
    other; what one does not need, the others may have."""
    if len(counters) <= max_counters:
        return counters, 0
    sketches = Counter(counted for counted, _ in counters.values)
    costs = {counted: 1 + (counted in counters.failed) + sketches[counted] for counted in counters.counts}
    sizes: Counter[str] = Counter()
    for counted, cost in costs.items():
        sizes[counted[0]] += cost
    allowed = _level(sizes.values(), max_counters)
    kept, used, moved, lost = Counters(), Counter(), {}, 0
    for counted, count in with_pauses(counters.counts.most_common(), pause):
        app = counted[0]
        stays = sizes[app] <= allowed or used[app] + costs[counted] <= allowed // 2
        place = counted if stays else (app, counted[1] and OTHER, day_of(counted[2]), counted[3], OTHER)
        if place not in kept.counts:
            if not stays and used[app] >= allowed:
                lost += count
                continue
            used[app] += costs[counted] if stays else 1
        kept.counts[place] += count
        moved[counted] = place
    for counted, count in counters.failed.items():
        place = moved.get(counted)
        _add(kept.failed, place, count, used, allowed, is_paid=place == counted)
    for (counted, bin_), count in with_pauses(counters.values.items(), pause):
        place = moved.get(counted)
        _add(kept.values, place and (place, bin_), count, used, allowed, is_paid=place == counted)
    return kept, lost


def _add(counter: Counter, place: tuple | None, count: int, used: Counter, allowed: int, *, is_paid: bool = False) -> None:
    """A failure or a value of what is counted; of a place that has no room for it, it is left out."""
    if place is None:
        return
    if place not in counter and not is_paid:
        app = place[0] if isinstance(place[0], str) else place[0][0]
        if used[app] >= allowed:
            return
        used[app] += 1
    counter[place] += count


def _level(sizes: Iterable[int], whole: int) -> int:
    """The largest number that all may have without being more than `whole` together."""
    rest = sorted(sizes)
    while rest and rest[0] * len(rest) <= whole:
        whole -= rest.pop(0)
    return whole // len(rest) if rest else whole
