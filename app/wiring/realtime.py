"""Builds realtime: the topic log, the archive of durable topics in MongoDB, and the service over them."""

from app.clock import uptime
from app.realtime.archive.archive import DurableArchive
from app.realtime.archive.mongo import MongoMessages
from app.realtime.archive.spool import MessageSpool
from app.realtime.log.memory import MemoryTopicLog, Retention
from app.realtime.log.sequence_store import FileSequenceStore
from app.realtime.options import Options
from app.realtime.realtime import Realtime
from app.wiring.common import Common


def build(common: Common) -> Realtime:
    """Build the service. Socket.IO is attached to it in app/realtime/server.py, which needs the Flask application."""
    settings, log = common.settings, _topic_log(common)
    archive = _archive(common, log)
    realtime = Realtime(log, common.clock, common.metrics, Options.from_settings(settings), archive, settings.rate_limit_http)
    common.checks["realtime"] = realtime.check
    return realtime


def _topic_log(common: Common) -> MemoryTopicLog:
    settings, lifecycle = common.settings, common.lifecycle
    sequences = FileSequenceStore(common.data_dir / "realtime" / "numbers", settings.rt_durable_topics, settings.rt_log_max_topics)
    log = MemoryTopicLog(
        max_messages=settings.rt_log_max_messages,
        max_bytes=settings.rt_log_max_bytes,
        max_topics=settings.rt_log_max_topics,
        max_age_ms=settings.rt_log_max_age_s * 1000 or None,
        retention=[(pattern, Retention(count, size, age_s * 1000 or None)) for pattern, count, size, age_s in settings.rt_log_retention],
        max_total_bytes=settings.rt_log_max_total_bytes,
        sequences=sequences,
    )
    lifecycle.on_start(sequences.open)
    lifecycle.every("realtime_tidy", 10, lambda: log.tidy(common.clock()))
    lifecycle.on_drain("realtime_sequences", sequences.seal)
    return log


def _archive(common: Common, log: MemoryTopicLog) -> DurableArchive | None:
    """Return None where no topic is durable or MONGO_URI is not set."""
    settings = common.settings
    if common.database is None or not settings.rt_durable_topics:
        return None
    messages = MessageSpool(common.data_dir / "realtime", settings.rt_durable_spool_bytes, common.clock)
    archive = DurableArchive(
        MongoMessages(common.database),
        messages,
        settings.rt_durable_topics,
        settings.rt_durable_buffer_bytes,
        common.clock,
        common.metrics,
        steady=uptime,
        numbering=log,
    )
    common.lifecycle.on_start(archive.open)
    common.lifecycle.add("realtime_archive", archive.run)
    return archive
