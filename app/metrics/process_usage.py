"""What this process uses of the machine, and its gauges. `None` where the system does not tell: only Linux has /proc.

The library's own collector for this is left out where several processes are added up, so the rows are ours in both cases.
"""

import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

PAGE_BYTES = resource.getpagesize()


class Usage(NamedTuple):
    cpu_s: float
    resident_bytes: int | None
    open_files: int | None
    max_files: int | None  # None is no limit


def measure() -> Usage:
    """About a millisecond for ten thousand open files."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Usage(spent.ru_utime + spent.ru_stime, _resident_bytes(), _open_files(), None if limit == resource.RLIM_INFINITY else limit)


def _resident_bytes() -> int | None:
    """The layout is in proc(5): sizes in pages, the second is the resident one."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE_BYTES
    return None


def _open_files() -> int | None:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder)) - 1  # the listing itself has one open
    return None


class ProcessSampler:
    """`sample` is called every few seconds in each worker, and before an answer in the one that gives it."""

    def __init__(self, metrics, queued_bytes: Callable[[], int]):
        self._metrics = metrics
        self._queued_bytes = queued_bytes
        self._cpu_s = 0.0
        metrics.process_start_time_seconds.set(time.time())

    def sample(self) -> None:
        used, metrics = measure(), self._metrics
        metrics.process_cpu_seconds_total.inc(used.cpu_s - self._cpu_s)
        self._cpu_s = used.cpu_s
        metrics.worker_cpu_seconds.set(used.cpu_s)
        metrics.process_max_fds.set(used.max_files or 0)
        if used.resident_bytes is not None:
            metrics.process_resident_memory_bytes.set(used.resident_bytes)
            metrics.worker_resident_memory_bytes.set(used.resident_bytes)
        if used.open_files is not None:
            metrics.process_open_fds.set(used.open_files)
            metrics.worker_open_fds.set(used.open_files)
        metrics.realtime_send_queue_bytes.set(self._queued_bytes())
