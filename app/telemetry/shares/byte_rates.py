"""A budget of stored bytes beside the request rate: gzip and an envelope that every event repeats make a megabyte of a few
hundred bytes, so requests and bytes on the wire say little about what a sender stores.

Counted is what will be written, inflated, before it is written: the body, and for every event what a stored one has in addition.
It is given back where nothing could be stored. Duplicates count: they cost as much to recognise. A batch that is refused or
rejected whole counts with its body, since it was read.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from app.errors import ApiError
from app.metrics import ByLabel, Metrics
from app.telemetry.batch import Batch
from app.telemetry.config.event_filter import without
from app.telemetry.event import StoredEvent
from app.telemetry.shares.sender import TOKENS, Sender
from app.telemetry.shares.token_buckets import TokenBucket, TokenBuckets
from app.telemetry.spool.event_lines import encode

EVENT_BYTES = 160  # of a stored event beside what its sender wrote: its id, its times and the names of its fields


class ByteRates(NamedTuple):
    """In bytes per second; a bucket holds what comes in within `burst_s`."""

    address: float
    key: float
    app: float
    burst_s: float


Charge = tuple[TokenBucket, int]


class ByteRateLimits:
    def __init__(self, rates: ByteRates, metrics: Metrics, now: Callable[[], float] = time.monotonic):
        self._addresses = TokenBuckets(rates.address, rates.burst_s)
        self._keys = TokenBuckets(rates.key, rates.burst_s)
        self._apps = TokenBuckets(rates.app, rates.burst_s)
        self._limited = ByLabel(metrics.telemetry_limited_total)
        self._now = now

    def take(self, batch: Batch, body_bytes: int, sender: Sender) -> tuple[Batch, list[Charge]]:
        """The batch, without the events of applications that are over their budget, and what it was charged. Raises ApiError
        `rate_limited` that names the limit where nothing of it may be stored; then nothing is charged."""
        now = self._now()
        size = body_bytes + len(batch.events) * (EVENT_BYTES + batch.shared_bytes)
        charges: list[Charge] = []
        if not sender.identity.is_service:
            self._charge("address", self._addresses, sender.party, size, charges, now)
            self._charge("key", self._keys, sender.key, size, charges, now)
        batch = self._take_for_apps(batch, size, charges, now)
        for bucket, bytes_ in charges:
            bucket.left -= bytes_
        return batch, charges

    def refuse_if_spent(self, body_bytes: int, sender: Sender) -> None:
        """To be called before a body is read: one that the sender could not store anyway is not worth reading. Raises ApiError
        `rate_limited`; charges nothing."""
        if not sender.identity.is_service:
            self._charge("address", self._addresses, sender.party, body_bytes, [], self._now())

    def charge_unstored(self, body_bytes: int, sender: Sender) -> None:
        """For a body that was read and of which nothing is stored. It counts for the address alone: a write key is public, and
        rubbish sent with it must not use up what others may store with it."""
        if not sender.identity.is_service:
            self._addresses.bucket(sender.party, self._now()).left -= body_bytes

    def give_back(self, charges: list[Charge]) -> None:
        for bucket, bytes_ in charges:
            bucket.left += bytes_

    def _charge(self, limit: str, budget: TokenBuckets, name: str, size: int, charges: list[Charge], now: float) -> None:
        bucket = budget.bucket(name, now)
        if wait_s := budget.wait_s(bucket, size):
            raise self._refusal(limit, name, wait_s)
        charges.append((bucket, size))

    def _take_for_apps(self, batch: Batch, size: int, charges: list[Charge], now: float) -> Batch:
        sizes, over = _sizes_by_app(batch.events, size), {}
        for app, bytes_ in sizes.items():
            bucket = self._apps.bucket(app, now)
            if wait_s := self._apps.wait_s(bucket, bytes_):
                over[app] = self._refusal("app", app, wait_s)
            else:
                charges.append((bucket, bytes_))
        if not over:
            return batch
        if len(over) == len(sizes):
            raise max(over.values(), key=lambda refusal: refusal.retry_after_ms)
        refused = {place: over[event.app].message for place, event in enumerate(batch.events) if event.app in over}
        return without(refused, batch, "rate_limited")

    def _refusal(self, limit: str, name: str, wait_s: float) -> ApiError:
        self._limited[limit].inc()
        party, setting, budget = {
            "address": ("This user" if name.startswith("user:") else "This address", "TELEMETRY_ADDRESS_BYTE_RATE", self._addresses),
            "key": (f"The write key of {name}" if name != TOKENS else "All tokens together", "TELEMETRY_KEY_BYTE_RATE", self._keys),
            "app": (f"The application {name}", "TELEMETRY_APP_BYTE_RATE", self._apps),
        }[limit]
        rate = f"{budget.bytes_per_s:.0f} bytes per second"
        message = f"{party} may store {rate} ({setting}), and more was sent; send this again later."
        return ApiError("rate_limited", message, retry_after_ms=math.ceil(wait_s * 1000))


def _sizes_by_app(events: list[StoredEvent], size: int) -> dict[str, int]:
    apps = {event.app for event in events}
    if len(apps) == 1:
        return dict.fromkeys(apps, size)
    by_app: dict[str, list[StoredEvent]] = {app: [] for app in apps}
    for event in events:
        by_app[event.app].append(event)
    return {app: len(encode(events)) for app, events in by_app.items()}
