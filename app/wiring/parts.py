"""The finished parts, by name: what routes, Socket.IO handlers and commands work with."""

from dataclasses import dataclass

from pymongo.database import Database

from app import development
from app.clock import Clock
from app.flags.flags import Flags
from app.health import Health
from app.identity.gatekeeper import Gatekeeper
from app.lifecycle import Lifecycle
from app.metrics import Metrics
from app.realtime.realtime import Realtime
from app.settings import Settings
from app.telemetry.config.configs import Configs
from app.telemetry.ingest import Ingest
from app.telemetry.stats.reader import StatsReader
from app.telemetry.stats.rollups import Rollups


@dataclass(frozen=True)
class Parts:
    """All parts of one application. `database` is None where MONGO_URI is not set, `development` in production."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    lifecycle: Lifecycle
    gatekeeper: Gatekeeper
    health: Health
    database: Database | None
    telemetry: Ingest
    telemetry_events: object  # reads stored events: MongoSink or SpoolSink
    telemetry_config: Configs
    telemetry_rollups: Rollups
    telemetry_stats: StatsReader
    flags: Flags
    realtime: Realtime
    development: development.Secrets | None

    def welcome(self, url: str) -> str:
        """Return the text to print when a server has started on `url`."""
        return self.development.welcome(url) if self.development else f"Switchyard is listening on {url}"
