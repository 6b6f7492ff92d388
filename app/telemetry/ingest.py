"""One batch: judged, written, counted, answered. What is answered as saved is durable by then."""

import time
from collections.abc import Callable
from typing import Any

from app.clock import Clock
from app.errors import CATALOGUE, ApiError, first_rows
from app.metrics import ByLabel, Metrics
from app.serving.fairness import yield_before_large, yield_if_slice_is_over
from app.serving.weighted_semaphore import WeightedSemaphore
from app.storage.errors import StorageUnavailable
from app.telemetry.batch import Batch
from app.telemetry.config.configs import Configs
from app.telemetry.config.event_filter import without
from app.telemetry.fast_batch import read_batch_bytes
from app.telemetry.shares.byte_rates import ByteRateLimits, Charge
from app.telemetry.shares.sender import Sender
from app.telemetry.sinks import Sink, SinkShareFull, Written
from app.telemetry.stats.counters import without_trees

OVERLOADED_RETRY_AFTER_MS = 1000
SMALL_BYTES = 8_192
FEW_OBJECTS, MANY_OBJECTS = 1000, 10_000  # a batch of a thousand ordinary events has a few thousand
MAX_OBJECTS_AT_ONCE = 60_000
BYTES_AN_OBJECT = 40  # so many bytes of a list of digits cost the collector what one array or object does
Note = Callable[..., None]


class Ingest:
    """`configs` say which events are taken and `budgets` how much of them; `note` is told of the events of every batch that was
    written, of the places of those that are not new (known before, or refused by the storage), and of the name of the write key."""

    def __init__(
        self,
        sink: Sink,
        clock: Clock,
        metrics: Metrics,
        *,
        max_events: int,
        max_in_flight: int,
        configs: Configs,
        note: Note,
        budgets: ByteRateLimits | None = None,
    ):
        self._configs = configs
        self._budgets = budgets
        self._note = note
        self._sink = sink
        self._clock = clock
        self._batches = ByLabel(metrics.telemetry_batches_total)
        self._events = ByLabel(metrics.telemetry_events_total)
        self._seconds = ByLabel(metrics.telemetry_write_seconds)
        self._max_events = max_events
        self._max_in_flight = max_in_flight
        self.in_flight = 0
        self.taken = 0  # batches since the start
        self._decoded = WeightedSemaphore(MAX_OBJECTS_AT_ONCE)

    def save(self, body: bytes, default_type: str | None = None, sender: Sender | None = None) -> dict[str, Any]:
        """The answer `{ok, saved, duplicates?, rejected?, adjusted?, storage?}`. Raises ApiError `bad_request`, `payload_too_large`,
        `rate_limited` for a sender that is over a budget, or `storage_full` when nothing could make the events durable: then none
        of them is. With more batches in flight than this worker takes, it is `unavailable` before anything was done for it: better
        one client told to come back than all of them waiting. Without a sender there are no budgets."""
        if self.in_flight >= self._max_in_flight:
            self._batches["refused"].inc()
            raise ApiError("unavailable", "Too many batches at once; send it again later.", retry_after_ms=OVERLOADED_RETRY_AFTER_MS)
        self.in_flight += 1
        self.taken += 1
        try:
            yield_if_slice_is_over(len(body))
            # What is decoded is held until it is written, and the collector of cycles looks at all that is held in one piece: a
            # million arrays and objects would stop everybody for a tenth of a second. So batches with many take turns.
            objects = _objects_in(body)
            if objects <= FEW_OBJECTS:
                return self._save(body, default_type, sender)
            with self._decoded.hold(objects, "" if sender is None else sender.party):
                return self._save(body, default_type, sender, has_many=objects > MANY_OBJECTS)
        finally:
            self.in_flight -= 1

    def _save(self, body: bytes, default_type: str | None, sender: Sender | None, has_many: bool = False) -> dict[str, Any]:
        batch = self._read(body, default_type, sender)
        if sender is not None:
            batch = sender.admit(batch)
        if (event_filter := self._configs.event_filter) is not None:
            batch = event_filter.admit(batch)
        if not batch.events:
            self._charge_unstored(body, sender)
            return self._answer(batch, None)
        yield_before_large(len(body))  # a sink encodes all of it in one piece
        batch, charges = self._charge(batch, len(body), sender)
        batch, written = self._write(batch, charges, has_many, () if sender is None else (sender.key,))
        if written.refused:
            batch = without(dict.fromkeys(written.refused, CATALOGUE["refused"].sentence), batch, "refused")
        return self._answer(batch, written)

    def _read(self, body: bytes, default_type: str | None, sender: Sender | None) -> Batch:
        if self._budgets is not None and sender is not None and len(body) > SMALL_BYTES:
            self._budgets.refuse_if_spent(len(body), sender)
        try:
            return read_batch_bytes(body, self._clock(), self._max_events, default_type)
        except ApiError:
            self._charge_unstored(body, sender)
            raise

    def _charge_unstored(self, body: bytes, sender: Sender | None) -> None:
        if self._budgets is not None and sender is not None:
            self._budgets.charge_unstored(len(body), sender)

    def _charge(self, batch: Batch, body_bytes: int, sender: Sender | None) -> tuple[Batch, list[Charge]]:
        if sender is None or self._budgets is None:
            return batch, []
        return self._budgets.take(batch, body_bytes, sender)

    def _write(self, batch: Batch, charges: list[Charge], has_many: bool, key: tuple) -> tuple[Batch, Written]:
        """What was written, which is less where an application's share is full and the batch has others, too."""
        started = time.perf_counter()
        try:
            written = self._sink.write(batch.events)
        except StorageUnavailable as error:
            if isinstance(error, SinkShareFull) and (rest := _without_full(batch, error)).events:
                return self._write(rest, charges, has_many, key)
            self._batches["unavailable"].inc()
            if self._budgets is not None:
                self._budgets.give_back(charges)
            raise
        events = without_trees(batch.events) if has_many else batch.events
        self._note(events, (*written.known, *written.refused) if written.refused else written.known, *key)
        self._seconds[written.storage].observe(time.perf_counter() - started)
        return batch, written

    def _answer(self, batch: Batch, written: Written | None) -> dict[str, Any]:
        answer: dict[str, Any] = {"ok": True, "saved": len(batch.events)}
        if written is not None and batch.events:
            if written.duplicates:
                answer["duplicates"] = written.duplicates
            answer["storage"] = written.storage
        if batch.rejected:
            answer["rejected"] = batch.rejected
        if batch.adjusted:
            answer["adjusted"] = first_rows(batch.adjusted)
        self._count(batch, written.duplicates if written else 0)
        return answer

    def _count(self, batch: Batch, duplicates: int) -> None:
        self._batches["saved"].inc()
        fates = {"saved": len(batch.events) - duplicates, "duplicate": duplicates, "rejected": len(batch.rejected)}
        for fate, count in fates.items():
            if count:
                self._events[fate].inc(count)


def _without_full(batch: Batch, error: SinkShareFull) -> Batch:
    full = {place: error.full[event.app] for place, event in enumerate(batch.events) if event.app in error.full}
    return without(full, batch, "storage_full")


def _objects_in(body: bytes) -> int:
    """What its decoded values cost the collector, at most and in arrays and objects; 0 for a small one, of which nobody has many."""
    if len(body) <= SMALL_BYTES:
        return 0
    return body.count(b"[") + body.count(b"{") + len(body) // BYTES_AN_OBJECT
