"""Builds the health report, the checks of MongoDB, Redis, settings and certificate, and the samples of this process."""

import gevent
from pymongo.database import Database

from app.health import Health
from app.metrics.process_usage import ProcessSampler
from app.realtime.realtime import Realtime
from app.serving.tls import CERTIFICATE
from app.settings.in_use import IN_USE
from app.storage import mongo, redis_connection
from app.storage.migrations import IndexWatch
from app.wiring.common import Common


def build(common: Common) -> Health:
    """Build the report over `common.checks`. The worker is ready while it does not drain and an event can be stored somewhere."""
    common.lifecycle.every("settings_watch", 10, IN_USE.look)
    common.checks["settings"] = IN_USE.check
    if CERTIFICATE.is_used:
        common.checks["tls"] = CERTIFICATE.check
    if common.database is not None:
        _check_mongo(common, common.database)
    if common.settings.redis_url:
        redis = redis_connection.connect(common.settings.redis_url)
        common.checks["redis"] = lambda: redis_connection.check(redis)

    def is_ready(report: dict) -> bool:
        return not common.lifecycle.is_draining and _can_store(report)

    return Health(common.checks, is_ready, common.uptime, common.metrics)


def sample_process(common: Common, realtime: Realtime) -> None:
    """Measure this process for /metrics: every five seconds, and when a page of metrics is made."""
    sampler = ProcessSampler(common.metrics, realtime.queued_bytes)
    common.metrics.on_render(sampler.sample)
    common.lifecycle.on_start(sampler.sample)
    common.lifecycle.every("process_usage", 5, sampler.sample)
    common.lifecycle.every("metrics_worker_files", 10, common.metrics.restore_worker_files)


def _check_mongo(common: Common, database: Database) -> None:
    """Check the connection at each report, and pending migrations every 30 seconds."""
    watch = IndexWatch(database, common.settings)
    common.lifecycle.every("index_watch", 30, watch.look)
    common.lifecycle.on_start(lambda: gevent.spawn(watch.look))
    common.checks["mongo"] = lambda: {**mongo.check(database), **watch.verdict()}


def _can_store(report: dict) -> bool:
    return any(report.get(name, {}).get("state") in ("up", "degraded") for name in ("mongo", "spool"))
