"""The measured servers of live topics: Switchyard as deployed, and two of plain socket.io in Node."""

import os
import pathlib

from bench.pinned import PinnedServer
from tests.servers import node
from tests.servers.switchyard import Switchyard

PEERS = pathlib.Path(__file__).with_name("peers")
PACKAGES = ("socket.io@4.8.4",)
SECRET = "a secret of this measurement, long enough"  # noqa: S105
NEVER_REACHED = "1000000/second"  # a limit that is counted all the same
SETTINGS = {
    "APP_ENV": "production",
    "JWT_SECRET": SECRET,
    "LOG_LEVEL": "warning",
    "RATE_LIMIT_HTTP": NEVER_REACHED,
    "HTTP_CONNECTIONS_PER_ADDRESS": 0,
    "RT_CONNECTION_RATE": NEVER_REACHED,
    "RT_CONNECTION_BURST": 1_000_000,
    "RT_TOPIC_RATE": NEVER_REACHED,
    "RT_HANDSHAKE_RATE": NEVER_REACHED,
    "RT_HANDSHAKE_BURST": 1_000_000,
}


class Ours(PinnedServer, Switchyard):
    label = "Switchyard"
    acknowledges = True

    def __init__(self):
        super().__init__(**SETTINGS)

    def command(self):
        return [*super().command(), "--worker-connections", 12_000]  # beside 10,000 websockets a part is reserved for requests


class Peer(PinnedServer):
    """A program of peers/. It takes no acknowledgements."""

    name = "peer"
    acknowledges = False

    def __init__(self, label: str, script: str):
        self.label, self.script = label, script
        super().__init__()

    def command(self):
        return [node.executable(), PEERS / self.script]

    def environment(self):
        own = {"PATH": os.environ["PATH"], "HOME": self.folder, "NODE_ENV": "production", "PORT": self.port}
        return {name: str(value) for name, value in {**own, "NODE_PATH": node.packages(*PACKAGES)}.items()}


def all_servers() -> list[PinnedServer]:
    """Return the servers, not started, Switchyard first."""
    return [Ours(), Peer("plain Node", "plain.js"), Peer("merging Node", "merging.js")]
