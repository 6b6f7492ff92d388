"""The collector of cycles, told what to leave alone."""

import gc

from app.serving.gc_tuning import freeze_startup_objects


def test_what_is_there_at_the_start_is_not_looked_at_again_and_new_cycles_still_are():
    threshold = gc.get_threshold()
    try:
        freeze_startup_objects()
        assert gc.get_freeze_count() > 10_000
        cycle = []
        cycle.append(cycle)
        del cycle
        assert gc.collect() >= 1
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)
