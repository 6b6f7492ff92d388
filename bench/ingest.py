"""Measures the cost of ingest, beside the same API in Node.

    make bench-ingest                       all measurements, about eight minutes
    make bench-ingest ARGS=--quick          the three most important ones, a minute and a half
    make bench-ingest ARGS="batch gzip"     the named ones

The servers alternate, round after round, on a core of their own; the load and MongoDB use the other cores. Each server is warmed
up first. At the end the command counts the stored events, and exits with 1 if an event that was answered as saved is missing.
"""

import argparse
import sys
import time
from contextlib import ExitStack
from typing import NamedTuple

from bench import contestants, cpu, report
from bench.contestants import Database, Ours, Pinned
from bench.rounds import Pace, Result, Side, measure
from bench.workloads import Workload
from tests.servers import mongo

DRAIN_WITHIN_S = 60


class Measurement(NamedTuple):
    """One row of the tables. `field` names the servers: "mongo", "files", or "alone", which compares Switchyard with itself on
    good events only. `has_latency` adds an open loop."""

    title: str
    field: str
    workload: Workload
    connections: int
    has_latency: bool = False


MEASUREMENTS = {
    "batch": Measurement("50 events per request", "mongo", Workload(50), 16, has_latency=True),
    "single": Measurement("1 event per request", "mongo", Workload(1), 16, has_latency=True),
    "thousand": Measurement("1000 events per request", "mongo", Workload(1000), 4),
    "gzip": Measurement("50 events per request, gzip", "mongo", Workload(50, gzip=True), 16),
    "bad": Measurement("1 bad event among 50", "alone", Workload(50, bad=1), 16),
    "files-1": Measurement("50 events per request into files, 1 connection", "files", Workload(50), 1),
    "files-16": Measurement("50 events per request into files, 16 connections", "files", Workload(50), 16),
}
QUICK = ("batch", "single", "files-16")


def main() -> int:
    options = _options()
    pace = Pace(rounds=2, seconds=1.5) if options.quick else Pace(options.rounds, options.seconds)
    names = options.measurements or (QUICK if options.quick else MEASUREMENTS)
    wanted = [MEASUREMENTS[name] for name in names]
    print(report.machine(), end="\n\n", flush=True)
    results = []
    with ExitStack() as stack, cpu.pinned(cpu.OTHER_CORES):
        servers = _start(stack, {measurement.field for measurement in wanted})
        for measurement in wanted:
            results.append(_measure(measurement, servers, pace, has_latency=measurement.has_latency and not options.quick))
            print(report.text(results[-1]), flush=True)
        verdicts = [_check(server) for field in servers.values() for server in field]
    print(f"\n{report.markdown(results)}")
    return 0 if all(verdicts) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.ingest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", nargs="*", metavar="measurement", help=f"some of: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="two short rounds of the three most important measurements, no open loop")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each side in each round, default 3")
    options = parser.parse_args()
    unknown = set(options.measurements) - MEASUREMENTS.keys()
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    return options


def _start(stack: ExitStack, fields: set[str]) -> dict[str, list[Pinned]]:
    """Start the servers of all measurements and return them by field, Switchyard first. Each is idle while another is measured."""
    servers: dict[str, list[Pinned]] = {}
    if fields & {"mongo", "alone"}:
        mongod = stack.enter_context(mongo.shared_server())
        makers = (Ours, contestants.mongoose, contestants.fastify) if "mongo" in fields else (Ours,)
        servers["mongo"] = [make(Database(mongod)) for make in makers]
    if "files" in fields:
        servers["files"] = [Ours(), contestants.express_with_files()]
    for field in servers.values():
        for server in field:
            stack.enter_context(server)
    return servers


def _measure(measurement: Measurement, servers: dict[str, list[Pinned]], pace: Pace, *, has_latency: bool) -> Result:
    workload = measurement.workload
    if measurement.field == "alone":
        ours = servers["mongo"][0]
        sides = [Side(measurement.title, ours, workload), Side("good events only", ours, Workload(workload.events))]
    else:
        sides = [Side(server.label, server, workload) for server in servers[measurement.field]]
    return measure(measurement.title, sides, measurement.connections, pace, has_latency=has_latency)


def _check(server: Pinned) -> bool:
    """Return whether every event that was answered as saved is stored. Events of the spool get some time to reach MongoDB."""
    deadline = time.monotonic() + (DRAIN_WITHIN_S if server.spooled else 0)
    while (stored := server.stored()) != server.saved and time.monotonic() < deadline:
        time.sleep(0.5)
    by_spool = f", {server.spooled} answers from the spool" if server.database and server.spooled else ""
    is_right = stored == server.saved
    print(f"{server.label}: {server.saved:,} saved, {stored:,} stored{by_spool}{'' if is_right else ': NOT THE SAME'}")
    return is_right


if __name__ == "__main__":
    sys.exit(main())
