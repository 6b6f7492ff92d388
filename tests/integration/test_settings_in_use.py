"""What is wrong with settings stops a start and never a server that runs: that one keeps its last good ones and says so."""

import os
import signal
import subprocess
import sys
import time

import pytest
import requests

from tests.apps import SECRET, WRITE_KEY, bearer
from tests.servers.ports import free_port
from tests.servers.switchyard import REPOSITORY, Switchyard
from tests.waiting import wait_until

ADMIN = bearer("root", "admin")


class WithEnvFile(Switchyard):
    """Its settings stand in `.env`, but for those that say where it runs."""

    def __init__(self, by, **settings):
        super().__init__(by)
        self.lines = {"JWT_SECRET": SECRET, "WRITE_KEYS": f"web:{WRITE_KEY}", "DATA_DIR": self.data_dir, "PORT": self.port, **settings}
        self.write()

    def environment(self):
        return {name: value for name, value in super().environment().items() if name not in ("DATA_DIR", "PORT")}

    def write(self, **changes):
        text = "".join(f"{name}={value}\n" for name, value in {**self.lines, **changes}.items())
        (self.folder / ".env").write_text(text)

    def hup(self):
        """Returns when the old workers are gone."""
        before = self.workers
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.workers and not set(self.workers) & set(before))
        wait_until(self.answers)

    @property
    def settings_health(self):
        time.sleep(1)  # answers of /healthz are kept for a second
        return requests.get(f"{self.url}/healthz", headers=ADMIN, timeout=5).json()["dependencies"]["settings"]

    @property
    def sample_rate(self):
        return requests.get(f"{self.url}/api/telemetry/config?app=web&writeKey={WRITE_KEY}", timeout=5).json()["sampleRate"]


@pytest.fixture
def gunicorn():
    with WithEnvFile("gunicorn", TELEMETRY_SAMPLE_RATE="0.5") as app:
        yield app


def test_sighup_with_settings_that_a_start_would_refuse_keeps_the_last_good_ones(gunicorn):
    wrong = {
        "TELEMETRY_SAMPLE_RAT": {"TELEMETRY_SAMPLE_RAT": "0.9"},
        "DATA_DIR": {"DATA_DIR": "/dev/null/x"},
        "HOST": {"HOST": "127.0.0.1"},  # on the port that its own workers hold
    }
    for name, changes in wrong.items():
        gunicorn.write(**{"TELEMETRY_SAMPLE_RATE": "0.7"} | changes)
        gunicorn.hup()
        assert name in [line for line in gunicorn.log.splitlines() if '"settings_refused"' in line][-1]
        assert gunicorn.sample_rate == 0.5, name
    assert name in gunicorn.settings_health["error"] and gunicorn.settings_health["state"] == "degraded"
    assert gunicorn.log.count('"settings_refused"') >= len(wrong)
    assert "Traceback" not in gunicorn.log and gunicorn.is_running

    gunicorn.port = free_port()
    gunicorn.write(TELEMETRY_SAMPLE_RATE="0.7", PORT=gunicorn.port)
    gunicorn.hup()
    assert gunicorn.sample_rate == 0.7, "on the port that it changed to"
    assert gunicorn.settings_health["state"] == "up"


def test_a_worker_that_is_replaced_uses_the_settings_of_its_server_and_waits_where_it_cannot_start(gunicorn):
    (worker,) = gunicorn.workers
    gunicorn.write(TELEMETRY_SAMPLE_RAT="0.9", TELEMETRY_SAMPLE_RATE="0.7")
    assert gunicorn.settings_health["state"] == "degraded", "an error in .env is reported before anybody restarts"
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: gunicorn.workers not in ([], [worker]) and gunicorn.answers())
    assert gunicorn.sample_rate == 0.5
    assert "TELEMETRY_SAMPLE_RAT " in gunicorn.settings_health["error"]

    gunicorn.process.send_signal(signal.SIGTTIN)
    wait_until(lambda: "2 workers need REDIS_URL" in gunicorn.log)

    gunicorn.data_dir.rename(gunicorn.folder / "away")
    gunicorn.data_dir.write_text("a file where a folder belongs")
    os.kill(gunicorn.workers[0], signal.SIGKILL)
    wait_until(lambda: gunicorn.log.count("is not usable") >= 2)
    assert gunicorn.is_running
    gunicorn.data_dir.unlink()
    wait_until(gunicorn.answers)
    assert "Traceback" not in gunicorn.log


def become_a_folder(env_file):
    env_file.unlink()
    env_file.mkdir()


BROKEN_ENV_FILES = {
    "is not UTF-8": lambda env_file: env_file.write_bytes(b"# caf\xe9\n"),
    "has half a pair of quotes": lambda env_file: env_file.write_text('JWT_ISSUER="half\n'),
    "is a folder": become_a_folder,
}


def test_no_start_of_a_worker_reads_the_env_file(gunicorn):
    for what, break_it in BROKEN_ENV_FILES.items():
        break_it(gunicorn.folder / ".env")
        (killed,) = gunicorn.workers
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda killed=killed: gunicorn.workers not in ([], [killed]) and gunicorn.answers())
        gunicorn.hup()
        assert gunicorn.sample_rate == 0.5, what
        assert gunicorn.settings_health["state"] == "degraded", what
    assert gunicorn.log.count("Booting worker") == 1 + 2 * len(BROKEN_ENV_FILES), "no worker failed"


def test_flask_run_reports_an_error_in_the_env_file_and_goes_on():
    with WithEnvFile("flask") as app:
        app.write(RT_MAX_TOPIC="1")
        assert "RT_MAX_TOPIC " in app.settings_health["error"]
        app.write()
        assert app.settings_health["state"] == "up"


# Started in a way that would not serve.


class Started(Switchyard):
    """By gunicorn's own command line, in a folder that is not the code's and without the code on the path."""

    def __init__(self, *arguments):
        super().__init__("gunicorn", JWT_SECRET=SECRET)
        self.arguments = arguments

    def command(self):
        return [sys.executable, "-m", "gunicorn", "wsgi:app", *self.arguments]

    def environment(self):
        return {name: value for name, value in super().environment().items() if name not in ("PYTHONPATH", "FLASK_APP")}


CONFIG = ["--config", REPOSITORY / "gunicorn.conf.py"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([*CONFIG, "-k", "gevent"], "switchyard: the worker class gevent would run nothing in the background"),
        ([*CONFIG, "-k", "gthread", "--threads", "2"], "switchyard: the worker class gthread would run nothing in the background"),
        (["--pythonpath", REPOSITORY], "switchyard: gunicorn was started without Switchyard's configuration"),
        (["--chdir", REPOSITORY, "-k", "gevent"], "switchyard: gunicorn was started without Switchyard's configuration"),
    ],
)
def test_a_start_of_gunicorn_that_would_run_nothing_in_the_background_is_refused_with_a_sentence(arguments, sentence):
    app = Started(*arguments, "--bind", "127.0.0.1:0")
    try:
        command = [str(part) for part in app.command()]
        refused = subprocess.run(command, env=app.environment(), cwd=app.folder, capture_output=True, text=True, timeout=20)
    finally:
        app.close()
    assert refused.returncode != 0
    assert sentence in refused.stderr and "Traceback" not in refused.stderr
    assert not app.data_dir.exists(), "no secret of development was made"


def test_gunicorn_serves_from_another_folder_where_the_configuration_is_named():
    with Started(*CONFIG) as app:
        assert requests.get(f"{app.url}/readyz", timeout=5).ok
        assert '"background"' in app.log
