"""A bad network: Toxiproxy forwards to a server and delays, stalls, cuts or resets the connections.

Only a proxy can lose the *answer* to a write that was done, and such lost answers cause duplicated and lost events.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile

import requests

from tests.servers import commands
from tests.servers.cache import cached, made
from tests.servers.ports import free_port
from tests.servers.server import Server

VERSION = "v2.12.0"
PACKAGE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"
CACHE_NAME = f"toxiproxy-{VERSION}"


def executable():
    """Return the path of the program. The first use builds it from its Go source, in about 30 s."""
    return made(CACHE_NAME, _build) / "toxiproxy"


def found():
    if not cached(CACHE_NAME).exists():
        return f"{VERSION} (built on first use with {_go()})"
    return f"{VERSION} ({executable()})"


def _go():
    return commands.on_path("go", otherwise="there is no `go` to build Toxiproxy with: install Go 1.23 or newer")


def _build(folder):
    go = _go()
    scratch = tempfile.mkdtemp(prefix="switchyard-go-")
    # The build leaves 250 MB of Go files that are not needed again. The home folder is not used, because it may not exist.
    scratch_environment = {
        "GOPATH": f"{scratch}/path", "GOCACHE": f"{scratch}/cache", "GOBIN": str(folder), "GOFLAGS": "-modcacherw", "CGO_ENABLED": "0",
    }  # fmt: skip
    try:
        commands.run(go, "install", PACKAGE, env={**os.environ, **scratch_environment})
        (pathlib.Path(folder) / "server").rename(pathlib.Path(folder) / "toxiproxy")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class Toxiproxy(Server):
    name = "toxiproxy"

    def __init__(self):
        self.executable = executable()
        super().__init__()

    def command(self):
        return [self.executable, "-host", "127.0.0.1", "-port", self.port]

    def proxy_to(self, port):
        """Return a new Proxy to 127.0.0.1:`port`, open and without toxics."""
        return Proxy(self, port)

    def request(self, method, path, body=None):
        answer = requests.request(method, f"http://127.0.0.1:{self.port}{path}", json=body, timeout=5)
        assert answer.ok, f"Toxiproxy answered {answer.status_code} to {method} {path}: {answer.text}"
        return answer


class Proxy:
    """One proxy to one server. Connect to `port` (or `address`) instead of the server."""

    def __init__(self, toxiproxy, upstream_port):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._request = toxiproxy.request
        self._path = f"/proxies/{self.port}"
        self._request("POST", "/proxies", {"name": str(self.port), "listen": self.address, "upstream": f"127.0.0.1:{upstream_port}"})

    def add(self, kind, stream="downstream", **attributes):
        """Add a toxic to the answers of the server (downstream) or to the requests (upstream). The kinds and attributes are:

        latency (latency, jitter: ms); timeout (timeout: ms until it closes, 0 never; nothing passes until then);
        reset_peer (timeout: ms until the TCP reset); limit_data (bytes, then it closes); slow_close (delay: ms);
        bandwidth (rate: kB/s).
        """
        toxic = {"name": f"{kind}-{stream}", "type": kind, "stream": stream, "attributes": attributes}
        self._request("POST", f"{self._path}/toxics", toxic)

    def remove(self, kind, stream="downstream"):
        self._request("DELETE", f"{self._path}/toxics/{kind}-{stream}")

    @contextlib.contextmanager
    def toxic(self, kind, stream="downstream", **attributes):
        self.add(kind, stream, **attributes)
        try:
            yield
        finally:
            self.remove(kind, stream)

    def disable(self):
        """Close every connection and refuse new ones, like a server that is down."""
        self._request("POST", self._path, {"enabled": False})

    def enable(self):
        self._request("POST", self._path, {"enabled": True})

    def delete(self):
        self._request("DELETE", self._path)
