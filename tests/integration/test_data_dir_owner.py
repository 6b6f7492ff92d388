"""One DATA_DIR serves one store at a time: a second server with another one is refused, and coming back with another is not."""

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.apps import SECRET, WRITE_KEY
from tests.servers.switchyard import Switchyard

KEYS = {"JWT_SECRET": SECRET, "WRITE_KEYS": f"web:{WRITE_KEY}", "MONGO_TIMEOUT_MS": 100}
FILES, ONE, OTHER = {}, {"MONGO_URI": "mongodb://u:hunter2@127.0.0.1:1/one"}, {"MONGO_URI": "mongodb://127.0.0.1:1/other"}
SAME_AS_ONE = {"MONGO_URI": "mongodb://127.0.0.1:1/one?retryWrites=false"}


class On(Switchyard):
    """On the DATA_DIR of another one."""

    def __init__(self, by, data_dir, **settings):
        super().__init__(by, **KEYS, **settings)
        self.data_dir = data_dir


def refusal(by, data_dir, **settings):
    app = On(by, data_dir, **settings)
    try:
        command = [str(part) for part in app.command()]
        done = subprocess.run(command, env=app.environment(), cwd=app.folder, capture_output=True, text=True, timeout=60)
    finally:
        app.close()
    assert done.returncode != 0 and "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if "is in use by a server" in line]
    return sentence


def works(app):
    batch = {"app": "web", "events": [{"type": "page", "name": "/"}]}
    answer = requests.post(f"{app.url}/api/telemetry/batch", json=batch, headers={"X-Write-Key": WRITE_KEY}, timeout=10)
    return answer.ok and answer.json()["saved"] == 1


def test_a_second_server_with_another_store_is_refused_and_the_first_goes_on(switchyard):
    app = switchyard(**KEYS, **ONE)
    with ThreadPoolExecutor() as both:  # each is patient with an owner that may be ending
        refusals = [both.submit(refusal, by, app.data_dir, **settings) for by, settings in (("flask", FILES), ("gunicorn", OTHER))]
    for sentence in (refused.result() for refused in refusals):
        assert str(app.data_dir) in sentence and "127.0.0.1:1/one" in sentence and "hunter2" not in sentence
    with On("flask", app.data_dir, **SAME_AS_ONE) as second:
        assert works(second), "servers of one store share the folder, however its address is written"
    assert works(app)


def test_a_server_comes_back_with_another_store_even_right_after_a_kill(tmp_path):
    with On("gunicorn", tmp_path / "data") as embedded:
        assert "files in DATA_DIR" in refusal("flask", embedded.data_dir, **ONE)
        os.kill(embedded.process.pid, signal.SIGKILL)  # the master alone: its worker sees that within a second
        with On("gunicorn", embedded.data_dir, **ONE) as again:
            assert works(again)
            os.kill(again.process.pid, signal.SIGKILL)
            with On("flask", embedded.data_dir) as embedded_again:
                assert works(embedded_again)


def test_a_sighup_may_change_the_store(switchyard):
    app = switchyard(**KEYS)
    (app.folder / ".env").write_text(f"MONGO_URI={ONE['MONGO_URI']}\n")
    before = app.workers
    app.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while not (app.workers and not set(app.workers) & set(before) and app.answers()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert works(app)
    assert "127.0.0.1:1/one" in (app.data_dir / "owner").read_text()
    assert app.is_running and "Traceback" not in app.log
