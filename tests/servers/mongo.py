"""MongoDB: the server at MONGO_TEST_URI, else the machine's own mongod, else the compatible one beside this file."""

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
# Signs that mean something inside a URI, so that a part of the project that forgets to quote is found out.
LOGIN = ("switch@yard", "pass/word:1")


def executable():
    """A mongod; the compatible one is fetched and built on its first use, in up to two minutes."""
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
    """What a test needs of any MongoDB, its own or somebody's: addresses of databases that nobody else is using."""

    uri: str

    def uri_of(self, database):
        return urlsplit(self.uri)._replace(path=f"/{database}").geturl()

    def new_database(self):
        """The URI of a database that does not exist yet."""
        return self.uri_of(f"test_{uuid.uuid4().hex[:12]}")

    def client(self, **options):
        return pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=5000, **options)


class SomebodysMongo(Databases):
    """The server at MONGO_TEST_URI: it can be used and not be stopped."""

    def __init__(self, uri):
        self.uri = uri

    def start(self):
        return self

    def close(self):
        pass


class MongoServer(Databases, Server):
    """A mongod of the test's own. `login` (user, password) is asked for once `require_login` has made it."""

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
        """Make the first user while nobody is asked for one, then come back with the door closed."""
        with self.client() as client:
            client.admin.command("createUser", login[0], pwd=login[1], roles=["root"])
        self.stop()
        self.login = login
        return self.start()

    def answers(self):
        try:
            with pymongo.MongoClient(port=self.port, serverSelectionTimeoutMS=500) as client:
                return client.admin.command("ping")["ok"] == 1  # a ping is answered without a login too
        except PyMongoError:
            return False

    def kill(self):
        """SIGKILL to the one process called mongod. Of the compatible server's two halves the other notices and goes at
        once; killing both in one blow would leave its workers behind, and the next start would find the data in use."""
        if self.is_running:
            self.process.kill()
            self._wait(10)


def shared_server():
    """The server that tests share, each in databases of its own."""
    somebodys = os.environ.get("MONGO_TEST_URI")
    return SomebodysMongo(somebodys) if somebodys else MongoServer()
