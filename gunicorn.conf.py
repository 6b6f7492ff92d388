"""gunicorn finds this file by itself: `gunicorn wsgi:app` is the whole command.

It runs in gunicorn's master, which stays unpatched and holds no connection: it only reads settings, and each worker
loads the application after the fork.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from app.logs import logging_config
from app.settings import load_settings, read_app_env, refuse_lonely_workers

os.environ["APP_ENV"] = read_app_env(default="production")
settings = load_settings()

bind = f"{settings.host}:{settings.port}" if ":" not in settings.host else f"[{settings.host}]:{settings.port}"
workers = settings.web_concurrency
worker_class = "app.serving.gunicorn_worker.Worker"
worker_connections = 10_000
backlog = 2048
timeout = 60 + settings.drain_timeout_ms // 1000  # a worker that is silent this long is stuck
graceful_timeout = settings.drain_timeout_ms // 1000 + 5  # the application drains first, gunicorn's own patience comes after
control_socket_disable = True  # it would be written under the home folder, which a service account may not have
logconfig_dict = logging_config(settings)

# One folder of counters for all workers, the same one after a reload (SIGHUP).
_metrics_dir = Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR") or tempfile.mkdtemp(prefix="switchyard-metrics-"))
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics_dir)


def on_starting(server):
    refuse_lonely_workers(server.cfg.workers, settings)  # `gunicorn -w 4` says otherwise than the settings
    _metrics_dir.mkdir(parents=True, exist_ok=True)
    _forget_counters()  # of a run that was killed: its numbers belong to the past


def child_exit(_server, worker):
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(_server):
    _forget_counters()
    with suppress(OSError):
        _metrics_dir.rmdir()


def _forget_counters():
    for path in _metrics_dir.glob("*.db"):
        path.unlink(missing_ok=True)
