"""One batch: judged, written, counted, answered. What is answered as saved is durable by then."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from app.clock import Clock
from app.errors import CATALOGUE, ApiError
from app.metrics import ByLabel, Metrics
from app.telemetry.batch import Batch
from app.telemetry.config.configs import Configs
from app.telemetry.config.gates import without
from app.telemetry.event import StoredEvent
from app.telemetry.fast_batch import read_batch_bytes
from app.telemetry.shares.sender import Sender
from app.telemetry.shares.stored_bytes import ByteBudgets, Charge
from app.telemetry.sinks import Sink, SinkFull, SinkShareFull, SinkUnavailable, Written

RETRY_AFTER_MS = 5000
OVERLOADED_RETRY_AFTER_MS = 1000
Note = Callable[[list[StoredEvent], Sequence[int]], None]


class Ingest:
    """`configs` say which events are taken and `budgets` how much of them; `note` is told of the events of every batch that was
    written, and of the places of those that are not new: known before, or refused by the storage."""

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
        budgets: ByteBudgets | None = None,
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

    def save(self, body: bytes, default_type: str | None = None, sender: Sender | None = None) -> dict[str, Any]:
        """The answer `{ok, saved, duplicates?, rejected?, storage?}`. Raises ApiError `bad_request`, `payload_too_large`,
        `rate_limited` for a sender that is over a budget, or `storage_full` when nothing could make the events durable: then none
        of them is. With more batches in flight than this worker takes, it is `unavailable` before anything was done for it: better
        one client told to come back than all of them waiting. Without a sender there are no budgets."""
        if self.in_flight >= self._max_in_flight:
            self._batches["refused"].inc()
            raise ApiError("unavailable", "Too many batches at once; send it again later.", retry_after_ms=OVERLOADED_RETRY_AFTER_MS)
        self.in_flight += 1
        self.taken += 1
        try:
            batch = read_batch_bytes(body, self._clock(), self._max_events, default_type)
            if sender is not None:
                batch = sender.admit(batch)
            if (gates := self._configs.gates) is not None:
                batch = gates.admit(batch)
            if not batch.events:
                return self._answer(batch, None)
            batch, charges = self._charge(batch, len(body), sender)
            batch, written = self._write(batch, charges)
            if written.refused:
                batch = without(dict.fromkeys(written.refused, CATALOGUE["refused"].sentence), batch, "refused")
            return self._answer(batch, written)
        finally:
            self.in_flight -= 1

    def _charge(self, batch: Batch, body_bytes: int, sender: Sender | None) -> tuple[Batch, list[Charge]]:
        if sender is None or self._budgets is None:
            return batch, []
        return self._budgets.take(batch, body_bytes, sender)

    def _write(self, batch: Batch, charges: list[Charge]) -> tuple[Batch, Written]:
        """What was written, which is less where an application's share is full and the batch has others, too."""
        started = time.perf_counter()
        try:
            written = self._sink.write(batch.events)
        except (SinkFull, SinkUnavailable) as error:
            if isinstance(error, SinkShareFull) and (rest := _without_full(batch, error)).events:
                return self._write(rest, charges)
            self._batches["unavailable"].inc()
            if self._budgets is not None:
                self._budgets.give_back(charges)
            told = str(error) if isinstance(error, SinkShareFull) else None
            raise ApiError("storage_full", told, retry_after_ms=RETRY_AFTER_MS) from None
        self._note(batch.events, (*written.known, *written.refused) if written.refused else written.known)
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
