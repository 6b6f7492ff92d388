"""MongoDB: the server at MONGO_TEST_URI, else the machine's mongod, else the compatible server that the script `mongod` builds."""

import os
import pathlib
import shutil
import uuid
from urllib.parse import quote_plus, urlsplit

import pymongo
from pymongo.errors import PyMongoError

from tests.servers import commands
from tests.servers.server import Server

COMPATIBLE = pathlib.Path(__file__).with_name("mongod")
# Characters with a meaning in a URI, so that code that forgets to quote them fails.
LOGIN = ("switch@yard", "pass/word:1")


def executable():
    """Return the path of a mongod. The first use of the compatible one downloads and builds it in up to two minutes."""
    on_path = shutil.which("mongod")
    if on_path:
        return on_path
    commands.run(COMPATIBLE, "--install", timeout_s=1200)
    return str(COMPATIBLE)


def found():
    if os.environ.get("MONGO_TEST_URI"):
        return f"server at MONGO_TEST_URI ({urlsplit(os.environ['MONGO_TEST_URI']).hostname})"
    program = shutil.which("mongod") or COMPATIBLE
    return f"{commands.run(program, '--version', timeout_s=10).splitlines()[0]} ({program})"


class Databases:
    """Addresses of new databases on a MongoDB, either started by the tests or named in MONGO_TEST_URI."""

    uri: str

    def uri_of(self, database):
        return urlsplit(self.uri)._replace(path=f"/{database}").geturl()

    def new_database(self):
        """Return the URI of a database that does not exist yet."""
        return self.uri_of(f"test_{uuid.uuid4().hex[:12]}")

    def client(self, **options):
        return pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=5000, **options)


class ExternalMongo(Databases):
    """The server at MONGO_TEST_URI. The tests use it and never stop it."""

    def __init__(self, uri):
        self.uri = uri

    def start(self):
        return self

    def close(self):
        pass


class MongoServer(Databases, Server):
    """A mongod that the tests start. After `require_login` it accepts only `login` (user, password)."""

    name = "mongo"

    def __init__(self):
        self.executable = executable()
        self.login = None
        super().__init__()

    def command(self):
        flags = ["--auth"] if self.login else []
        return [self.executable, "--port", self.port, "--bind_ip", "127.0.0.1", "--dbpath", self.folder, *flags]

    @property
    def uri(self):
        if self.login is None:
            return f"mongodb://127.0.0.1:{self.port}/"
        return self.uri_as(*self.login)

    def uri_as(self, user, password):
        return f"mongodb://{quote_plus(user)}:{quote_plus(password)}@127.0.0.1:{self.port}/?authSource=admin"

    def require_login(self, login=LOGIN):
        """Create the first user while the server needs no login, then restart it with `--auth`."""
        with self.client() as client:
            client.admin.command("createUser", login[0], pwd=login[1], roles=["root"])
        self.stop()
        self.login = login
        return self.start()

    def answers(self):
        try:
            with pymongo.MongoClient(port=self.port, serverSelectionTimeoutMS=500) as client:
                return client.admin.command("ping")["ok"] == 1  # MongoDB answers a ping without a login, too
        except PyMongoError:
            return False

    def kill(self):
        """Send SIGKILL to the process mongod only. The compatible server has a second process, PostgreSQL, which then ends by itself.
        Killing both at once would leave PostgreSQL's workers running, and the next start would find the data in use."""
        if self.is_running:
            self.process.kill()
            self._wait(10)


def shared_server():
    """Return the server that the tests share; each test uses databases of its own."""
    uri = os.environ.get("MONGO_TEST_URI")
    return ExternalMongo(uri) if uri else MongoServer()
