"""A measured server: it runs on a core of its own, where neither the load nor another server takes its time."""

from bench import cpu
from tests.servers.server import Server


class PinnedServer(Server):
    """`label` is the server's name in the tables."""

    label: str

    def start(self):
        with cpu.pinned({cpu.SERVER_CORE}):
            return super().start()
