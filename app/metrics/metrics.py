"""Makes the metrics of the catalogue and renders them as Prometheus text.

Under gunicorn every worker counts into files in PROMETHEUS_MULTIPROC_DIR, which gunicorn.conf.py sets before this module is
imported; the worker that renders adds up all files. A single process renders from memory.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app.metrics import worker_files
from app.metrics.catalogue import CATALOGUE, Catalogue, MetricRow

HAS_WORKER_FILES = worker_files.use()
FAST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics(Catalogue):
    """Every metric as an attribute, on a registry of its own, so that several applications can share a process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for name, row in CATALOGUE.items():
            setattr(self, name, self._make(name, row))
        self._samplers: list[Callable[[], None]] = []

    def _make(self, name: str, row: MetricRow) -> Counter | Gauge | Histogram:
        options: dict[str, Any] = {"registry": self._registry}
        if row.kind is Gauge:
            options["multiprocess_mode"] = row.merge
        if row.kind is Histogram:
            options["buckets"] = FAST_SECONDS
        return row.kind(name, row.help, row.labels, **options)

    def on_render(self, sample: Callable[[], None]) -> None:
        """Call `sample` before each rendering, to set the gauges that are measured and not counted."""
        self._samplers.append(sample)

    def render(self) -> bytes:
        """Return the Prometheus text of all workers together."""
        for sample in self._samplers:
            sample()
        if not HAS_WORKER_FILES:
            return generate_latest(self._registry)
        self.restore_worker_files()
        merged = CollectorRegistry()
        merged.register(worker_files.AllWorkers())
        return generate_latest(merged)

    def restore_worker_files(self) -> None:
        """Write this worker's files again if another program removed them; no count is lost."""
        if HAS_WORKER_FILES:
            with suppress(OSError):
                worker_files.restore()


Metric = TypeVar("Metric", Counter, Gauge, Histogram)


class ByLabel(dict[str, Metric]):
    """Caches a metric's children by the value of its only label, since looking one up in the library costs as much as counting.

    For label values from a fixed set. Values that a client chooses would fill the cache without limit.
    """

    def __init__(self, metric: Metric):
        super().__init__()
        self._metric: Metric = metric

    def __missing__(self, value: str) -> Metric:
        child = self[value] = self._metric.labels(value)
        return child
