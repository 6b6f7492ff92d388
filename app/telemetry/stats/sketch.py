"""Percentiles from counters that can be added up: a histogram whose bins grow by a constant ratio. Pure.

It is the logarithmic mapping of DDSketch (Masson, Rim and Lee, VLDB 2019): a value falls into bin ceil(log(value) /
log(g)) with g = (1 + e) / (1 - e), and the bin answers with the point that no value in it is further away from than the
share e. A sketch is a plain dict from bin to count, so merging is adding, in any order, and there are never more than
HIGHEST + 1 entries.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import ceil, log

RELATIVE_ERROR = 0.02
SMALLEST = 1e-6  # this and whatever is smaller counts as zero
ROUNDING = 1e-9  # 0.07 * 100 is a little more than 7
LARGEST = 1e12  # whatever is larger counts as this: 31 years in milliseconds
_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_SCALE = 1 / log(_GROWTH)
_OFFSET = ceil(log(SMALLEST) * _SCALE) - 1  # so that bin 0 is zero and the others count from 1
HIGHEST = ceil(log(LARGEST) * _SCALE) - _OFFSET


def bin_of(value: float) -> int:
    """For a value that is not negative; infinity counts as LARGEST."""
    if value <= SMALLEST:
        return 0
    if value >= LARGEST:
        return HIGHEST
    return ceil(log(value) * _SCALE) - _OFFSET


def value_of(bin_: int) -> float:
    """The point that every value of the bin is within RELATIVE_ERROR of."""
    return 2 * _GROWTH ** (bin_ + _OFFSET) / (_GROWTH + 1) if bin_ else 0.0


def percentiles(sketch: Mapping[int, int], shares: Iterable[float]) -> list[float]:
    """For each share q the smallest value that at least q of all are not above: the nearest rank, ceil(q * n), so that of a few
    the largest is their p99. The sketch must not be empty."""
    bins = sorted(sketch)
    reached = list(accumulate(sketch[bin_] for bin_ in bins))
    return [value_of(bins[bisect_left(reached, max(1, ceil(share * reached[-1] - ROUNDING)))]) for share in shares]
