"""What happens when storage fails, on one screen: MongoDB, else the spool on disk, else the caller answers 503.

The same events go down the ladder with the same `_id`, so it does no harm when MongoDB had written them after all and
only its answer was lost. A MongoDB that failed is left alone for a moment, so that requests do not queue up behind its
timeout; then one request tries it again. Events that a healthy MongoDB will not take are no reason to leave it alone.
What was tried on both rungs and answered 503 is remembered, so that it counts as new when it comes again (`in_doubt`).
"""

from app.breaker import Breaker
from app.clock import Clock
from app.logs import get_logger
from app.metrics import ByLabel, Metrics
from app.telemetry.event import StoredEvent
from app.telemetry.sinks import Sink, SinkFull, SinkRefused, SinkUnavailable, Written
from app.telemetry.sinks.in_doubt import InDoubt

log = get_logger(__name__)


class Ladder:
    def __init__(self, primary: Sink | None, spool: Sink, clock: Clock, metrics: Metrics):
        self._primary = primary
        self._spool = spool
        self._clock = clock
        self._rungs = ByLabel(metrics.telemetry_writes_total)
        self._in_doubt = InDoubt()
        self.breaker = Breaker()

    def write(self, events: list[StoredEvent]) -> Written:
        """Raises SinkFull or SinkUnavailable when the last rung failed, too."""
        is_tried = self._primary is not None and self.breaker.lets_through(self._clock())
        if is_tried:
            try:
                written = self._primary.write(events)
                self._recovered()
                self._rungs["mongo"].inc()
                return self._in_doubt.settle(events, written)
            except SinkRefused as error:
                log.error("mongo_refused", error=str(error)[:300], events_go_to="spool")
            except SinkUnavailable as error:
                self._failed(error)
        try:
            written = self._spool.write(events)
            self._rungs["spool"].inc()
            return self._in_doubt.settle(events, written)
        except (SinkFull, SinkUnavailable) as error:
            self._rungs["full"].inc()
            if is_tried:
                self._in_doubt.add(events)
            log.error("storage_full", error=str(error))
            raise

    def _failed(self, error: SinkUnavailable) -> None:
        if self.breaker.failed(self._clock()):
            log.warning("mongo_unavailable", error=str(error)[:300], events_go_to="spool")

    def _recovered(self) -> None:
        if self.breaker.succeeded():
            log.info("mongo_available")
