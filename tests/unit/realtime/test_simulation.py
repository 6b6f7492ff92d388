"""Thousands of small worlds, each from a seed. One that breaks a promise says its seed: SIMULATION_SEED=… repeats it alone."""

import os

import pytest

from tests.unit.realtime.simulation import World

SEEDS = range(int(os.environ.get("SIMULATION_RUNS", 2100)))
BLOCK = 300


@pytest.mark.parametrize("first", [int(os.environ["SIMULATION_SEED"])] if "SIMULATION_SEED" in os.environ else SEEDS[::BLOCK])
def test_every_subscriber_sees_every_message_in_order_or_is_told_what_is_missing(first):
    for seed in [first] if "SIMULATION_SEED" in os.environ else SEEDS[first : first + BLOCK]:
        try:
            World(seed).run()
        except Exception as error:
            raise AssertionError(f"SIMULATION_SEED={seed}: {type(error).__name__}: {error}") from error


def test_a_seed_repeats_its_run():
    worlds = [World(7), World(7)]
    for world in worlds:
        world.run()
    assert worlds[0].now == worlds[1].now
    assert [client.positions.keys() for client in worlds[0].clients] == [client.positions.keys() for client in worlds[1].clients]
