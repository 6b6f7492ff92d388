"""Computes percentiles from a histogram whose bins grow by a constant ratio, so that histograms can be added up. Pure.

The bins are those of DDSketch (Masson, Rim and Lee, VLDB 2019): a value belongs to bin ceil(log(value) / log(g)), with
g = (1 + e) / (1 - e), and every value of a bin is within the share e of one point of it. A sketch is a plain dict from bin to count. So
sketches are merged by adding them up, in any order, and a sketch has at most HIGHEST + 1 entries.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import ceil, log

RELATIVE_ERROR = 0.02
SMALLEST = 1e-6  # this and smaller values count as zero
ROUNDING = 1e-9  # 0.07 * 100 is a little more than 7
LARGEST = 1e12  # larger values count as this: 31 years in milliseconds
_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_SCALE = 1 / log(_GROWTH)
_OFFSET = ceil(log(SMALLEST) * _SCALE) - 1  # so that bin 0 is zero and the others count from 1
HIGHEST = ceil(log(LARGEST) * _SCALE) - _OFFSET


def bin_of(value: float) -> int:
    """Return the bin of a value that is not negative; infinity counts as LARGEST."""
    if value <= SMALLEST:
        return 0
    if value >= LARGEST:
        return HIGHEST
    return ceil(log(value) * _SCALE) - _OFFSET


def value_of(bin_: int) -> float:
    """Return the point of the bin that each of its values is within RELATIVE_ERROR of."""
    return 2 * _GROWTH ** (bin_ + _OFFSET) / (_GROWTH + 1) if bin_ else 0.0


def percentiles(sketch: Mapping[int, int], shares: Iterable[float]) -> list[float]:
    """Return for each share q the value at the nearest rank, ceil(q * n): the p99 of a few values is the largest of them. The sketch
    must not be empty."""
    bins = sorted(sketch)
    reached = list(accumulate(sketch[bin_] for bin_ in bins))
    return [value_of(bins[bisect_left(reached, max(1, ceil(share * reached[-1] - ROUNDING)))]) for share in shares]
