"""The tables of bench.ingest: text for the terminal, and markdown for docs/benchmarks.md."""

import os
import platform
from collections.abc import Sequence

from bench import cpu
from bench.figures import Spread, ratios, spread
from bench.rounds import Result
from bench.workloads import body_bytes
from tests.servers import node


def machine() -> str:
    software = f"Python {platform.python_version()}, {node.found().partition(' (')[0]}"
    return f"{cpu.model()}, {len(cpu.CORES)} cores, load average {os.getloadavg()[0]:.1f}; {software}"


def text(result: Result) -> str:
    lines = [f"{result.title}: {body_bytes(result.sides[0].workload):,} bytes on the wire, {len(result.closed[0])} rounds"]
    lines.append(f"  {'':34}{'CPU us/request':>24}{'requests/s':>12}{'CPU: first / this':>22}")
    for place, side in enumerate(result.sides):
        compared = "" if place == 0 else _ratio(ratios(result.cpu_us(0), result.cpu_us(place)))
        cpu_us, rate = _range(spread(result.cpu_us(place))), spread(result.rates(place)).median
        lines.append(f"  {side.label:34}{cpu_us:>24}{rate:>12,.0f}{compared:>22}")
    lines += _latency_lines(result)
    lines.append(f"  other processes on the server's core: {_strangers(result):.0%} of the time in the worst round")
    return "\n".join(lines) + "\n"


def markdown(results: Sequence[Result]) -> str:
    """Return the tables in markdown, one row per measurement and peer. At a ratio below 1 Switchyard needs less CPU."""
    rows = ["| workload | compared with | CPU µs per request: Switchyard, peer | CPU ratio: median (range) "
            "| requests/s: Switchyard, peer |",
            "|---|---|---|---|---|"]  # fmt: skip
    for result in results:
        for place, side in enumerate(result.sides[1:], 1):
            cpu_us = [f"{spread(result.cpu_us(which)).median:,.0f}" for which in (0, place)]
            rates = [f"{spread(result.rates(which)).median:,.0f}" for which in (0, place)]
            ratio = _ratio(ratios(result.cpu_us(0), result.cpu_us(place)))
            rows.append(f"| {result.title} | {side.label} | {', '.join(cpu_us)} | {ratio} | {', '.join(rates)} |")
    measured = [result for result in results if result.open]
    if measured:
        rows += ["", "| open loop | server | p50 ms | p99 ms | CPU µs per request |", "|---|---|---|---|---|"]
    for result in measured:
        for place, side in enumerate(result.sides):
            p50, p99 = (spread(result.latencies_ms(place, percent)).median for percent in (50, 99))
            cpu_us = spread([window.cpu_us for window in result.open[place]]).median
            rows.append(f"| {result.title}, {result.open_rate:,.0f} per second | {side.label} | {p50:.1f} | {p99:.1f} | {cpu_us:,.0f} |")
    return "\n".join(rows)


def _latency_lines(result: Result) -> list[str]:
    if not result.open:
        return []
    lines = [f"  at {result.open_rate:,.0f} requests/s (open loop)         {'p50 ms':>20}{'p99 ms':>20}{'CPU us/request':>22}"]
    for place, side in enumerate(result.sides):
        p50, p99 = (spread(result.latencies_ms(place, percent)) for percent in (50, 99))
        cpu_us = spread([window.cpu_us for window in result.open[place]])
        lines.append(f"  {side.label:34}{_range(p50, 1):>24}{_range(p99, 1):>20}{_range(cpu_us):>22}")
    return lines


def _strangers(result: Result) -> float:
    return max(window.strangers for windows in (*result.closed, *result.open) for window in windows)


def _range(values: Spread, digits: int = 0) -> str:
    return f"{values.median:,.{digits}f} ({values.low:,.{digits}f}–{values.high:,.{digits}f})"


def _ratio(values: Spread) -> str:
    return f"{values.median:.2f} ({values.low:.2f}–{values.high:.2f})"
