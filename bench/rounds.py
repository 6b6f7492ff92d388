"""Alternates between the servers, round after round, so that a change of the machine affects all of them.

The order changes from round to round, because the database may still be busy with the writes of the previous server.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bench import figures, load
from bench.contestants import Pinned
from bench.load import Window
from bench.workloads import Workload

OPEN_LOOP_SHARE = 0.6  # of the slowest server's closed-loop throughput: a rate that all servers sustain
OPEN_LOOP_CONNECTIONS = 64


class Side(NamedTuple):
    label: str
    server: Pinned
    workload: Workload


class Pace(NamedTuple):
    """The number and length of the rounds. The warm-up is for Node's compiler, which needs seconds."""

    rounds: int
    seconds: float
    warm_up_s: float = 4.0


@dataclass
class Result:
    """The windows of each side, in the order of the rounds. The first side is compared with each of the others."""

    title: str
    sides: Sequence[Side]
    closed: list[list[Window]]
    open: list[list[Window]] = field(default_factory=list)
    open_rate: float = 0.0

    def cpu_us(self, side: int) -> list[float]:
        return [window.cpu_us for window in self.closed[side]]

    def rates(self, side: int) -> list[float]:
        return [window.rate for window in self.closed[side]]

    def latencies_ms(self, side: int, percent: float) -> list[float]:
        return [figures.percentile(window.latencies_ms, percent) for window in self.open[side]]


def measure(title: str, sides: Sequence[Side], connections: int, pace: Pace, *, has_latency: bool) -> Result:
    def closed_loop(side: Side, seconds: float = pace.seconds) -> Window:
        return load.closed_loop(side.server, side.workload.requests(), connections=connections, seconds=seconds)

    def open_loop(side: Side) -> Window:
        options = {"connections": OPEN_LOOP_CONNECTIONS, "seconds": pace.seconds, "rate": result.open_rate}
        return load.open_loop(side.server, side.workload.requests(), **options)

    for side in sides:
        closed_loop(side, pace.warm_up_s)
    result = Result(title, sides, _alternate(sides, pace, closed_loop))
    if has_latency:
        result.open_rate = OPEN_LOOP_SHARE * min(figures.spread(result.rates(place)).median for place in range(len(sides)))
        result.open = _alternate(sides, pace, open_loop)
    return result


def _alternate(sides: Sequence[Side], pace: Pace, window: Callable[[Side], Window]) -> list[list[Window]]:
    windows: list[list[Window]] = [[] for _ in sides]
    for number in range(pace.rounds):
        for place in range(len(sides)):
            place = (place + number) % len(sides)
            windows[place].append(window(sides[place]))
    return windows
