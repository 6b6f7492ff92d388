"""Measures whether a worker's memory grows while it takes half a million events.

    .venv/bin/python -m bench.ingest_memory                  into MongoDB
    .venv/bin/python -m bench.ingest_memory --into files     into files, without MongoDB

Only the second half counts: in the first half Python's heap reaches its size, and the spool fills its table of known ids
(SPOOL_KNOWN_IDS).
"""

import argparse
import sys
from contextlib import ExitStack

from bench import cpu, load, report
from bench.contestants import Database, Ours
from bench.figures import slope
from bench.workloads import Workload
from tests.servers import mongo

EVENTS = 500_000
WORKLOAD = Workload(50)
CONNECTIONS = 16
STEPS = 20
FLAT_BELOW_BYTES = 4.0  # per event; a leak of even one reference per event is more


def main() -> int:
    options = _options()
    print(report.machine(), end="\n\n", flush=True)
    with ExitStack() as stack, cpu.pinned(cpu.OTHER_CORES):
        database = Database(stack.enter_context(mongo.shared_server())) if options.into == "mongo" else None
        server = stack.enter_context(Ours(database))
        series = _series(server, options.events)
    return _verdict(series)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.ingest_memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", choices=("mongo", "files"), default="mongo")
    parser.add_argument("--events", type=int, default=EVENTS)
    return parser.parse_args()


def _series(server: Ours, events: int) -> list[tuple[int, int]]:
    """Return (events so far, resident bytes) of each step."""
    (worker,) = cpu.children(server.process.pid)
    series = []
    for step in range(STEPS + 1):
        while server.saved < step * events / STEPS:
            load.closed_loop(server, WORKLOAD.requests(), connections=CONNECTIONS, seconds=0.25)
        series.append((server.saved, cpu.resident_bytes(worker)))
        print(f"{server.saved:>10,} events  {series[-1][1] / 1e6:7.1f} MB", flush=True)
    return series


def _verdict(series: list[tuple[int, int]]) -> int:
    settled = series[STEPS // 2 :]
    growth = slope([events for events, _ in settled], [resident for _, resident in settled])
    is_flat = growth < FLAT_BELOW_BYTES
    print(f"\n{'flat' if is_flat else 'NOT FLAT'}: {growth:+.2f} bytes an event in the second half")
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
