"""Makes the arguments of Server from the application's settings and parts, for `flask run` and for gunicorn alike."""

import contextlib
import resource
from typing import Any

from app.serving.connections_per_address import ConnectionsPerAddress
from app.serving.sender_check import SenderCheck
from app.serving.unfinished_bytes import UnfinishedBytes

MAX_CONNECTIONS = 10_000  # more connections wait in the kernel's backlog, and the kernel rejects those that do not fit there
OWN_FILES = 200  # files and sockets of the process itself: the spool, MongoDB, Redis, metrics


def connections_allowed(wanted: int = MAX_CONNECTIONS) -> int:
    """Return `wanted`, or less where the process may open fewer files. Raises the soft limit of open files as far as the kernel permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + OWN_FILES:
        soft = wanted + OWN_FILES if hard == resource.RLIM_INFINITY else min(hard, wanted + OWN_FILES)
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - min(OWN_FILES, soft // 2)))


def server_options(parts: Any, max_connections: int = MAX_CONNECTIONS) -> dict[str, Any]:
    """Return the arguments. Give the same ones to all servers of one process, so that they share the limits of the process."""
    from app.http.cors import headers_for  # imports Flask, which gunicorn's master must not load

    settings = parts.settings
    return {
        "spawn": connections_allowed(max_connections),
        "max_body_bytes": settings.http_max_body_bytes,
        "read_timeout_s": settings.http_read_timeout_ms / 1000,
        "write_timeout_s": settings.http_read_timeout_ms / 1000,
        "keepalive_s": settings.http_idle_timeout_ms / 1000,
        "websocket_buffer_bytes": settings.rt_socket_buffer_bytes,
        "unfinished": UnfinishedBytes(settings.http_max_unfinished_bytes, settings.http_max_unknown_bytes),
        "per_address": ConnectionsPerAddress(settings.http_connections_per_address),
        "trusted_proxies": settings.trusted_proxies,
        "check_sender": SenderCheck(parts.gatekeeper, settings.trusted_proxies),
        "cors": lambda origin: headers_for(settings, origin) or [],
        "on_rejected": lambda reason: parts.metrics.http_rejected_total.labels(reason).inc(),
    }
