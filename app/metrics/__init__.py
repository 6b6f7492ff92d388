"""Prometheus metrics of this process and, under gunicorn, of all workers together.

`catalogue` has one row per metric, `metrics` makes and renders them, `worker_files` keeps the files that gunicorn's workers count
into, `process_usage` samples CPU time, memory and open files.
"""

from app.metrics.catalogue import CATALOGUE
from app.metrics.metrics import ByLabel, Metrics

__all__ = ["CATALOGUE", "ByLabel", "Metrics"]
