"""Switchyard itself as a process, the way it is deployed: what a signal, a second worker or a full disk does to it."""

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
    """`by` is "gunicorn" or "flask"; the settings are the whole environment, beside what a process cannot be without.

    It runs in its own folder and not in the repository, so that a developer's `.env` and `var/` change nothing.
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
        # Where the code is; who starts it in the repository's folder needs neither.
        own |= {"METRICS_TOKEN": METRICS_TOKEN, "PYTHONPATH": REPOSITORY, "FLASK_APP": REPOSITORY / "wsgi.py"}
        return {name: str(value) for name, value in {**own, **self.settings}.items()}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def metrics(self):
        """The answer of /metrics to who may read it."""
        return requests.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}, timeout=5)

    def answers(self):
        try:
            return requests.get(f"{self.url}/livez", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def flask(self, *arguments, timeout_s=60):
        """A command of the app (`flask token …`) with the same settings, while it runs or not: the finished process."""
        command = [sys.executable, "-m", "flask", *map(str, arguments)]
        options = {"env": self.environment(), "cwd": self.folder, "stdin": subprocess.DEVNULL}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, **options)
