"""Switchyard as a process, as it is deployed, for tests of signals, several workers and full disks."""

import os
import pathlib
import subprocess
import sys

import requests

from tests.servers.server import Server

REPOSITORY = pathlib.Path(__file__).parents[2]
COMMANDS = {
    "flask": ["-m", "flask", "run", "--port"],
    "gunicorn": ["-m", "gunicorn", "wsgi:app", "--config", REPOSITORY / "gunicorn.conf.py"],
}
METRICS_TOKEN = "the metrics token of the tests"


class Switchyard(Server):
    """A server started by "gunicorn" or "flask" (`by`). Its environment has the given settings and little else.

    It runs in a folder of its own and not in the repository, so that a developer's `.env` and `var/` have no effect.
    """

    name = "app"

    def __init__(self, by="gunicorn", **settings):
        self.by = by
        self.settings = settings
        super().__init__()
        self.data_dir = self.folder / "data"

    def command(self):
        port = [self.port] if self.by == "flask" else []  # gunicorn.conf.py reads PORT
        return [sys.executable, *COMMANDS[self.by], *port]

    def environment(self):
        own = {"PATH": os.environ["PATH"], "HOME": self.folder, "TMPDIR": self.folder, "DATA_DIR": self.data_dir, "PORT": self.port}
        # PYTHONPATH and FLASK_APP, because the process does not run in the folder of the code.
        own |= {"METRICS_TOKEN": METRICS_TOKEN, "PYTHONPATH": REPOSITORY, "FLASK_APP": REPOSITORY / "wsgi.py"}
        return {name: str(value) for name, value in {**own, **self.settings}.items()}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def metrics(self):
        """Request /metrics with the token of the tests."""
        return requests.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}, timeout=5)

    def answers(self):
        try:
            return requests.get(f"{self.url}/livez", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def flask(self, *arguments, timeout_s=60):
        """Run a command (`flask token …`) with the settings of this server, and return the finished process."""
        command = [sys.executable, "-m", "flask", *map(str, arguments)]
        options = {"env": self.environment(), "cwd": self.folder, "stdin": subprocess.DEVNULL}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, **options)
