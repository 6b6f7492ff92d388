"""Events that MongoDB may have taken although their batch was answered 503, because the disk failed, too.

When they are sent again MongoDB knows them; but nobody was told that they are saved, and nobody has counted them. So the
first time they count as new. Only those that have an `eventId` can come again.

What this cannot see is a batch that comes again to another worker, or after MOST others: then what MongoDB had taken of it
is stored, answered as a duplicate, and missing in the statistics.
"""

from collections import OrderedDict

from app.telemetry.batch import is_known_id
from app.telemetry.event import StoredEvent
from app.telemetry.sinks import Written

MOST = 20_000  # some 3 MB; the oldest are forgotten first


class InDoubt:
    def __init__(self, most: int = MOST):
        self._most = most
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, events: list[StoredEvent]) -> None:
        self._ids.update((event.id, None) for event in events if is_known_id(event.id))
        while len(self._ids) > self._most:
            self._ids.popitem(last=False)

    def settle(self, events: list[StoredEvent], written: Written) -> Written:
        """These are durable now, and their clients are told: what the sink knew of them only from a failed attempt is new."""
        if not self._ids:
            return written
        doubted = {event.id for event in events if self._ids.pop(event.id, self) is None}
        known = []
        for place in written.known:
            id_ = events[place].id
            if id_ in doubted:
                doubted.discard(id_)  # twice in one batch is a duplicate all the same
            else:
                known.append(place)
        return written._replace(known=known)
