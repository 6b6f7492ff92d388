"""What is not in the catalogue cannot be counted, and what is in it is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge

from app.metrics import CATALOGUE, ByLabel, Metrics

APP = Path(__file__).parents[2] / "app"
CODE = "".join(path.read_text() for path in APP.rglob("*.py") if path != APP / "metrics" / "catalogue.py")


def test_an_undocumented_metric_is_refused():
    with pytest.raises(AttributeError):
        Metrics().something_else.inc()


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_metric_of_the_catalogue_is_counted_somewhere(name):
    assert re.search(rf"metrics\.{name}\b", CODE), f"no code counts {name}"


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_metric_says_what_it_counts(name):
    row = CATALOGUE[name]
    assert row.help.endswith(".")
    assert name.endswith("_total") == (row.kind is Counter)
    assert row.merge.startswith("live"), "the last word of a dead worker must not count"


def test_a_metric_kept_by_its_label_counts_as_the_metric_does():
    metrics = Metrics()
    writes = ByLabel(metrics.telemetry_writes_total)
    writes["mongo"].inc()
    writes["mongo"].inc()
    metrics.telemetry_writes_total.labels("mongo").inc()
    assert b'telemetry_writes_total{rung="mongo"} 3.0' in metrics.render()


def test_two_applications_in_one_process_count_apart():
    first, second = Metrics(), Metrics()
    first.http_rate_limited_total.inc()
    assert b"http_rate_limited_total 1.0" in first.render()
    assert b"http_rate_limited_total 0.0" in second.render()


WORKER = """
import sys
from app.metrics import Metrics
metrics = Metrics()
metrics.http_rate_limited_total.inc(2)
metrics.realtime_connections.set(3)
metrics.dependency_up.labels("mongo").set(int(sys.argv[1]))
if sys.argv[2] == "render":
    sys.stdout.buffer.write(metrics.render())
"""


def test_several_processes_are_added_up_and_a_dead_one_leaves_its_counters_only(tmp_path, monkeypatch):
    def worker(is_up, what="leave"):
        run = [sys.executable, "-c", WORKER, str(is_up), what]
        process = subprocess.Popen(run, stdout=subprocess.PIPE, text=True, cwd=APP.parent)
        return process.pid, process.communicate()[0]

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    dead, _ = worker(0)
    _, text = worker(1, "render")
    assert "http_rate_limited_total 4.0" in text and "realtime_connections 6.0" in text and 'dependency_up{dependency="mongo"} 0.0' in text

    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(dead, str(tmp_path))
    _, text = worker(1, "render")
    assert "http_rate_limited_total 6.0" in text and "realtime_connections 6.0" in text and 'dependency_up{dependency="mongo"} 1.0' in text


def test_a_gauge_of_the_catalogue_knows_how_workers_merge():
    assert {row.merge for row in CATALOGUE.values() if row.kind is Gauge} <= {"livesum", "livemax", "livemin", "liveall"}
