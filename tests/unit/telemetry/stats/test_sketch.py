"""A sketch is as exact as stated, and sketches may be added up in any order."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.stats.bucket import Bucket
from app.telemetry.stats.sketch import HIGHEST, LARGEST, RELATIVE_ERROR, SMALLEST, bin_of, percentiles, value_of

SHARES = [0, 0.25, 0.5, 0.75, 0.95, 0.99, 1]
values = st.floats(min_value=SMALLEST * 1.01, max_value=LARGEST) | st.integers(1, 10**12)
sketches = st.dictionaries(st.integers(0, HIGHEST), st.integers(1, 1000), max_size=8)


def sketch_of(numbers):
    return Counter(map(bin_of, numbers))


@given(st.lists(values, min_size=1, max_size=200))
def test_every_percentile_is_within_the_stated_error(numbers):
    ordered = sorted(numbers)
    for share, found in zip(SHARES, percentiles(sketch_of(numbers), SHARES)):
        true = next(value for place, value in enumerate(ordered, 1) if place / len(ordered) >= share - 1e-9)
        assert abs(found - true) <= true * (RELATIVE_ERROR + 1e-9)


def test_the_p99_of_a_few_values_is_the_largest():
    assert percentiles(sketch_of([100, 200, 300, 9000]), [0.5, 0.99]) == [value_of(bin_of(200)), value_of(bin_of(9000))]


@given(st.lists(values, max_size=50), st.lists(values, max_size=50), st.lists(values, max_size=50))
def test_sketches_added_up_in_any_order_equal_one_sketch_of_all_values(a, b, c):
    everything = sketch_of(a + b + c)
    assert (sketch_of(a) + sketch_of(b)) + sketch_of(c) == everything
    assert sketch_of(c) + (sketch_of(b) + sketch_of(a)) == everything


@given(sketches, sketches, sketches)
def test_buckets_may_be_added_up_in_any_order(a, b, c):
    def bucket(*parts):
        whole = Bucket("web", None, 0)
        for sketch in parts:
            whole.add(Bucket("web", None, 0, {"perf": {"lcp": 1}}, {"x": 2}, {"perf": {"lcp": dict(sketch)}}))
        return whole

    left, right = bucket(a, b), bucket(b)
    left.add(bucket(c))
    right.add(bucket(c))
    first = bucket(a)
    first.add(right)
    assert left == first == bucket(c, b, a)


@given(st.floats(min_value=0) | st.integers(0, 2**63))
def test_no_value_has_a_bin_beyond_the_highest(value):
    assert 0 <= bin_of(value) <= HIGHEST


def test_bins_are_in_the_order_of_their_values():
    assert [bin_of(value_of(bin_)) for bin_ in range(2, HIGHEST)] == list(range(2, HIGHEST))


def test_the_smallest_and_the_largest_value_have_the_first_and_the_last_bin():
    assert HIGHEST < 1100
    assert percentiles({bin_of(0): 3}, [0.5]) == [0]
    assert bin_of(float("inf")) == bin_of(LARGEST) == HIGHEST
