"""gunicorn finds this file by itself: `gunicorn wsgi:app` is the whole command.

It runs in gunicorn's master, which stays unpatched and holds no connection: it only reads settings, and each worker
loads the application after the fork.
"""

import os
import shutil
import tempfile

from app.logs import logging_config
from app.settings import SettingsError, load_settings, read_app_env

os.environ["APP_ENV"] = read_app_env(default="production")
settings = load_settings()

bind = f"{settings.host}:{settings.port}"
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
if workers > 1 and not settings.redis_url:
    raise SettingsError(
        f"switchyard: WEB_CONCURRENCY={workers} needs REDIS_URL: without it the workers cannot tell one another what was published"
    )

worker_class = "app.serving.gunicorn_worker.Worker"
worker_connections = 10_000
backlog = 2048
keepalive = 75  # longer than a load balancer's usual 60 s, so that it is the balancer that closes first
timeout = 60  # a worker that is silent this long is stuck
graceful_timeout = settings.drain_timeout_ms // 1000 + 2  # the application drains first, gunicorn's own patience comes after
control_socket_disable = True  # it would be written under the home folder, which a service account may not have
logconfig_dict = logging_config(settings)

# One folder of counters for all workers, emptied at every start: a dead worker's numbers belong to the past.
_metrics_dir = tempfile.mkdtemp(prefix="switchyard-metrics-")
os.environ["PROMETHEUS_MULTIPROC_DIR"] = _metrics_dir


def on_exit(_server):
    shutil.rmtree(_metrics_dir, ignore_errors=True)


def child_exit(_server, worker):
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
