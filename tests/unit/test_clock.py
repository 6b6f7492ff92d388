"""The system clock counts epoch milliseconds."""

import time

from app.clock import system_clock


def test_the_system_clock_counts_milliseconds_since_1970():
    assert abs(system_clock() - time.time() * 1000) < 1000
