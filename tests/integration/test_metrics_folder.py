"""The folder of the workers' counters goes away, is damaged or is shared: /metrics answers, and workers start."""

import contextlib
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import requests

from tests.apps import SECRET
from tests.servers import ports
from tests.servers.switchyard import REPOSITORY, Switchyard
from tests.waiting import wait_until


def counted(app):
    """Answers of /livez that /metrics knows of."""
    answer = app.metrics()
    assert answer.status_code == 200
    return sum(float(value) for value in re.findall(r'^http_requests_total\{.*"/livez".*\} (\S+)$', answer.text, re.MULTILINE))


def replace_worker(app):
    (worker,) = app.workers
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: app.workers not in ([], [worker]) and app.answers())


def test_metrics_answer_and_workers_start_whatever_happens_to_the_folder(switchyard):
    app = switchyard(JWT_SECRET=SECRET, PROMETHEUS_MULTIPROC_DIR="counters")
    folder = app.folder / "counters"
    for _ in range(5):
        assert requests.get(f"{app.url}/livez", timeout=5).ok
    before = counted(app)

    shutil.rmtree(folder)
    assert counted(app) >= before >= 5, "what a living worker counted comes back"
    assert requests.get(f"{app.url}/livez", timeout=5).ok
    assert counted(app) >= before + 1

    next(folder.glob("counter_*.db")).unlink()
    (folder / "counter_999999.db").write_bytes(b"no counters")
    assert counted(app) >= before + 1, "a file that is gone, and one that is damaged"

    shutil.rmtree(folder)
    replace_worker(app)
    assert counted(app) >= 1

    shutil.rmtree(folder)
    folder.write_text("a file where the folder belongs")
    assert app.metrics().status_code == 200
    replace_worker(app)
    assert counted(app) >= 1
    assert "Traceback" not in app.log
    assert app.stop() < 5


class Upgradable(Switchyard):
    """By gunicorn's own command, which it can run again in its place."""

    def command(self):
        return [sys.executable, Path(sys.executable).parent / "gunicorn", "wsgi:app", "--config", REPOSITORY / "gunicorn.conf.py"]


@pytest.mark.parametrize("folder", ["counters", ""], ids=["a folder that was given", "its own, after a SIGHUP"])
def test_an_upgrade_by_sigusr2_keeps_the_counters_of_both_masters_until_each_ends(folder):
    given = {"PROMETHEUS_MULTIPROC_DIR": folder} if folder else {}
    with Upgradable("gunicorn", JWT_SECRET=SECRET, **given) as app:
        group = app.process.pid
        if not folder:
            old = app.workers
            app.process.send_signal(signal.SIGHUP)
            wait_until(lambda: not set(app.workers) & set(old) and app.answers())
        (place,) = [app.folder / folder] if folder else app.folder.glob("switchyard-metrics-*")
        old = {path.name for path in place.glob("counter_*.db")}
        app.process.send_signal(signal.SIGUSR2)
        try:
            wait_until(lambda: app.log.count('"Starting gunicorn') == 2 and len(list(place.glob("counter_*.db"))) > len(old))
            assert old <= {path.name for path in place.glob("counter_*.db")}, "the new master left the old one's files"
            new = int(re.findall(r"Listening at: \S+ \((\d+)\)", app.log)[-1])
            assert app.stop() < 5
            files = {path.name for path in place.glob("counter_*.db")}
            assert files and not files & old, "the old master removed its own files and no others"
            assert requests.get(f"{app.url}/livez", timeout=5).ok and counted(app) >= 1
            os.kill(new, signal.SIGTERM)
            wait_until(lambda: not place.exists() and not ports.is_listening(app.port))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def test_counters_of_a_server_that_was_killed_are_forgotten_by_the_next(switchyard):
    app = switchyard(JWT_SECRET=SECRET, PROMETHEUS_MULTIPROC_DIR="counters")
    for _ in range(50):
        requests.get(f"{app.url}/livez", timeout=5)
    app.kill()
    app.start()
    assert counted(app) < 50


def test_a_temporary_folder_that_is_removed_as_a_whole_ends_no_server(switchyard, tmp_path):
    place = tmp_path / "tmp"
    place.mkdir()
    app = switchyard(JWT_SECRET=SECRET, TMPDIR=place)
    shutil.rmtree(place)
    assert counted(app) >= 1
    replace_worker(app)
    assert counted(app) >= 1
    app.process.send_signal(signal.SIGHUP)
    wait_until(lambda: app.log.count('"started"') == 3 and app.answers())
    assert "Traceback" not in app.log
