"""Who may publish how much, and then the one step that counts: the message is in the log."""

from typing import Any

from app.errors import ApiError
from app.identity.identity import Identity
from app.realtime import protocol
from app.realtime.archive import Archive
from app.realtime.buckets import MemoryBuckets
from app.realtime.log import TopicLog
from app.realtime.permissions import may_publish


class Publishing:
    """`buckets` hold each topic to its rate, and are shared by all that publish."""

    def __init__(self, log: TopicLog, archive: Archive, buckets: MemoryBuckets, metrics):
        self._log = log
        self._archive = archive
        self._buckets = buckets
        self._metrics = metrics

    def publish_as(self, identity: Identity, messages: list[protocol.Publish], now: int) -> list[dict[str, Any]]:
        """`[{topic, seq, epoch, duplicate?}]`. Where one is not permitted, or over its topic's rate, none is published."""
        counts: dict[str, int] = {}
        for message in messages:
            if not may_publish(identity, message.topic):
                raise ApiError("forbidden", f"The token does not allow publishing to {message.topic}.")
            counts[message.topic] = counts.get(message.topic, 0) + 1
        for topic, count in counts.items():
            if wait_ms := self._buckets.take(topic, now, count):
                raise ApiError("rate_limited", f"Too many messages on {topic}; slow down.", retry_after_ms=wait_ms)
        user, is_trusted = identity.user_id, identity.is_service
        return [self.publish(message.topic, message.payload, now, message.id, user, is_trusted) for message in messages]

    def publish(self, topic: str, payload: bytes, now: int, id: str | None, user: str | None, is_trusted: bool = True) -> dict[str, Any]:
        """`{topic, seq, epoch, duplicate?}`, after the message is in the log. No permission and no rate is asked: for the server
        itself, whose topics no user's publishing evicts (`is_trusted`)."""
        appended = self._log.append(topic, payload, now, id, user, is_trusted)
        self._archive.confirm()
        facts: dict[str, Any] = {"topic": topic, "seq": appended.seq, "epoch": appended.epoch}
        if appended.duplicate:
            return {**facts, "duplicate": True}
        self._metrics.realtime_published_total.inc()
        return facts
