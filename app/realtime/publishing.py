"""Checks permission and rates of a publish, and appends the message to the log."""

from typing import Any

from app.errors import ApiError
from app.identity.identity import Identity
from app.realtime import protocol
from app.realtime.archive import Archive
from app.realtime.buckets import MemoryBuckets
from app.realtime.log import TopicLog
from app.realtime.permissions import may_publish


class Publishing:
    """The one way by which messages get into the log. `buckets` limit the rate of each topic, for all publishers together."""

    def __init__(self, log: TopicLog, archive: Archive, buckets: MemoryBuckets, metrics):
        self._log = log
        self._archive = archive
        self._buckets = buckets
        self._metrics = metrics

    def publish_as(self, identity: Identity, messages: list[protocol.Publish], now: int) -> list[dict[str, Any]]:
        """Publish the messages of a client and return `[{topic, seq, epoch, duplicate?}]`.

        Publishes none of them if one is not permitted or over the rate of its topic. Raises ApiError `forbidden`, `rate_limited` or
        `unavailable`.
        """
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
        """Append the message and return `{topic, seq, epoch, duplicate?}`. Checks neither permission nor rates.

        Users' messages never evict what the server itself publishes (`is_trusted`). Raises ApiError `unavailable`.
        """
        appended = self._log.append(topic, payload, now, id, user, is_trusted)
        self._archive.confirm()
        facts: dict[str, Any] = {"topic": topic, "seq": appended.seq, "epoch": appended.epoch}
        if appended.duplicate:
            return {**facts, "duplicate": True}
        self._metrics.realtime_published_total.inc()
        return facts
