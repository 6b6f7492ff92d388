"""A DATA_DIR whose file system offers no locks, as some of NFS and FUSE: the start says so, and nothing is promised there."""

import time

import pytest
import requests

from tests.apps import SECRET, WRITE_KEY, bearer, error_of
from tests.servers.switchyard import REPOSITORY

ADMIN = bearer("root", "admin")
BATCH = {"app": "web", "events": [{"type": "page", "name": "/"}]}
SITECUSTOMIZE = """
import errno, fcntl, os

def flock(fd, kind, real=fcntl.flock):
    if os.path.exists({switch!r}):
        raise OSError(errno.{code}, os.strerror(errno.{code}))
    return real(fd, kind)

fcntl.flock = flock
"""


class Locks:
    """`gone()` takes them away from every process of the environment, `back()` returns them."""

    def __init__(self, folder, code):
        self.switch = folder / "no locks"
        self.folder = folder
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(switch=str(self.switch), code=code))

    def gone(self):
        self.switch.touch()

    def back(self):
        self.switch.unlink()

    def environment(self):
        return {"PYTHONPATH": f"{self.folder}:{REPOSITORY}"}


def healthy(app):
    time.sleep(1)  # answers of /healthz are kept for a second
    ready = requests.get(f"{app.url}/readyz", timeout=5).status_code
    body = requests.get(f"{app.url}/healthz", headers=ADMIN, timeout=5).json()
    return ready, (body.get("dependencies") or body["error"].get("dependencies"))["spool"]


def refused_everywhere(app):
    """Every door that stores in DATA_DIR: a 503 each."""
    answers = [
        requests.post(f"{app.url}/api/telemetry/batch", json=BATCH, headers={"X-Write-Key": WRITE_KEY}, timeout=10),
        requests.post(f"{app.url}/api/flags", json={"key": "f", "enabled": True}, headers=ADMIN, timeout=10),
        requests.put(f"{app.url}/api/telemetry/config/web", json={"sampleRate": 0.5}, headers=ADMIN, timeout=10),
    ]
    return [(answer.status_code, error_of(answer)["code"]) for answer in answers]


@pytest.mark.parametrize(("by", "code"), [("gunicorn", "ENOLCK"), ("flask", "EOPNOTSUPP")])
def test_a_start_without_locks_says_so_is_not_ready_and_answers_503(switchyard, tmp_path, by, code):
    locks = Locks(tmp_path, code)
    locks.gone()
    app = switchyard(by, JWT_SECRET=SECRET, WRITE_KEYS=f"web:{WRITE_KEY}", **locks.environment())
    assert "data_dir_has_no_locks" in app.log
    ready, spool = healthy(app)
    assert ready == 503 and spool["state"] == "down" and "no locks (flock)" in spool["error"]
    assert refused_everywhere(app) == [(503, "storage_full"), (503, "unavailable"), (503, "unavailable")]
    assert "Traceback" not in app.log
    locks.back()
    assert healthy(app)[0] == 200
    assert requests.post(f"{app.url}/api/telemetry/batch", json=BATCH, headers={"X-Write-Key": WRITE_KEY}, timeout=10).ok


def test_locks_that_go_away_under_a_running_server_stop_writes_and_not_the_server(switchyard, tmp_path):
    locks = Locks(tmp_path, "ENOLCK")
    settings = {"WRITE_KEYS": f"web:{WRITE_KEY}", "SPOOL_SEGMENT_BYTES": 1024, "TELEMETRY_TTL_DAYS": 1}
    app = switchyard(JWT_SECRET=SECRET, **settings, **locks.environment())
    locks.gone()
    batch = {"app": "web", "events": [{"type": "page", "name": "/" * 200}] * 10}
    answers = [
        requests.post(f"{app.url}/api/telemetry/batch", json=batch, headers={"X-Write-Key": WRITE_KEY}, timeout=10) for _ in range(3)
    ]
    assert {answer.status_code for answer in answers} == {503}, "each batch begins a segment of its own"
    ready, spool = healthy(app)
    assert ready == 503 and "no locks (flock)" in spool["error"]
    assert requests.get(f"{app.url}/api/flags", headers=ADMIN, timeout=5).ok, "what is only read goes on"
    verified = app.flask("telemetry", "spool", "verify")
    assert "Traceback" not in verified.stderr, verified.stderr
    locks.back()
    assert healthy(app)[0] == 200
    assert app.is_running and "background_task_died" not in app.log
