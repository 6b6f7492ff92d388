"""Runs a shape on every server, alternating round after round, and takes the CPU time of the server around each loop."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench import cpu
from bench.pinned import PinnedServer
from bench.realtime.generator import Generator, ack_habit
from bench.realtime.servers import SECRET
from bench.realtime.shapes import PAYLOAD_BYTES, Shape


class Pace(NamedTuple):
    """The number and length of the rounds. The warm-up is for Node's compiler."""

    rounds: int
    seconds: float
    warm_up_s: float = 3.0


@dataclass
class Loop:
    """What one loop cost: `counted` are the generator's figures, `cpu_s` the server's CPU time with all its processes."""

    cpu_s: float
    counted: dict[str, Any]

    @property
    def cpu_us(self) -> float:
        """Per delivery, or per publish where nobody subscribes."""
        return self.cpu_s / max(1, self.counted["deliveries"] or self.counted["answers"]) * 1e6

    @property
    def rate(self) -> float:
        return (self.counted["deliveries"] or self.counted["answers"]) / self.counted["seconds"]

    @property
    def own_share(self) -> float:
        return self.counted["own_cpu_s"] / self.counted["seconds"]

    @property
    def trouble(self) -> dict[str, int]:
        """Return the counts of what must not happen in a round."""
        return {name: self.counted[name] for name in ("missed", "repeats", "refused", "errors", "lost") if self.counted[name]}


@dataclass
class Result:
    """The loops of each server, in the order of the rounds."""

    shape: Shape
    labels: list[str]
    loops: list[list[Loop]] = field(default_factory=list)


def generator_for(server: PinnedServer, ack: tuple[int, int] | None = None) -> Generator:
    return Generator(server.port, SECRET, (ack or ack_habit()) if server.acknowledges else (0, 0))


def run(server: PinnedServer, generator: Generator, *command: object) -> Loop:
    before = cpu.consumed_s(server.process.pid)
    counted = generator.do(*command)
    return Loop(cpu.consumed_s(server.process.pid) - before, counted)


def measure(shape: Shape, servers: list[PinnedServer], pace: Pace, ack: tuple[int, int] | None = None) -> Result:
    result = Result(shape, [server.label for server in servers], [[] for _ in servers])
    with ExitStack() as stack:
        generators = [stack.enter_context(generator_for(server, ack)) for server in servers]
        for server, generator in zip(servers, generators, strict=True):
            generator.connect(shape.subscribers)
            generator.do("subscribe", shape.topics, shape.topics_each)
            run(server, generator, *_command(shape, pace.warm_up_s))
        for number in range(pace.rounds):
            for place in range(len(servers)):
                place = (place + number) % len(servers)
                result.loops[place].append(run(servers[place], generators[place], *_command(shape, pace.seconds)))
    return result


def _command(shape: Shape, seconds: float) -> tuple[object, ...]:
    return shape.kind, shape.load if shape.kind == "open" else int(shape.load), seconds, PAYLOAD_BYTES
