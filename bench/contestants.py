"""The measured servers: Switchyard as deployed, and the peers in peers/.

Each is one process in production mode on the same core. Each writes into its own database of the same MongoDB, with the same
collection and indexes, or into its own files.
"""

import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterable
from contextlib import closing

from bench.pinned import PinnedServer
from bench.workloads import WRITE_KEY
from tests.servers import node
from tests.servers.cache import made
from tests.servers.switchyard import Switchyard

PEERS = pathlib.Path(__file__).with_name("peers")
SETTINGS = {
    "APP_ENV": "production",
    "WRITE_KEYS": f"web:{WRITE_KEY}",
    "JWT_SECRET": "bench-" * 8,
    "RATE_LIMIT_HTTP": "1000000/second",  # counted and never reached
    "MONGO_TIMEOUT_MS": 30_000,  # the timeout of the peers' driver
    "SPOOL_MAX_BYTES": 16_000_000_000,
}


class Database:
    """A new database with the indexes of Switchyard's migrations, so that MongoDB does the same work for every server."""

    def __init__(self, mongo):
        self._mongo = mongo
        self.uri = mongo.new_database()
        with closing(Switchyard(**SETTINGS, MONGO_URI=self.uri)) as switchyard:
            done = switchyard.flask("indexes", "migrate")
        assert done.returncode == 0, done.stderr

    def count(self) -> int:
        with self._mongo.client() as client:
            return client[self.uri.rpartition("/")[2]].telemetry_events.count_documents({})


class Pinned(PinnedServer):
    """A server that stores events. `saved` counts the events that it answered as saved; `stored()` counts the events in the
    database or the files; `spooled` counts the answers with `"storage": "spool"`."""

    saved = 0
    spooled = 0
    database: Database | None
    files: str  # a pattern within the server's folder

    def stored(self) -> int:
        return self.database.count() if self.database else _lines_in(self.folder.glob(self.files))


class Ours(Pinned, Switchyard):
    label = "Switchyard"
    files = "data/spool/*.jsonl"

    def __init__(self, database: Database | None = None):
        self.database = database
        super().__init__(**SETTINGS, **({"MONGO_URI": database.uri} if database else {}))


class Peer(Pinned):
    """A program of peers/, run by Node with the packages that package.json pins."""

    name = "peer"
    files = "events.jsonl"

    def __init__(self, label: str, script: str, database: Database | None = None):
        self.label, self.script, self.database = label, script, database
        super().__init__()

    def command(self):
        return [node.executable(), PEERS / self.script]

    def environment(self):
        store = {"MONGO_URI": self.database.uri} if self.database else {"FILE": self.folder / self.files}
        own = {"PATH": os.environ["PATH"], "HOME": self.folder, "NODE_ENV": "production", "NODE_PATH": _packages()}
        return {name: str(value) for name, value in {**own, **store, "PORT": self.port, "WRITE_KEY": WRITE_KEY}.items()}


def mongoose(database: Database) -> Peer:
    return Peer("Express + zod + Mongoose (lean)", "express_mongoose.js", database)


def fastify(database: Database) -> Peer:
    return Peer("Fastify + ajv + native driver", "fastify_native.js", database)


def express_with_files() -> Peer:
    return Peer("Express + zod + fsync", "express_files.js")


def _packages() -> pathlib.Path:
    """Return the node_modules of peers/, installed once for each version of its lock file."""
    state = hashlib.sha256((PEERS / "package-lock.json").read_bytes()).hexdigest()[:12]

    def install(folder):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PEERS / name, folder)
        node.npm(folder, "ci")

    return made(f"bench-peers-{state}", install) / "node_modules"


def _lines_in(paths: Iterable[pathlib.Path]) -> int:
    lines = 0
    for path in paths:
        with open(path, "rb") as file:
            lines += sum(chunk.count(b"\n") for chunk in iter(lambda file=file: file.read(1 << 20), b""))
    return lines
