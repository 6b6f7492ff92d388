"""Measurements that are more than one loop: overload that ends, idle connections and connecting, ten thousand connections."""

from collections.abc import Callable, Iterator

from bench import cpu
from bench.pinned import PinnedServer
from bench.realtime.rounds import generator_for, run
from bench.realtime.shapes import PAYLOAD_BYTES

OVERLOADED = 500  # subscribers
CALIBRATION_RATE = 20  # messages per second, from whose cost the capacity is estimated
IDLE = 5000
SETTLE_S = 3


def overload(servers: list[PinnedServer]) -> Iterator[str]:
    """Twice the load that the cost at a low rate allows, then none: cost per delivery and the time until all have all messages."""
    yield (
        f"| {OVERLOADED} subscribers, one topic | messages/s | CPU µs per delivery | against half load "
        "| all delivered after s | missed, errors, lost |"
    )
    yield "|---|---|---|---|---|---|"
    for server in servers:
        with server, generator_for(server) as generator:
            generator.connect(OVERLOADED)
            generator.do("subscribe", 1, 1)
            run(server, generator, "open", CALIBRATION_RATE, 3, PAYLOAD_BYTES)
            capacity = 1e6 / run(server, generator, "open", CALIBRATION_RATE, 3, PAYLOAD_BYTES).cpu_us / OVERLOADED
            half = run(server, generator, "open", capacity / 2, 5, PAYLOAD_BYTES)
            twice = run(server, generator, "open", capacity * 2, 5, PAYLOAD_BYTES)
            for name, loop, rate in (("half load", half, capacity / 2), ("twice the load", twice, capacity * 2)):
                counted, ratio = loop.counted, loop.cpu_us / half.cpu_us
                trouble = f"{counted['missed']}, {counted['errors']}, {counted['lost']}"
                yield f"| {server.label}, {name} | {rate:,.0f} | {loop.cpu_us:.2f} | {ratio:.2f} | {counted['drain_s']:.2f} | {trouble} |"


def idle(servers: list[PinnedServer]) -> Iterator[str]:
    """Return CPU per connect and resident memory per connection, joined and subscribed."""
    yield f"| {IDLE:,} connections | CPU ms per connect | kB joined | kB subscribed |"
    yield "|---|---|---|---|"
    for server in servers:
        with server:
            with generator_for(server) as warm_up:  # code, caches and arenas that later connections share
                warm_up.connect(500)
                warm_up.do("subscribe", 1, 1)
            with generator_for(server) as generator:
                generator_before = resident(server)
                connect_s = _connect(server, generator, IDLE)
                generator.do("idle", SETTLE_S)
                joined = resident(server)
                generator.do("subscribe", 1, 1)
                generator.do("idle", SETTLE_S)
                kilobytes = [(now - generator_before) / IDLE / 1024 for now in (joined, resident(server))]
            yield f"| {server.label} | {connect_s / IDLE * 1e3:.2f} | {kilobytes[0]:.1f} | {kilobytes[1]:.1f} |"


def ten_thousand(servers: list[PinnedServer]) -> Iterator[str]:
    """Connect 10,000 subscribers, broadcast once to each, and stay for a minute."""
    yield "| 10,000 connections for a minute | connect s | lost | broadcast: delivered, p99 ms | pings answered | RSS MB | CPU |"
    yield "|---|---|---|---|---|---|---|"
    for server in servers:
        with server, generator_for(server) as generator:
            connected = generator.connect(10_000)
            generator.do("subscribe", 1, 1)
            once = run(server, generator, "open", 1, 1, PAYLOAD_BYTES).counted
            minute = run(server, generator, "idle", 60)
            cells = [f"{connected['seconds']:.1f}", minute.counted["lost"], f"{once['deliveries']:,}, {once['p99_ms']:.0f}"]
            cells += [minute.counted["pings"], f"{resident(server) / 1e6:.0f}", f"{minute.cpu_s / 60:.0%}"]
            yield f"| {server.label} | {' | '.join(map(str, cells))} |"


MEASUREMENTS: dict[str, Callable[[list[PinnedServer]], Iterator[str]]] = {"overload": overload, "idle": idle, "ten-thousand": ten_thousand}


def resident(server: PinnedServer) -> int:
    """Return the resident bytes of the process that serves: the worker where there is one, else the server itself."""
    return max(cpu.resident_bytes(pid) for pid in (server.process.pid, *cpu.children(server.process.pid)))


def _connect(server: PinnedServer, generator, count: int) -> float:
    before = cpu.consumed_s(server.process.pid)
    generator.connect(count)
    return cpu.consumed_s(server.process.pid) - before
