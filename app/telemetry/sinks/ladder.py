"""What happens when storage fails, on one screen: MongoDB, else the spool on disk, else the caller answers 503.

The same events go down the ladder with the same `_id`, so it does no harm when MongoDB had written them after all and
only its answer was lost. A MongoDB that failed is left alone for a moment, so that requests do not queue up behind its
timeout; then one request tries it again. Events that a healthy MongoDB will not take are no reason to leave it alone: they are
kept in the spool, whose drainer puts them into a `.rejected` file with the reason, and are answered as refused.
What was tried on both rungs and answered 503 is remembered, so that it counts as new when it comes again (`in_doubt`).
"""

from collections.abc import Callable, Mapping

from app.clock import Clock
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.metrics import ByLabel, Metrics
from app.storage.circuit_breaker import Breaker
from app.storage.errors import StorageUnavailable
from app.telemetry.event import StoredEvent
from app.telemetry.sinks import Sink, SinkRefused, Written
from app.telemetry.sinks.in_doubt import InDoubt

log = get_logger(__name__)
sampled = SampledLog(log)


class Ladder:
    """`may_keep` is asked whether there is room for events that MongoDB refuses: a client could fill the disk with them."""

    def __init__(self, primary: Sink | None, spool: Sink, clock: Clock, metrics: Metrics, may_keep: Callable[[], bool] = lambda: True):
        self._may_keep = may_keep
        self._primary = primary
        self._spool = spool
        self._clock = clock
        self._rungs = ByLabel(metrics.telemetry_writes_total)
        self._in_doubt = InDoubt()
        self.breaker = Breaker()

    def write(self, events: list[StoredEvent]) -> Written:
        """Raises StorageUnavailable when the last rung failed, too."""
        is_tried = self._primary is not None and self.breaker.lets_through(self._clock())
        if is_tried and (written := self._write_to_primary(events)) is not None:
            if written.refused:
                self._keep(events, written.refused)
            self._rungs["mongo"].inc()
        else:
            written = self._write_to_spool(events, events if is_tried else [])
            self._rungs["spool"].inc()
        return self._in_doubt.settle(events, written)

    def _write_to_primary(self, events: list[StoredEvent]) -> Written | None:
        """None where all of them have to go to the spool."""
        try:
            written = self._primary.write(events)
        except SinkRefused as error:
            sampled.error("mongo_refused", error=str(error)[:300], events_go_to="spool")
        except StorageUnavailable as error:
            self._failed(error)
        else:
            self._recovered()
            return written
        return None

    def _keep(self, events: list[StoredEvent], refused: Mapping[int, str]) -> None:
        """Nothing is thrown away because MongoDB refuses it, while there is room for such events."""
        is_kept = self._may_keep()
        goes_to = "spool" if is_kept else "nowhere: the .rejected files have used up their share of SPOOL_MAX_BYTES"
        sampled.error("mongo_refused_events", count=len(refused), error=next(iter(refused.values()))[:300], events_go_to=goes_to)
        if is_kept:
            self._write_to_spool([events[place] for place in refused], in_doubt=events)

    def _write_to_spool(self, events: list[StoredEvent], in_doubt: list[StoredEvent]) -> Written:
        """Where it fails, MongoDB may have what is `in_doubt`, and the caller is answered that nothing is saved."""
        try:
            return self._spool.write(events)
        except StorageUnavailable as error:
            self._rungs["full"].inc()
            self._in_doubt.add(in_doubt)
            log.error("storage_full", error=str(error))
            raise

    def _failed(self, error: StorageUnavailable) -> None:
        if self.breaker.failed(self._clock()):
            log.warning("mongo_unavailable", error=str(error)[:300], events_go_to="spool")

    def _recovered(self) -> None:
        if self.breaker.succeeded():
            log.info("mongo_available")
