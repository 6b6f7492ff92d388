"""What becomes of the numbers: medians and ranges, ratios within a round, percentiles. Pure.

A ratio is taken within one round, where both sides met the same machine, and only then is the median taken: another
program that wakes up in the third round spoils one ratio and not the result.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Spread(NamedTuple):
    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of rounds in the same order."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all are not above (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of the straight line nearest to the points (least squares)."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
