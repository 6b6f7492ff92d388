"""What happens when storage fails, on one screen: MongoDB, else the spool on disk, else the caller answers 503.

The same events go down the ladder with the same `_id`, so it does no harm when MongoDB had written them after all and
only its answer was lost. A MongoDB that failed is left alone for a moment, so that requests do not queue up behind its
timeout; then one request tries it again.
"""

from app.clock import Clock
from app.logs import get_logger
from app.metrics import Metrics
from app.telemetry.event import StoredEvent
from app.telemetry.sinks import Sink, SinkFull, SinkUnavailable, Written

log = get_logger(__name__)
FIRST_REST_MS = 500
LONGEST_REST_MS = 8000


class Ladder:
    def __init__(self, primary: Sink | None, spool: Sink, clock: Clock, metrics: Metrics):
        self._primary = primary
        self._spool = spool
        self._clock = clock
        self._rungs = metrics.telemetry_writes_total
        self.breaker = Breaker()

    def write(self, events: list[StoredEvent]) -> Written:
        """Raises SinkFull or SinkUnavailable when the last rung failed, too."""
        if self._primary is not None and self.breaker.lets_through(self._clock()):
            try:
                written = self._primary.write(events)
                self._recovered()
                self._rungs.labels("mongo").inc()
                return written
            except SinkUnavailable as error:
                self._failed(error)
        try:
            written = self._spool.write(events)
            self._rungs.labels("spool").inc()
            return written
        except (SinkFull, SinkUnavailable) as error:
            self._rungs.labels("full").inc()
            log.error("storage_full", error=str(error))
            raise

    def _failed(self, error: SinkUnavailable) -> None:
        if self.breaker.failed(self._clock()):
            log.warning("mongo_unavailable", error=str(error)[:300], events_go_to="spool")

    def _recovered(self) -> None:
        if self.breaker.succeeded():
            log.info("mongo_available")


class Breaker:
    """Pure: closed while things work; after a failure open for a rest that doubles, then one caller may try."""

    def __init__(self):
        self._rest_ms = 0
        self._tries_again_at = 0

    @property
    def is_open(self) -> bool:
        return self._rest_ms > 0

    def lets_through(self, now: int) -> bool:
        if not self.is_open:
            return True
        if now < self._tries_again_at:
            return False
        self._tries_again_at = now + self._rest_ms  # the others go on resting while this one tries
        return True

    def failed(self, now: int) -> bool:
        """True when this failure opened it."""
        opened = not self.is_open
        self._rest_ms = min(LONGEST_REST_MS, self._rest_ms * 2) if self._rest_ms else FIRST_REST_MS
        self._tries_again_at = now + self._rest_ms
        return opened

    def succeeded(self) -> bool:
        """True when this success closed it."""
        was_open, self._rest_ms = self.is_open, 0
        return was_open
