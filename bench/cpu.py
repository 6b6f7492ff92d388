"""CPU time of a server with all its processes, and the core it runs on. Linux only: it reads /proc.

The server has a core of its own; the load, the database and this program use the others. So the server never waits for a core.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = CORES[-1]
OTHER_CORES = set(CORES[:-1]) or {SERVER_CORE}
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Run the processes that the block starts on these cores; a new process inherits them from its parent."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def consumed_s(root: int) -> float:
    """Return the CPU seconds, user and system, of a process and all its descendants, including ended ones."""
    seconds = 0.0
    for pid, stat in _tree(root).items():
        with suppress(OSError):  # the process has ended, and its parent has its time
            seconds += time.clock_gettime(_clock_of(pid))
            seconds += sum(int(ticks) for ticks in stat[13:15]) / TICKS_A_SECOND  # cutime and cstime, the time of ended children
    return seconds


def busy_s(core: int = SERVER_CORE) -> float:
    """Return the seconds in which a core was busy since the machine started."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / TICKS_A_SECOND
    raise LookupError(f"there is no core {core}")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    return [child for child, stat in _all().items() if int(stat[1]) == pid]


def model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "an unknown CPU")


def _clock_of(pid: int) -> int:
    """Return the kernel's CPU clock of a process, by the formula of clock_getcpuclockid(3). It counts nanoseconds, /proc only
    hundredths of a second."""
    return ~pid << 3 | 2


def _tree(root: int) -> dict[int, list[str]]:
    every = _all()
    tree, wanted = {}, [root]
    while wanted:
        pid = wanted.pop()
        if pid in every:
            tree[pid] = every[pid]
            wanted += [child for child, stat in every.items() if int(stat[1]) == pid]
    return tree


def _all() -> dict[int, list[str]]:
    """Return the fields of each /proc/PID/stat from the third on, so that index 1 is the parent. The second, a name, may have spaces."""
    stats = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stats[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
    return stats
