"""The humble twin: a dict. For tests, and to see what the port promises without a disk in the way."""

from app.telemetry.event import StoredEvent
from app.telemetry.query import EventQuery, Page, matches, page_of
from app.telemetry.sinks import Written


class MemorySink:
    def __init__(self):
        self.events: dict[str, StoredEvent] = {}

    def write(self, events: list[StoredEvent]) -> Written:
        known = [place for place, event in enumerate(events) if self.events.setdefault(event.id, event) is not event]
        return Written("memory", known)

    def find(self, query: EventQuery) -> Page:
        return page_of([event for event in self.events.values() if matches(event, query)], query.limit)
