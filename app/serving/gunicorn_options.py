"""Refuses a start with an option of gunicorn that this server ignores, and names the setting to use instead."""

from argparse import Namespace
from typing import Any

from gunicorn.config import KNOWN_SETTINGS

from app.settings import Settings, SettingsError

HEAD = "a request has at most 100 headers and a head of at most 32 KiB"
PARSED = "requests are parsed by llhttp, strictly"
NO_HTTP_2 = "only HTTP/1.1 is served; for HTTP/2 put a proxy in front"
NO_ASGI = "it is for ASGI, and this is a WSGI application"
TLS_HANDSHAKE = "HTTP_READ_TIMEOUT_MS limits the TLS handshake"
NO_STATSD = "requests are not sent to statsd; read /metrics"
LOG = "the log is written to stderr as JSON lines, from LOG_LEVEL on"

# dest of the option: (values that change nothing, what to do instead)
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
    "limit_request_line": ((), HEAD),
    "limit_request_fields": ((), HEAD),
    "limit_request_field_size": ((), HEAD),
    "permit_obsolete_folding": ((), PARSED),
    "strip_header_spaces": ((), PARSED),
    "permit_unconventional_http_method": ((), PARSED),
    "permit_unconventional_http_version": ((), PARSED),
    "casefold_http_method": ((), PARSED),
    "header_map": (("drop",), PARSED),
    "http_parser": (("auto",), PARSED),
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
    """Raise SettingsError where `given`, the parsed command line, has such an option. An option that is not given is None."""
    names = {setting.name: next(name for name in setting.cli if name.startswith("--")) for setting in KNOWN_SETTINGS if setting.cli}
    for dest, (neutral, instead) in IGNORED.items():
        value = getattr(given, dest, None)
        if value is not None and value not in neutral and not _is_served(dest, given, settings):
            raise SettingsError(f"switchyard: {names[dest]} is not supported: {instead}")
    _refuse_short_timeouts(given, settings)


def _is_served(dest: str, given: Namespace, settings: Settings) -> bool:
    if dest == "loglevel":
        return given.loglevel.lower() == settings.log_level
    return dest == "errorlog" and bool(given.capture_output)  # with it gunicorn writes stderr into that file


def _refuse_short_timeouts(given: Namespace, settings: Settings) -> None:
    """Refuse a timeout with which gunicorn would kill its workers while they drain."""
    for name, seconds in {"--timeout": given.timeout, "--graceful-timeout": given.graceful_timeout}.items():
        is_endless = name == "--timeout" and seconds == 0
        if seconds is not None and not is_endless and seconds * 1000 <= settings.drain_timeout_ms:
            raise SettingsError(
                f"switchyard: {name} {seconds} would end workers while they drain: leave it out, and set DRAIN_TIMEOUT_MS, "
                f"which is {settings.drain_timeout_ms}"
            )
