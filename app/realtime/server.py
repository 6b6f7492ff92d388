"""Puts a Socket.IO server in front of the Flask application and ties it to the house."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Flask
from flask_socketio import SocketIO

from app.clock import uptime
from app.http.cors import headers_for
from app.identity import origins
from app.logs import get_logger
from app.logs.sampling import SampledRecords
from app.realtime.buckets import Rate
from app.realtime.namespace import RoomsNamespace
from app.realtime.realtime_namespace import RealtimeNamespace
from app.realtime.ticker import Ticker
from app.realtime.transport.engineio_guard import EngineIoGuard
from app.realtime.transport.handshake_limits import HandshakeLimits
from app.realtime.transport.session import max_connect_bytes
from app.realtime.transport.socketio_transport import RoomQueue, SocketIOTransport
from app.realtime.transport.wire import Json, WirePacket
from app.realtime.user_log import UserLog
from app.settings import Settings

HEADROOM_BYTES = 262_144  # for answers, where what is delivered fills the buffer already
CLOSING_PATIENCE_S = 0.5
NOISY_LOGGERS = ("engineio.server", "socketio.server")  # they warn about whatever a client does; their errors are sampled
SAMPLED = SampledRecords()


@dataclass(frozen=True)
class SocketLayers:
    """The WSGI layers of realtime, the outermost first. Each takes the application inside it."""

    handshake_limits: Callable[[Any], Any]
    engineio_guard: Callable[[Any], Any]
    socket_io: Callable[[Any], Any]


def attach(app: Flask, settings: Settings, parts) -> SocketLayers:
    """Make the Socket.IO server of `app` and return its WSGI layers, which create_app puts in front of Flask.

    Background work of python-socketio starts with the first connection, so this is safe before a fork.
    """
    flask = app.wsgi_app
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger(name).addFilter(SAMPLED)
    socketio = SocketIO(
        app,
        async_mode="gevent",
        async_handlers=False,  # one event after another, in the order in which a client sent them
        always_connect=False,
        cors_allowed_origins="*" if "*" in settings.cors_origins else partial(_may_call, settings.cors_origins),
        cors_credentials=False,
        ping_interval=_ping_interval(settings.rt_ping_interval_ms),
        ping_timeout=settings.rt_ping_timeout_ms / 1000,
        max_http_buffer_size=settings.http_max_body_bytes,  # a polling client fills its bodies up to this
        **({"client_manager": RoomQueue(settings.redis_url)} if settings.redis_url else {}),
        serializer=WirePacket,
        json=Json,
        manage_session=False,
        logger=False,
        engineio_logger=False,
    )
    realtime, clock = parts.realtime, parts.clock
    hub = realtime.hub
    transport = SocketIOTransport(socketio, settings.rt_send_buffer_bytes)
    realtime.bind(transport)
    dependencies = (parts.gatekeeper, realtime, clock, parts.metrics, UserLog(get_logger(__name__)))
    socketio.on_namespace(RealtimeNamespace(transport, *dependencies))
    rooms = RoomsNamespace("/", *dependencies)
    socketio.on_namespace(rooms)

    guard = EngineIoGuard(
        socketio.server,
        hub.options,
        clock,
        send_buffer_bytes=settings.rt_send_buffer_bytes + HEADROOM_BYTES,
        max_connect_bytes=max_connect_bytes(settings.rt_max_topics, settings.jwt_max_length),
    )
    guard.install()
    parts.lifecycle.add("realtime", Ticker(hub, clock).run)
    parts.lifecycle.every("realtime_tokens", 0.25, lambda: rooms.members.tick(clock()))
    parts.lifecycle.every("realtime_unjoined", 1, lambda: guard.sweep(settings.rt_join_timeout_ms))
    handshake_rate = Rate.of(settings.rt_handshake_rate, settings.rt_handshake_burst)
    polling_rate = Rate.of(settings.rt_polling_rate)
    cors = partial(_cors_headers, settings)
    parts.lifecycle.on_drain("realtime", lambda: guard.close_all(CLOSING_PATIENCE_S))
    app.wsgi_app = flask  # type: ignore[method-assign]  # flask_socketio has put itself in front; the stack is made in create_app
    return SocketLayers(
        handshake_limits=lambda inner: HandshakeLimits(inner, handshake_rate, polling_rate, uptime, parts.metrics, cors),
        engineio_guard=guard.wsgi,
        socket_io=partial(_in_front_of, socketio),
    )


def _in_front_of(socketio: SocketIO, inner):
    socketio.sockio_mw.wsgi_app = inner
    return socketio.sockio_mw


def _may_call(patterns: tuple[str, ...], origin: str | None, environ: dict) -> bool:
    """A client that is no browser sends no origin. A page of the server's own origin may connect whatever CORS_ORIGINS lists."""
    return origin is None or origins.allows(patterns, origin) or origins.is_own(origin, environ.get("HTTP_HOST", ""))


def _cors_headers(settings: Settings, origin: str | None) -> list[tuple[str, str]]:
    return headers_for(settings, origin) or []


def _ping_interval(interval_ms: int) -> tuple[float, float]:
    """(seconds, grace): the library announces whole seconds, cut off; the grace makes it the next whole one instead."""
    seconds = interval_ms / 1000
    return seconds, math.ceil(seconds) - seconds + 1e-6
