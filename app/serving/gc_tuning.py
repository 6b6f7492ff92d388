"""What Python's collector of cycles looks at in a server.

A full pass over all modules and classes stops everybody for 50 ms and finds nothing, since they live as long as the
process. And events are made by the thousand and hold no cycles, so a pass every 700 new objects, as by default, is one a
batch.
"""

import gc

NEW_OBJECTS_A_PASS = 5_000


def freeze_startup_objects() -> None:
    """For a process that has started and is about to serve: what is there by now is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS_A_PASS, *gc.get_threshold()[1:])
