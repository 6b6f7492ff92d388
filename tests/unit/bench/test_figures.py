"""What the measurements' numbers become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import percentile, ratios, slope, spread

numbers = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50)


def test_a_spread_is_the_median_between_the_lowest_and_the_highest():
    assert spread([3, 1, 2]) == (2, 1, 3)
    assert spread([4.0]) == (4.0, 4.0, 4.0)


def test_a_ratio_is_taken_within_its_round_so_that_a_slow_round_changes_nothing():
    assert ratios([10, 100, 11], [20, 200, 22]) == (0.5, 0.5, 0.5)


def test_ratios_of_unequal_rounds_are_refused():
    with pytest.raises(ValueError):
        ratios([1, 2], [1])


@pytest.mark.parametrize("percent,value", [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_a_percentile_is_one_of_the_values(percent, value):
    assert percentile(list(range(100, 0, -1)), percent) == value


@given(numbers, st.floats(0.1, 100))
def test_a_percentile_has_at_least_its_share_at_or_below_it(values, percent):
    found = percentile(values, percent)
    assert sum(value <= found for value in values) >= len(values) * percent / 100
    assert found in values


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_a_slope_is_that_of_the_line_on_which_the_points_lie(rise, start):
    xs = [0, 1, 2, 5]
    assert slope(xs, [start + rise * x for x in xs]) == pytest.approx(rise, abs=1e-6)
