"""Measures live topics beside plain socket.io in Node.

    make bench-realtime                            all shapes
    make bench-realtime ARGS=--quick               the most important ones, about two minutes
    make bench-realtime ARGS="open-500 idle"       the named ones

Each server has a core of its own, the load generator the other ones; the servers alternate, round after round. Subscribers of
Switchyard acknowledge as the project's JavaScript client does; the peers take no acknowledgements.
"""

import argparse
import sys
from contextlib import ExitStack

from bench import cpu, report
from bench.realtime import extra, results
from bench.realtime.rounds import Pace, measure
from bench.realtime.servers import all_servers
from bench.realtime.shapes import QUICK, SHAPES
from tests.servers.real import Unavailable


def main() -> int:
    options = _options()
    pace = Pace(rounds=3, seconds=2.0, warm_up_s=1.5) if options.quick else Pace(options.rounds, options.seconds)
    names = options.shapes or (QUICK if options.quick else (*SHAPES, *extra.MEASUREMENTS))
    print(report.machine(), end="\n\n", flush=True)
    with ExitStack() as stack, cpu.pinned(cpu.OTHER_CORES):
        servers = [stack.enter_context(server) for server in all_servers()[: 1 if options.alone else None]]
        shapes = [SHAPES[name] for name in names if name in SHAPES]
        print("\n".join(results.HEADER), flush=True)
        for shape in shapes:
            print("\n".join(results.rows(measure(shape, servers, pace, options.ack))), flush=True)
    for name in names:
        if name in extra.MEASUREMENTS:
            print(flush=True)
            for line in extra.MEASUREMENTS[name](all_servers()[: 1 if options.alone else None]):
                print(line, flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.realtime", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = (*SHAPES, *extra.MEASUREMENTS)
    parser.add_argument("shapes", nargs="*", metavar="shape", help=f"some of: {', '.join(every)}")
    parser.add_argument("--quick", action="store_true", help="three short rounds of the most important shapes")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each server in each round, default 5")
    default = "when subscribers acknowledge; default: as the project's client"
    parser.add_argument("--ack", type=int, nargs=2, metavar=("MESSAGES", "MS"), help=default)
    options = parser.parse_args()
    unknown = set(options.shapes) - set(every)
    if unknown:
        parser.error(f"no such shape: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unavailable as error:
        sys.exit(str(error))
