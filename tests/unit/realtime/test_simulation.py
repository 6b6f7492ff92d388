"""Thousands of small worlds, each from a seed. One that breaks a promise says its seed and how to repeat it alone.

SIMULATION_RUNS is how many there are, 2100 where it is not set; SIMULATION_SEED runs one.
"""

import os

import pytest

from tests.unit.realtime.simulation.world import World

SEEDS = range(int(os.environ.get("SIMULATION_RUNS", 2100)))
BLOCK = 300


@pytest.mark.parametrize("first", [int(os.environ["SIMULATION_SEED"])] if "SIMULATION_SEED" in os.environ else SEEDS[::BLOCK])
def test_every_subscriber_sees_every_message_in_order_or_is_told_what_is_missing(first):
    for seed in [first] if "SIMULATION_SEED" in os.environ else SEEDS[first : first + BLOCK]:
        try:
            World(seed).run()
        except Exception as error:
            again = f"SIMULATION_SEED={seed} python -m pytest {__file__} -k every_subscriber"
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}\nto repeat it alone: {again}") from error


def test_a_seed_repeats_its_run():
    worlds = [World(7), World(7)]
    for world in worlds:
        world.run()
    assert worlds[0].now == worlds[1].now
    assert [client.positions.keys() for client in worlds[0].clients] == [client.positions.keys() for client in worlds[1].clients]
