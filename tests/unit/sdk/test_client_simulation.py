"""Hundreds of small worlds for each client, each from a seed: bad days of a server and a network, then calm.

A world that breaks a promise says its seed. SIMULATION_RUNS is how many there are, 600 where it is not set; SIMULATION_SEED runs one.
"""

import json
import logging
import os
from pathlib import Path

import pytest

from app.sdk.python import subscriptions
from tests.unit.sdk.client_simulation.world import World

REPOSITORY = Path(__file__).parents[3]
BROWSER = REPOSITORY / "app" / "sdk" / "realtime.js"
RUN = Path(__file__).parent / "client_simulation" / "run.js"
ONE = [int(os.environ["SIMULATION_SEED"])] if "SIMULATION_SEED" in os.environ else None
RUNS = int(os.environ.get("SIMULATION_RUNS", 600))
BLOCK = 200


@pytest.fixture(autouse=True)
def quiet_client(monkeypatch):
    monkeypatch.setattr(logging.getLogger("app.sdk.python"), "level", logging.CRITICAL)
    monkeypatch.setattr(subscriptions, "MAX_CALLS", subscriptions.MAX_CALLS)  # worlds have values of their own


@pytest.mark.parametrize("first", ONE or range(0, RUNS, BLOCK))
def test_in_python_every_wait_ends_and_every_topic_is_live_or_told(first):
    for seed in ONE or range(first, first + BLOCK):
        broken = World(seed).run()
        assert not broken, f"SIMULATION_SEED={seed}:\n" + "\n".join(broken)


def test_in_javascript_every_promise_settles_and_every_topic_is_live_or_told(node):
    first, count = (ONE[0], 1) if ONE else (0, 2 * RUNS)
    broken = [json.loads(line) for line in node.run(RUN, BROWSER, first, count, timeout_s=120).splitlines()]
    assert not broken, "\n".join(f"SIMULATION_SEED={world['seed']}: {world['broken']}" for world in broken[:3])
