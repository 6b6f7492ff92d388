"""The tables of bench.realtime in markdown. At a ratio below 1 Switchyard needs less."""

from collections.abc import Sequence
from statistics import median

from bench.figures import ratios, spread
from bench.realtime.rounds import Loop, Result

HEADER = (
    "| shape | server | CPU µs per delivery: median (range) | Switchyard / this | deliveries/s | p50 ms | p99 ms | generator's own core |",
    "|---|---|---|---|---|---|---|---|",
)


def rows(result: Result) -> list[str]:
    """Return one row per server; of a shape that only publishes, a delivery is a publish."""
    return [_row(result, place) for place in range(len(result.labels))]


def _row(result: Result, place: int) -> str:
    loops = result.loops[place]
    cpu_us = spread([loop.cpu_us for loop in loops])
    compared = "" if place == 0 else f"{ratios(_cpu_us(result.loops[0]), _cpu_us(loops)).median:.2f}"
    latency = [f"{median(loop.counted[name] for loop in loops):.1f}" for name in ("p50_ms", "p99_ms")]
    cells = [
        result.shape.title,
        result.labels[place] + _trouble(loops),
        f"{cpu_us.median:.2f} ({cpu_us.low:.2f}–{cpu_us.high:.2f})",
        compared,
        f"{median(loop.rate for loop in loops):,.0f}",
        *latency,
        f"{median(loop.own_share for loop in loops):.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def _cpu_us(loops: Sequence[Loop]) -> list[float]:
    return [loop.cpu_us for loop in loops]


def _trouble(loops: Sequence[Loop]) -> str:
    """Return what went wrong in the worst round, so that no figure stands without it."""
    worst = max(loops, key=lambda loop: sum(loop.trouble.values())).trouble
    return f" ({', '.join(f'{count} {name}' for name, count in worst.items())})" if worst else ""
