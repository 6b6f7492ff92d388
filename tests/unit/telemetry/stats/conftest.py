"""A store of statistics that fails on request, and metrics that show what was lost."""

import pytest

from app.metrics import Metrics
from app.storage.errors import StorageUnavailable
from app.telemetry.stats.store.memory import MemoryRollups


class FailingRollups(MemoryRollups):
    """Fails `failures` times: before it applies the delta, or after it, with `loses_answers`."""

    def __init__(self):
        super().__init__()
        self.failures = 0
        self.loses_answers = False
        self.asked = []

    def apply(self, delta):
        self.asked.append((delta.worker, delta.seq))
        if self.failures:
            self.failures -= 1
            if self.loses_answers:
                super().apply(delta)
            raise StorageUnavailable("on request")
        super().apply(delta)


@pytest.fixture
def store():
    return FailingRollups()


@pytest.fixture
def metrics():
    return Metrics()
