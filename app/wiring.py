"""Builds the concrete parts from the settings. The only module that knows them all; nothing else needs a global.

A test enters by the same door: `build(settings, sink=FailingSink())` replaces one part and keeps the rest.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gevent
from pymongo.database import Database

from app import development
from app.clock import Clock, system_clock, uptime
from app.credentials_in_text import never_show
from app.flags.flags import Flags
from app.flags.schemas import read_records, write_records
from app.flags.store.file import FileFlagStore
from app.flags.store.mongo import MongoFlagStore
from app.health import Check, Health
from app.identity.gatekeeper import Gatekeeper
from app.identity.jwks import Jwks
from app.identity.tokens import TokenVerifier
from app.lifecycle import Lifecycle
from app.logs import get_logger
from app.metrics import Metrics
from app.process_usage import ProcessSampler
from app.realtime.archive.archive import DurableArchive
from app.realtime.archive.mongo import MongoMessages
from app.realtime.archive.spool import MessageSpool
from app.realtime.log.memory import Keep, MemoryTopicLog
from app.realtime.log.numbers import FileNumbers
from app.realtime.realtime import Realtime
from app.realtime.rules import Rules
from app.serving.tls import CERTIFICATE
from app.settings import Settings, SettingsError
from app.settings_in_use import IN_USE
from app.storage import disk, mongo, redis_connection
from app.storage.data_dir_owner import FILES, DataDirOwner
from app.storage.embedded_file import EmbeddedFile
from app.storage.local_copy import LocalCopy
from app.storage.migrations import IndexWatch
from app.telemetry.config.configs import Configs
from app.telemetry.config.schemas import dump_apps, load_apps
from app.telemetry.config.store.file import FileConfigStore
from app.telemetry.config.store.mongo import MongoConfigStore
from app.telemetry.drainer import Drainer
from app.telemetry.ingest import Ingest
from app.telemetry.shares.stored_bytes import ByteBudgets, ByteRates
from app.telemetry.sinks import Sink
from app.telemetry.sinks.ladder import Ladder
from app.telemetry.sinks.mongo import MongoSink
from app.telemetry.sinks.spool import SpoolSink
from app.telemetry.stats.rollups import Rollups
from app.telemetry.stats.shares import Places
from app.telemetry.stats.stats import Stats
from app.telemetry.stats.store import RollupStore
from app.telemetry.stats.store.file import FileRollups
from app.telemetry.stats.store.ladder import RollupLadder
from app.telemetry.stats.store.mongo import MongoRollups
from app.telemetry.traffic import LOOK_EVERY_S, LiveTraffic

log = get_logger(__name__)
LAST_WORDS_S = 2.0  # workers whose master was killed notice it within a second
WITHOUT_LOCKS = "nothing can be stored in its files: no events, no flags, no configurations; use a local disk"
OPEN_TO_OTHERS = "another account of this machine can hold its locks, which stops changes of flags and the drainer"


@dataclass(frozen=True)
class Parts:
    """Everything a face may ask for, by name."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    lifecycle: Lifecycle
    gatekeeper: Gatekeeper
    health: Health
    database: Database | None
    telemetry: Ingest
    telemetry_events: object  # reads back what was stored: MongoSink or SpoolSink
    telemetry_config: Configs
    telemetry_rollups: Rollups
    telemetry_stats: Stats
    flags: Flags
    realtime: Realtime
    development: development.Secrets | None

    def welcome(self, url: str) -> str:
        """What to print when a server has started on `url`."""
        return self.development.welcome(url) if self.development else f"Switchyard is listening on {url}"


@dataclass(frozen=True)
class Ground:
    """What nearly every part stands on."""

    settings: Settings
    clock: Clock  # for dates
    uptime: Clock  # for durations
    metrics: Metrics
    lifecycle: Lifecycle
    database: Database | None

    @property
    def data_dir(self) -> Path:
        return self.settings.data_dir


def build(settings: Settings, *, clock: Clock = system_clock, uptime: Clock = uptime, sink=None) -> Parts:
    """Nothing here touches the network: connections are made by the first use, background work by lifecycle.start()."""
    _prepare(settings.data_dir)
    secrets = None if settings.is_production else development.load(settings)
    ground = Ground(settings, clock, uptime, Metrics(), Lifecycle(), _database(settings))

    _claim_data_dir(ground)
    spool = _spool(ground)
    primary = None if ground.database is None else MongoSink(ground.database)
    cells, rollups = _rollups(ground)
    configs = _configs(ground)
    ingest = _ingest(ground, sink or Ladder(primary, spool, uptime, ground.metrics, spool.may_keep_refused), configs, rollups)
    realtime = _realtime(ground)
    flags = _flags(ground, realtime)

    ground.lifecycle.every("settings_watch", 10, IN_USE.look)
    _sample_process(ground, realtime)
    ground.lifecycle.every("metrics_files", 10, ground.metrics.look_after_files)
    checks = {"settings": IN_USE.check, "spool": spool.check, "rollups": rollups.check, "telemetry_config": configs.check}
    checks |= {"flags": flags.check, "realtime": realtime.check}
    if CERTIFICATE.is_used:
        checks["tls"] = CERTIFICATE.check
    if ground.database is not None:
        checks["spool"] = _drainer(ground, spool, primary, ingest).check
        checks["mongo"] = _mongo_check(ground)
    if settings.redis_url:
        checks["redis"] = _redis_check(settings.redis_url)
    jwks = Jwks(settings.jwt_jwks_url) if settings.jwt_jwks_url else None
    if jwks is not None:
        checks["jwks"] = lambda: jwks.check(ground.uptime())

    return Parts(
        settings=settings,
        clock=clock,
        metrics=ground.metrics,
        lifecycle=ground.lifecycle,
        gatekeeper=_gatekeeper(ground, secrets, jwks),
        health=_health(ground, checks),
        database=ground.database,
        telemetry=ingest,
        telemetry_events=primary or spool,
        telemetry_config=configs,
        telemetry_rollups=rollups,
        telemetry_stats=Stats(cells, clock),
        flags=flags,
        realtime=realtime,
        development=secrets,
    )


def _prepare(data_dir: Path) -> None:
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        data_dir.mkdir(disk.FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"switchyard: DATA_DIR {data_dir} is not usable: {error.strerror}") from None
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise SettingsError(f"switchyard: DATA_DIR {data_dir} is not usable: it cannot be written to")
    if disk.is_open_to_others(data_dir):
        log.warning("data_dir_is_open", path=str(data_dir), consequence=OPEN_TO_OTHERS, remedy=f"chmod 750 {data_dir}")
    if trouble := disk.lacks_locks(data_dir):
        log.error("data_dir_has_no_locks", path=str(data_dir), error=trouble, consequence=WITHOUT_LOCKS)


def _claim_data_dir(ground: Ground) -> None:
    """At a start soon, since those that live are another server; after a SIGHUP with other settings they are old workers that end."""
    settings = ground.settings
    owner = DataDirOwner(ground.data_dir, mongo.place(settings.mongo_uri) if settings.mongo_uri else FILES)
    old_workers_s = settings.drain_timeout_ms / 1000 + LAST_WORDS_S
    ground.lifecycle.on_start(lambda: owner.claim(old_workers_s if IN_USE.has_served else LAST_WORDS_S))
    ground.lifecycle.every("data_dir_owner", 10, owner.look_after)


def _database(settings: Settings) -> Database | None:
    return mongo.connect(settings.mongo_uri, settings.mongo_timeout_ms) if settings.mongo_uri else None


def _copy(ground: Ground, embedded: EmbeddedFile, to_json: Callable, from_json: Callable) -> LocalCopy:
    """For what a process has to know although MongoDB is away when it starts: what that said last, or where it never said
    anything, what waits in the file to be moved there."""
    path = ground.data_dir / "snapshots" / embedded.name
    return LocalCopy(path, mongo.target(ground.settings.mongo_uri), to_json, from_json, before=embedded.recall)


def _keep_current(ground: Ground, name: str, refresh_ms: int, steps: list[Callable[[], None]]) -> None:
    """In this order: MongoDB is not read before it has what waits in the file."""
    for step in steps:
        ground.lifecycle.on_start(step)
    ground.lifecycle.every(name, refresh_ms / 1000, lambda: [step() for step in steps])


# Telemetry


def _spool(ground: Ground) -> SpoolSink:
    settings = ground.settings
    spool = SpoolSink(
        ground.data_dir / "spool",
        max_bytes=settings.spool_max_bytes,
        segment_bytes=settings.spool_segment_bytes,
        known_ids=settings.spool_known_ids,
        ttl_days=settings.telemetry_ttl_days,
        metrics=ground.metrics,
        is_store=ground.database is None,
        app_share=settings.spool_app_share,
        named_apps=settings.named_apps,
    )
    ground.lifecycle.on_start(spool.open)
    ground.lifecycle.every("spool_tend", 10, spool.tend)
    ground.lifecycle.every("spool_account", 1, spool.keep_account)
    ground.lifecycle.on_drain("spool", spool.close)
    return spool


def _rollups(ground: Ground) -> tuple[RollupStore, Rollups]:
    """What keeps the statistics: the store and the part that fills it."""
    settings, clock, lifecycle = ground.settings, ground.clock, ground.lifecycle
    max_bytes = settings.telemetry_rollups_max_bytes
    cells = FileRollups(ground.data_dir / "rollups.sqlite", ttl_days=settings.telemetry_ttl_days, clock=clock, max_bytes=max_bytes)
    tend_every_s = 10
    if ground.database is not None:
        cells, tend_every_s = RollupLadder(MongoRollups(ground.database, max_bytes), cells, ground.uptime), 1
    flush_every_s, places = settings.telemetry_rollups_flush_ms / 1000, Places(named=settings.named_apps)
    rollups = Rollups(cells, clock, ground.metrics, flush_every_s=flush_every_s, places=places)
    lifecycle.on_start(lambda: gevent.spawn(cells.tend))
    lifecycle.every("rollups_tend", tend_every_s, cells.tend)
    lifecycle.add("rollups", rollups.run)
    return cells, rollups


def _configs(ground: Ground) -> Configs:
    path, refresh_ms = ground.data_dir / "telemetry_config.json", ground.settings.telemetry_config_refresh_ms
    file = FileConfigStore(path)
    if ground.database is None:
        configs = Configs(file, ground.settings)
        _keep_current(ground, "telemetry_config_refresh", refresh_ms, [configs.refresh])
    else:
        store = MongoConfigStore(ground.clock)
        embedded = EmbeddedFile(path, file.read_all, lambda app, overrides: store.put(app, overrides, expected={}))
        configs = Configs(store, ground.settings, copy=_copy(ground, embedded, dump_apps, load_apps))
        _keep_current(ground, "telemetry_config_refresh", refresh_ms, [embedded.move, configs.refresh])
    return configs


def _ingest(ground: Ground, sink: Sink, configs: Configs, rollups: Rollups) -> Ingest:
    limits = {"max_events": ground.settings.telemetry_max_events, "max_in_flight": ground.settings.telemetry_max_in_flight}
    budgets = ByteBudgets(ByteRates(*ground.settings.byte_rates(), ground.settings.telemetry_byte_burst_s), ground.metrics)
    return Ingest(sink, ground.clock, ground.metrics, configs=configs, note=rollups.note, budgets=budgets, **limits)


def _drainer(ground: Ground, spool: SpoolSink, primary: MongoSink, ingest: Ingest) -> Drainer:
    settings, lifecycle = ground.settings, ground.lifecycle
    traffic = LiveTraffic(spool.folder / ".traffic", ingest, ground.clock)
    drainer = Drainer(
        spool,
        primary,
        ground.clock,
        ground.metrics,
        target=mongo.target(settings.mongo_uri),
        max_per_second=settings.spool_drain_events_per_second,
        is_busy=traffic.is_live,
    )
    lifecycle.every("telemetry_traffic", LOOK_EVERY_S, traffic.look)
    lifecycle.add("drainer", drainer.run)
    lifecycle.every("spool_watch", 1, drainer.watch)
    return drainer


# Realtime and flags


def _realtime(ground: Ground) -> Realtime:
    settings, log = ground.settings, _topic_log(ground)
    archive = _archive(ground, log)
    return Realtime(log, ground.clock, ground.metrics, Rules.from_settings(settings), archive, settings.rate_limit_http)


def _topic_log(ground: Ground) -> MemoryTopicLog:
    settings, lifecycle = ground.settings, ground.lifecycle
    numbers = FileNumbers(ground.data_dir / "realtime" / "numbers", settings.rt_durable_topics, settings.rt_log_max_topics)
    log = MemoryTopicLog(
        max_messages=settings.rt_log_max_messages,
        max_bytes=settings.rt_log_max_bytes,
        max_topics=settings.rt_log_max_topics,
        max_age_ms=settings.rt_log_max_age_s * 1000 or None,
        retention=[(pattern, Keep(count, size, age_s * 1000 or None)) for pattern, count, size, age_s in settings.rt_log_retention],
        max_total_bytes=settings.rt_log_max_total_bytes,
        numbers=numbers,
    )
    lifecycle.on_start(numbers.open)
    lifecycle.every("realtime_tidy", 10, lambda: log.tidy(ground.clock()))
    lifecycle.on_drain("realtime_numbers", numbers.seal)
    return log


def _archive(ground: Ground, log: MemoryTopicLog) -> DurableArchive | None:
    """Where durable topics are kept, too."""
    settings = ground.settings
    if ground.database is None or not settings.rt_durable_topics:
        return None
    messages = MessageSpool(ground.data_dir / "realtime", settings.rt_durable_spool_bytes, ground.clock)
    limits = (settings.rt_durable_topics, settings.rt_durable_buffer_bytes)
    others = {"steady": uptime, "numbering": log}
    archive = DurableArchive(MongoMessages(ground.database), messages, *limits, ground.clock, ground.metrics, **others)
    ground.lifecycle.on_start(archive.open)
    ground.lifecycle.add("realtime_archive", archive.run)
    return archive


def _flags(ground: Ground, realtime: Realtime) -> Flags:
    path, refresh_ms = ground.data_dir / "flags.json", ground.settings.flags_refresh_ms
    file, others = FileFlagStore(path), (ground.clock, ground.metrics, lambda change: realtime.publish("flags", change))
    if ground.database is None:
        flags = Flags(file, *others, uptime=ground.uptime)
        _keep_current(ground, "flags_refresh", refresh_ms, [flags.refresh])
    else:
        store = MongoFlagStore()
        embedded = EmbeddedFile(path, file.by_key, lambda key, flag: store.create(flag))
        flags = Flags(store, *others, copy=_copy(ground, embedded, write_records, read_records), uptime=ground.uptime)
        _keep_current(ground, "flags_refresh", refresh_ms, [embedded.move, flags.refresh])
    return flags


# Who is calling, and how it is


def _gatekeeper(ground: Ground, secrets: development.Secrets | None, jwks: Jwks | None) -> Gatekeeper:
    settings = ground.settings
    verifier_secret = settings.jwt_secret or (secrets and secrets.jwt_secret)
    verifier = TokenVerifier(
        secret=verifier_secret,
        public_key=settings.jwt_public_key,
        jwks=jwks,
        uptime=ground.uptime,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        leeway_s=settings.jwt_leeway_s,
        max_length=settings.jwt_max_length,
    )
    write_keys = settings.write_keys or (secrets.write_keys if secrets else {})
    never_show(key for key in (*write_keys, verifier_secret, settings.metrics_token) if key)
    return Gatekeeper(verifier, write_keys, ground.clock)


def _mongo_check(ground: Ground) -> Check:
    """With a word about the indexes, which are looked at now and then."""
    watch = IndexWatch(ground.database, ground.settings)
    ground.lifecycle.every("index_watch", 30, watch.look)
    ground.lifecycle.on_start(lambda: gevent.spawn(watch.look))
    return lambda: {**mongo.check(ground.database), **watch.verdict()}


def _redis_check(url: str) -> Check:
    redis = redis_connection.connect(url)
    return lambda: redis_connection.check(redis)


def _sample_process(ground: Ground, realtime: Realtime) -> None:
    sampler = ProcessSampler(ground.metrics, realtime.queued_bytes)
    ground.metrics.on_render(sampler.sample)
    ground.lifecycle.on_start(sampler.sample)
    ground.lifecycle.every("process_usage", 5, sampler.sample)


def _health(ground: Ground, checks: dict[str, Check]) -> Health:
    def is_ready(report: dict) -> bool:
        return not ground.lifecycle.is_draining and _can_store(report)

    return Health(checks, is_ready, ground.uptime, ground.metrics)


def _can_store(report: dict) -> bool:
    """Ready while an event can be made durable somewhere, whatever else is wrong."""
    return any(report.get(name, {}).get("state") in ("up", "degraded") for name in ("mongo", "spool"))
