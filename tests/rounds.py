"""How long a process works between two looks at its sockets, which is what every other client waits. In seconds of CPU, since a
test's machine is busy with other tests; without the collector of cycles looking at pytest's own objects, as in a server."""

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass

import gevent

from app.serving.gc_tuning import spare_what_stays


@dataclass
class Rounds:
    longest_s: float = 0.0


@contextmanager
def measured_rounds():
    """Gives Rounds; right when the block has ended."""
    rounds, looked_at = Rounds(), time.thread_time()

    def look():
        nonlocal looked_at
        now = time.thread_time()
        rounds.longest_s, looked_at = max(rounds.longest_s, now - looked_at), now

    watcher = gevent.get_hub().loop.check(ref=False)
    usual = gc.get_threshold()
    spare_what_stays()
    try:
        gevent.sleep(0.001)
        looked_at = time.thread_time()
        watcher.start(look)
        yield rounds
        gevent.sleep(0.001)
    finally:
        watcher.stop()
        watcher.close()
        gc.unfreeze()
        gc.set_threshold(*usual)
