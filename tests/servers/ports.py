"""Free ports that no other program takes while a test's server is down."""

import os
import random
import socket
import time

# Below the range of ephemeral ports: an outgoing connection of any program may take a port of that range before a test
# restarts its server on it.
CHOICES = range(20_000, 32_000)
MAX_TEST_PROCESSES = 8


def choices():
    """Return the ports of this process of a parallel run, so that no process takes the port of another one's stopped server."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % MAX_TEST_PROCESSES
    return CHOICES[number::MAX_TEST_PROCESSES]


def free_port():
    for port in random.sample(choices(), 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("100 ports were tried, and none was free")


def is_listening(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_closed(port, within_s=10):
    deadline = time.monotonic() + within_s
    while is_listening(port):
        assert time.monotonic() < deadline, f"port {port} was still open {within_s} s after its server was killed"
        time.sleep(0.01)
