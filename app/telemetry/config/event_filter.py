"""Which events are taken, by their application's configuration. Pure.

A pattern is a name, or one with `*` for any characters. `deny` wins over `allow`; an empty `allow` allows all.
"""

from collections.abc import Iterable, Mapping

from app.telemetry.batch import Batch

MAX_REMEMBERED = 10_000  # names per application; then all are forgotten and looked at anew


class AppFilter:
    """Remembers its answers: the same names come again and again."""

    def __init__(self, sample_rate: float, allow: Iterable[str], deny: Iterable[str]):
        self._takes_nothing = sample_rate == 0
        self._allow = [pattern.split("*") for pattern in allow]
        self._deny = [pattern.split("*") for pattern in deny]
        self._answers: dict[str, bool] = {}

    @property
    def is_open(self) -> bool:
        return not (self._takes_nothing or self._allow or self._deny)

    def takes(self, name: str) -> bool:
        answer = self._answers.get(name)
        if answer is None:
            if len(self._answers) >= MAX_REMEMBERED:
                self._answers.clear()
            answer = self._answers[name] = self._decide(name)
        return answer

    def why_not(self, app: str) -> str:
        if self._takes_nothing:
            return f"The configuration of {app} takes no events: its sampleRate is 0."
        return f"The configuration of {app} does not take events of this name."

    def _decide(self, name: str) -> bool:
        if self._takes_nothing or any(_fits(name, parts) for parts in self._deny):
            return False
        return not self._allow or any(_fits(name, parts) for parts in self._allow)


class EventFilter:
    """One for each application that has overrides, and one for all others."""

    def __init__(self, usual: AppFilter, own: Mapping[str, AppFilter]):
        self._usual = usual
        self._own = own

    @property
    def takes_all(self) -> bool:
        return self._usual.is_open and all(app_filter.is_open for app_filter in self._own.values())

    def admit(self, batch: Batch) -> Batch:
        """The same batch, with what its applications do not take among the rejected."""
        refused = {}
        for place, event in enumerate(batch.events):
            app_filter = self._own.get(event.app, self._usual)
            if not app_filter.takes(event.name):
                refused[place] = app_filter.why_not(event.app)
        return without(refused, batch, "denied") if refused else batch


def without(refused: Mapping[int, str], batch: Batch, code: str) -> Batch:
    """The same batch, with the events at these places among the rejected; `refused` gives the sentence for each."""
    rejected_before = {row["index"] for row in batch.rejected}
    sent_as = [index for index in range(len(batch.events) + len(batch.rejected)) if index not in rejected_before]
    rows = [{"index": sent_as[place], "code": code, "message": message} for place, message in refused.items()]
    kept = [event for place, event in enumerate(batch.events) if place not in refused]
    return batch._replace(events=kept, rejected=sorted(batch.rejected + rows, key=lambda row: row["index"]))


def _fits(name: str, parts: list[str]) -> bool:
    """`parts` stand between the stars. Takes the first place for each, so its time is bounded by the lengths multiplied."""
    first, *middle = parts
    if not middle:
        return name == first
    last = middle.pop()
    if not name.startswith(first) or len(name) < len(first) + len(last) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
