"""Measures how long code holds the event loop, which is how long every other client waits.

The time is CPU time, because the machine is busy with other tests. The garbage collector ignores pytest's objects, as it ignores
the objects of the start in a server.
"""

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass

import gevent

from app.serving.gc_tuning import freeze_startup_objects


@dataclass
class LoopTimes:
    longest_s: float = 0.0  # CPU seconds between two runs of the loop


@contextmanager
def measured_loop():
    """Yield LoopTimes; they are complete when the block has ended."""
    times, last_run = LoopTimes(), time.thread_time()

    def note_run():
        nonlocal last_run
        now = time.thread_time()
        times.longest_s, last_run = max(times.longest_s, now - last_run), now

    watcher = gevent.get_hub().loop.check(ref=False)
    usual = gc.get_threshold()
    freeze_startup_objects()
    try:
        gevent.sleep(0.001)
        last_run = time.thread_time()
        watcher.start(note_run)
        yield times
        gevent.sleep(0.001)
    finally:
        watcher.stop()
        watcher.close()
        gc.unfreeze()
        gc.set_threshold(*usual)
