"""gunicorn's configuration. `gunicorn wsgi:app` finds it in the current folder; in another folder add `--config`.

It runs in gunicorn's master, which is not patched by gevent and has no connections: it only reads settings, and each worker loads the
application after the fork. It runs again at each SIGHUP; app/settings/in_use.py holds what must survive that.
"""

import os
import socket
import sys
from pathlib import Path

from gunicorn.config import Config

sys.path.insert(0, str(Path(__file__).parent))

from app.logs import logging_config  # noqa: E402
from app.serving import metrics_folder  # noqa: E402
from app.serving.gunicorn_options import refuse_ignored_options  # noqa: E402
from app.serving.tls import CERTIFICATE, refuse_unreadable  # noqa: E402
from app.settings import SettingsError, refuse_workers_without_redis  # noqa: E402
from app.settings.in_use import IN_USE, refuse_what_cannot_run  # noqa: E402

_arguments = Config().parser().parse_args(Config().get_cmd_args_from_env() + sys.argv[1:])
os.environ.update(pair.split("=", 1) for pair in _arguments.raw_env or [] if "=" in pair)  # gunicorn does so too late
_before = IN_USE.settings


def _try_first(fresh):
    """Raise SettingsError where this server could not run with the new settings."""
    refuse_ignored_options(_arguments, fresh)
    refuse_what_cannot_run(_before, fresh, listens=not _arguments.bind)
    if (_before.host, _before.port) != (fresh.host, fresh.port):  # gunicorn would end without these files when it opens a new listener
        named = {"--certfile": _arguments.certfile, "--keyfile": _arguments.keyfile}
        refuse_unreadable({option: os.path.join(_arguments.chdir or "", path) for option, path in named.items() if path})


settings = IN_USE.take("production", try_first=_try_first)

bind = f"{settings.host}:{settings.port}" if ":" not in settings.host else f"[{settings.host}]:{settings.port}"
workers = settings.web_concurrency
worker_class = "app.serving.gunicorn_worker.Worker"
if _before is None and (_arguments.worker_class or worker_class).replace(":", ".") == worker_class:
    refuse_ignored_options(_arguments, settings)
worker_connections = 10_000
backlog = 2048
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a TMPDIR that is removed would end the master  # noqa: S108
timeout = 60 + settings.drain_timeout_ms // 1000  # after this silence gunicorn kills a worker
graceful_timeout = settings.drain_timeout_ms // 1000 + 5  # longer than the drain of the application
control_socket_disable = True  # gunicorn would create it in the home folder, which a service account may not have
logconfig_dict = logging_config(settings)

# All workers write their metrics into one folder, which stays the same after a reload (SIGHUP).
_folder = Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR") or metrics_folder.make_folder()).absolute()
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_folder)
_metrics = metrics_folder.folder_at(_folder)


def _use_worker_class(server):
    """The master itself cannot load a class that is given with a colon."""
    if server.cfg.worker_class_str.replace(":", ".") != worker_class:
        raise SettingsError(
            f"switchyard: the worker class {server.cfg.worker_class_str} would run nothing in the background; "
            "leave it out, gunicorn.conf.py names the one that does"
        )
    server.cfg.set("worker_class", worker_class)
    server.worker_class = server.cfg.worker_class


def on_starting(server):
    _use_worker_class(server)
    CERTIFICATE.take(server.cfg)
    refuse_workers_without_redis(server.cfg.workers, settings)  # `gunicorn -w 4` overrides the settings
    _metrics.open()


def when_ready(server):
    """Warn of a unix socket, where clients have no address and so share one rate limit."""
    if not settings.trusted_proxies and any(listener.FAMILY == socket.AF_UNIX for listener in server.LISTENERS):
        consequence = "all clients share one rate limit; set TRUSTED_PROXIES to the number of proxies that set X-Forwarded-For"
        server.log.warning("clients_share_one_rate", extra={"listener": "a unix socket", "consequence": consequence})


def on_reload(server):
    """Refuse new settings that do not fit `gunicorn -w 4`, which a reload does not change."""
    _use_worker_class(server)
    try:
        refuse_workers_without_redis(server.cfg.workers, settings)
    except SettingsError as error:
        IN_USE.settings = _before
        IN_USE.refuse(str(error))
    CERTIFICATE.take(server.cfg)


def nworkers_changed(server, new, old):
    """Refuse one more worker by SIGTTIN where the settings do not allow it."""
    if not old or new <= old:
        return
    try:
        refuse_workers_without_redis(new, IN_USE.settings)
    except SettingsError as error:
        IN_USE.refuse(str(error))
        server.num_workers = old


def post_fork(_server, _worker):
    _metrics.close_in_worker()


def child_exit(_server, worker):
    _metrics.worker_ended(worker.pid)


def on_exit(_server):
    _metrics.close()
