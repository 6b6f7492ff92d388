"""Waiting for a condition of a running server."""

import time


def wait_until(condition, within_s=30):
    """Call `condition` until it returns something true, and return that. Fails after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)
    return value
