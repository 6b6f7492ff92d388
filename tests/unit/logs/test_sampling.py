import logging

import pytest

from app.logs.sampling import SampledLog, SampledRecords


class MemoryLog:
    def __init__(self):
        self.lines = []

    def info(self, event, **fields):
        self.lines.append((event, fields))

    warning = exception = info


@pytest.fixture
def written():
    return MemoryLog()


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def sampled(written, clock):
    return SampledLog(written, allowed=2, period_s=10, now=lambda: clock[0])


def test_lines_within_the_allowance_are_written_as_they_are(sampled, written):
    sampled.info("refused", code="unauthorized")
    sampled.warning("refused", code="forbidden")
    assert written.lines == [("refused", {"code": "unauthorized"}), ("refused", {"code": "forbidden"})]


def test_lines_over_the_allowance_are_counted_on_the_next_line_of_their_event(sampled, written, clock):
    for _ in range(7):
        sampled.info("refused")
    clock[0] += 10
    sampled.info("refused", code="x")
    sampled.info("refused")
    assert written.lines[2:] == [("refused", {"code": "x", "suppressed": 5}), ("refused", {})]


def test_an_event_that_is_suppressed_does_not_suppress_another(sampled, written):
    for _ in range(5):
        sampled.info("refused")
    sampled.exception("failed")
    assert [event for event, _ in written.lines] == ["refused", "refused", "failed"]


def test_a_line_that_the_caller_held_back_counts_too(sampled, written):
    sampled.suppress("refused")
    sampled.info("refused")
    assert written.lines == [("refused", {"suppressed": 1})]


def test_lines_of_a_library_are_sampled_by_a_filter_of_its_logger():
    written, logger = [], logging.Logger("a.library")
    handler = logging.Handler()
    handler.emit = written.append
    logger.addHandler(handler)
    logger.addFilter(SampledRecords())
    for number in range(1000):
        logger.error("failed %d", number)
    assert 0 < len(written) < 100
