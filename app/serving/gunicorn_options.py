"""Refuses to start with a gunicorn option that this server would ignore, and names the setting to use instead."""

from argparse import Namespace
from typing import Any

from gunicorn.config import KNOWN_SETTINGS

from app.settings import Settings, SettingsError

HEAD_LIMITS = "a request has at most 100 headers and a head of at most 32 KiB"
STRICT_PARSER = "requests are parsed by llhttp, strictly"
NO_HTTP_2 = "only HTTP/1.1 is served; for HTTP/2 put a proxy in front"
NO_ASGI = "it is for ASGI, and this is a WSGI application"
TLS_HANDSHAKE = "HTTP_READ_TIMEOUT_MS limits the TLS handshake"
NO_STATSD = "requests are not sent to statsd; read /metrics"
LOG = "the log is written to stderr as JSON lines, from LOG_LEVEL on"

# the option's `dest` in argparse: (values that are accepted because they ask for nothing else, what to do instead)
IGNORED: dict[str, tuple[tuple[Any, ...], str]] = {
    "proxy_protocol": (("off",), "the PROXY protocol is not read; let the proxy send X-Forwarded-For, and set TRUSTED_PROXIES"),
    "proxy_allow_ips": ((), "the PROXY protocol is not read; let the proxy send X-Forwarded-For, and set TRUSTED_PROXIES"),
    "forwarded_allow_ips": ((), "set TRUSTED_PROXIES to the number of proxies in front"),
    "forwarder_headers": ((), "set TRUSTED_PROXIES to the number of proxies in front"),
    "protocol": (("http",), "only HTTP is served"),
    "uwsgi_allow_ips": ((), "only HTTP is served"),
    "http_protocols": (("h1",), NO_HTTP_2),
    "http2_cleartext": (("off",), NO_HTTP_2),
    "http2_max_concurrent_streams": ((), NO_HTTP_2),
    "http2_initial_window_size": ((), NO_HTTP_2),
    "http2_max_frame_size": ((), NO_HTTP_2),
    "http2_max_header_list_size": ((), NO_HTTP_2),
    "threads": ((1,), "a worker serves all connections in one thread; for more processors set WEB_CONCURRENCY"),
    "keepalive": ((), "set HTTP_IDLE_TIMEOUT_MS"),
    "limit_request_line": ((), HEAD_LIMITS),
    "limit_request_fields": ((), HEAD_LIMITS),
    "limit_request_field_size": ((), HEAD_LIMITS),
    "permit_obsolete_folding": ((), STRICT_PARSER),
    "strip_header_spaces": ((), STRICT_PARSER),
    "permit_unconventional_http_method": ((), STRICT_PARSER),
    "permit_unconventional_http_version": ((), STRICT_PARSER),
    "casefold_http_method": ((), STRICT_PARSER),
    "header_map": (("drop",), STRICT_PARSER),
    "http_parser": (("auto",), STRICT_PARSER),
    "do_handshake_on_connect": ((), TLS_HANDSHAKE),
    "reuse_port": ((), "all workers share one listener"),
    "websocket_max_message_size": ((), "set RT_MAX_PAYLOAD_BYTES"),
    "asgi_loop": (("auto",), NO_ASGI),
    "asgi_lifespan": (("auto",), NO_ASGI),
    "asgi_disconnect_grace_period": ((), NO_ASGI),
    "root_path": (("",), NO_ASGI),
    "statsd_host": ((), NO_STATSD),
    "errorlog": (("-",), LOG),
    "loglevel": ((), LOG),
    "logconfig": ((), LOG),
    "logconfig_json": ((), LOG),
    "syslog": ((), LOG),
    "syslog_addr": ((), LOG),
    "control_socket": ((), "the control socket is off; reload and upgrade by signals"),
    "paste": ((), "name the application: wsgi:app"),
    "preload_app": (
        (),
        "each worker loads the application after the fork, since its counters and its connections are its own; leave it out",
    ),
}


def refuse_ignored_options(given: Namespace, settings: Settings) -> None:
    """Raise SettingsError where the parsed command line `given` has an ignored option. In it, an option that is not given is None."""
    names = {setting.name: next(name for name in setting.cli if name.startswith("--")) for setting in KNOWN_SETTINGS if setting.cli}
    for dest, (neutral, instead) in IGNORED.items():
        value = getattr(given, dest, None)
        if value is not None and value not in neutral and not _is_honoured(dest, given, settings):
            raise SettingsError(f"switchyard: {names[dest]} is not supported: {instead}")
    _refuse_short_timeouts(given, settings)


def _is_honoured(dest: str, given: Namespace, settings: Settings) -> bool:
    if dest == "loglevel":
        return given.loglevel.lower() == settings.log_level
    return dest == "errorlog" and bool(given.capture_output)  # then gunicorn writes stderr into the file of errorlog


def _refuse_short_timeouts(given: Namespace, settings: Settings) -> None:
    """Raise SettingsError where gunicorn would kill its workers while they drain."""
    for name, seconds in {"--timeout": given.timeout, "--graceful-timeout": given.graceful_timeout}.items():
        is_endless = name == "--timeout" and seconds == 0
        if seconds is not None and not is_endless and seconds * 1000 <= settings.drain_timeout_ms:
            raise SettingsError(
                f"switchyard: {name} {seconds} would kill workers while they drain: leave it out, and set DRAIN_TIMEOUT_MS, "
                f"which is {settings.drain_timeout_ms}"
            )
