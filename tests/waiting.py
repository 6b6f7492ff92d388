"""Waiting for a condition of a running server."""

import time


def wait_until(condition, within_s=30, *, sleep=time.sleep, show=lambda: ""):
    """Call `condition` until it returns something true, and return that. Fails after `within_s` seconds, with what `show` returns.

    `sleep` has to be gevent.sleep where the condition depends on greenlets of the test process, which gevent does not patch.
    """
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s {show()}"
        sleep(0.02)
    return value
