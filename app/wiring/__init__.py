"""Builds the concrete parts from the settings, one file a part. The only package that knows all of them.

A test enters by the same door: `build(settings, sink=FailingSink())` replaces one part and keeps the others.
"""

from app import development
from app.clock import Clock, system_clock, uptime
from app.settings import Settings
from app.storage import mongo
from app.telemetry.sinks import Sink
from app.wiring import data_dir, flags, health, identity, realtime, telemetry
from app.wiring.common import Common
from app.wiring.parts import Parts

__all__ = ["Parts", "build"]


def build(settings: Settings, *, clock: Clock = system_clock, uptime: Clock = uptime, sink: Sink | None = None) -> Parts:
    """Build every part. No connection is opened here: the first use opens it, and lifecycle.start() starts background work."""
    data_dir.prepare(settings.data_dir)
    secrets = None if settings.is_production else development.load(settings)
    database = mongo.connect(settings.mongo_uri, settings.mongo_timeout_ms) if settings.mongo_uri else None
    common = Common(settings, clock, uptime, database)

    data_dir.claim(common)
    gatekeeper = identity.build(common, secrets)
    collected = telemetry.build(common, sink)
    live = realtime.build(common)
    decided = flags.build(common, announce=lambda change: live.publish("flags", change))
    health.sample_process(common, live)
    report = health.build(common)

    return Parts(
        settings=settings,
        clock=clock,
        metrics=common.metrics,
        lifecycle=common.lifecycle,
        gatekeeper=gatekeeper,
        health=report,
        database=database,
        telemetry=collected.ingest,
        telemetry_events=collected.events,
        telemetry_config=collected.configs,
        telemetry_rollups=collected.rollups,
        telemetry_stats=collected.stats,
        flags=decided,
        realtime=live,
        development=secrets,
    )
