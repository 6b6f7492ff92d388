"""Builds telemetry: the spool, the sink ladder, statistics, configurations per app, the drainer and the ingest path over them."""

from dataclasses import dataclass

import gevent

from app.storage.embedded_file import EmbeddedFile
from app.telemetry.config.configs import Configs
from app.telemetry.config.schemas import dump_apps, load_apps
from app.telemetry.config.store.file import FileConfigStore
from app.telemetry.config.store.mongo import MongoConfigStore
from app.telemetry.drain.drainer import Drainer
from app.telemetry.drain.live_traffic import LOOK_EVERY_S, LiveTraffic
from app.telemetry.ingest import Ingest
from app.telemetry.shares.byte_rates import ByteRateLimits, ByteRates
from app.telemetry.sinks import Sink
from app.telemetry.sinks.ladder import Ladder
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.sinks.spool import SpoolSink
from app.telemetry.stats.grouping import Grouping
from app.telemetry.stats.reader import StatsReader
from app.telemetry.stats.rollups import Rollups
from app.telemetry.stats.store import RollupStore
from app.telemetry.stats.store.file import FileRollups
from app.telemetry.stats.store.ladder import RollupLadder
from app.telemetry.stats.store.mongo import MongoRollups
from app.wiring.common import Common, keep_current, local_copy


@dataclass(frozen=True)
class Telemetry:
    """The parts that routes and commands use."""

    ingest: Ingest
    events: object  # reads stored events: MongoSink or SpoolSink
    configs: Configs
    rollups: Rollups
    stats: StatsReader


def build(common: Common, sink: Sink | None = None) -> Telemetry:
    """Build all of it; `sink` replaces the ladder, for tests."""
    spool = _spool(common)
    primary = None if common.database is None else MongoSink(common.database)
    store, rollups = _rollups(common)
    configs = _configs(common)
    sink = sink or Ladder(primary, spool, common.uptime, common.metrics, spool.may_keep_refused)
    ingest = _ingest(common, sink, configs, rollups)
    common.checks.update(spool=spool.check, rollups=rollups.check, telemetry_config=configs.check)
    if primary is not None:
        common.checks["spool"] = _drainer(common, spool, primary, ingest).backlog.check
    return Telemetry(ingest, primary or spool, configs, rollups, StatsReader(store, common.clock))


def _spool(common: Common) -> SpoolSink:
    settings = common.settings
    spool = SpoolSink(
        common.data_dir / "spool",
        max_bytes=settings.spool_max_bytes,
        segment_bytes=settings.spool_segment_bytes,
        known_ids=settings.spool_known_ids,
        ttl_days=settings.telemetry_ttl_days,
        metrics=common.metrics,
        is_store=common.database is None,
        app_share=settings.spool_app_share,
        named_apps=settings.named_apps,
    )
    common.lifecycle.on_start(spool.open)
    common.lifecycle.every("spool_tend", 10, spool.tend)
    common.lifecycle.every("spool_usage", 1, spool.refresh_usage)
    common.lifecycle.on_drain("spool", spool.close)
    return spool


def _rollups(common: Common) -> tuple[RollupStore, Rollups]:
    """Return the store of statistics, and the part that fills it."""
    settings, clock, lifecycle = common.settings, common.clock, common.lifecycle
    max_bytes = settings.telemetry_rollups_max_bytes
    file = FileRollups(common.data_dir / "rollups.sqlite", ttl_days=settings.telemetry_ttl_days, clock=clock, max_bytes=max_bytes)
    store: RollupStore = file
    tend_every_s = 10
    if common.database is not None:
        store, tend_every_s = RollupLadder(MongoRollups(common.database, max_bytes), file, common.uptime), 1
    flush_every_s, grouping = settings.telemetry_rollups_flush_ms / 1000, Grouping(named=settings.named_apps)
    rollups = Rollups(store, clock, common.metrics, flush_every_s=flush_every_s, grouping=grouping)
    lifecycle.on_start(lambda: gevent.spawn(store.tend))
    lifecycle.every("rollups_tend", tend_every_s, store.tend)
    lifecycle.add("rollups", rollups.run)
    return store, rollups


def _configs(common: Common) -> Configs:
    path, refresh_ms = common.data_dir / "telemetry_config.json", common.settings.telemetry_config_refresh_ms
    file = FileConfigStore(path)
    if common.database is None:
        configs = Configs(file, common.settings)
        keep_current(common, "telemetry_config_refresh", refresh_ms, [configs.refresh])
    else:
        store = MongoConfigStore(common.clock)
        embedded = EmbeddedFile(path, file.read_all, lambda app, overrides: store.put(app, overrides, expected={}))
        configs = Configs(store, common.settings, copy=local_copy(common, embedded, dump_apps, load_apps))
        keep_current(common, "telemetry_config_refresh", refresh_ms, [embedded.move, configs.refresh])
    return configs


def _ingest(common: Common, sink: Sink, configs: Configs, rollups: Rollups) -> Ingest:
    settings = common.settings
    return Ingest(
        sink,
        common.clock,
        common.metrics,
        configs=configs,
        note=rollups.note,
        budgets=ByteRateLimits(ByteRates(*settings.byte_rates(), settings.telemetry_byte_burst_s), common.metrics),
        max_events=settings.telemetry_max_events,
        max_in_flight=settings.telemetry_max_in_flight,
    )


def _drainer(common: Common, spool: SpoolSink, primary: MongoSink, ingest: Ingest) -> Drainer:
    settings, lifecycle = common.settings, common.lifecycle
    traffic = LiveTraffic(spool.folder / ".traffic", ingest, common.clock)
    drainer = Drainer(
        spool,
        primary,
        common.clock,
        common.metrics,
        target=common.mongo_target,
        max_per_second=settings.spool_drain_events_per_second,
        is_busy=traffic.is_live,
    )
    lifecycle.every("telemetry_traffic", LOOK_EVERY_S, traffic.look)
    lifecycle.add("drainer", drainer.run)
    lifecycle.every("spool_watch", 1, drainer.backlog.watch)
    return drainer
