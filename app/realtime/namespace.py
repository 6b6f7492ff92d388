"""The face of realtime: lets a client in, hands what it says to the hub, carries the answer back.

Every event ends in an answer of ours. An error is an `error` frame, whatever went wrong; the connection stays.
"""

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import gevent
import structlog
from flask_socketio import ConnectionRefusedError, Namespace
from socketio.packet import ACK

from app.errors import ApiError
from app.identity import Gatekeeper, Identity
from app.logs import get_logger
from app.realtime import protocol
from app.realtime.permissions import may_connect
from app.realtime.realtime import Realtime
from app.realtime.transport import REALTIME
from app.realtime.transport.wire import Call

log = get_logger(__name__)

LONGEST_PAUSE_MS = 100  # in which a client that is over its rate is not listened to, so that its flood stays in its own system

Answer = Callable[[dict[str, Any]], None]


class RoomsNamespace(Namespace):
    """Authentication, the rooms `user:<id>` and `role:<role>`, and `ping`: all that `/` offers."""

    def __init__(self, name: str, gatekeeper: Gatekeeper, realtime: Realtime, clock, metrics):
        super().__init__(name)
        self._gatekeeper = gatekeeper
        self._realtime = realtime
        self._clock = clock
        self._metrics = metrics
        self._identities: dict[str, Identity] = {}
        self._events: dict[str, Callable[[str, list, Call], None]] = {"ping": self._ping}

    def trigger_event(self, event: str, connection_id: str, *args):
        """Called by python-socketio: connect (environ, auth), disconnect (reason), or a client's event (Call, *arguments)."""
        identity = self._identities.get(connection_id)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(connection_id=connection_id, **({"user": identity.user_id} if identity else {}))
        if event == "connect":
            return self._connect(connection_id, *args)
        if event == "disconnect":
            return self._disconnect(connection_id, *args)
        self._receive(event, connection_id, *args)
        return self.server.not_handled  # the answer is on its way already

    def _receive(self, event: str, connection_id: str, call: Call, *arguments) -> None:
        with self._refusing(connection_id, call, arguments[0] if arguments else None):
            handle = self._events.get(event) or partial(self._refuse_event, event)
            handle(connection_id, arguments, call)

    def _refuse_event(self, event: str, _connection_id: str, _arguments: tuple, _call: Call) -> None:
        raise ApiError("bad_request", f"There is no event {event[:64]!r} here; there are: {', '.join(self._events)}.")

    @contextmanager
    def _refusing(self, connection_id: str, call: Call, said: Any):
        """Whatever goes wrong inside is answered with an error frame."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, ApiError):
                log.exception("event_failed")
                error = ApiError("internal")
            self._metrics.realtime_errors_total.labels(error.code).inc()
            self._answer(connection_id, call, protocol.refusal_frame(error, said))
            if error.code == "rate_limited":
                gevent.sleep(min(error.retry_after_ms, LONGEST_PAUSE_MS) / 1000)  # nothing more is read from it meanwhile

    def _connect(self, connection_id: str, environ: dict, auth: Any = None) -> None:
        try:
            identity = self._authenticate(environ, auth)
        except Exception as error:
            if not isinstance(error, ApiError):
                log.exception("connect_failed")
                error = ApiError("internal")
            log.info("connection_refused", namespace=self.namespace, error=error.code)
            raise ConnectionRefusedError(error.message, error.to_dict()) from None
        if self.server.get_environ(connection_id, self.namespace) is None:
            raise ConnectionRefusedError("It went away while its token was verified.")
        self._welcome(connection_id, identity, auth)
        log.info("connected", namespace=self.namespace, user=identity.user_id)

    def _authenticate(self, environ: dict, auth: Any) -> Identity:
        """`auth: {token}`, else the Authorization header, else `?token=`: the first that is given counts."""
        token = auth.get("token") if isinstance(auth, dict) else None
        query = parse_qs(environ.get("QUERY_STRING", "")).get("token")
        if token is not None:
            identity = self._identity_of(token)
        elif header := environ.get("HTTP_AUTHORIZATION"):
            identity = self._gatekeeper.from_headers(header, None)
        elif query:
            identity = self._identity_of(query[0])
        else:
            raise ApiError("unauthorized", "A token is needed: auth: {token}, Authorization: Bearer, or ?token=.")
        if not may_connect(identity):
            raise ApiError("forbidden", "A write key may not connect; use a token.")
        return identity

    def _identity_of(self, token: Any) -> Identity:
        if not isinstance(token, str):
            raise ApiError("unauthorized", "The token must be a string.")
        return self._gatekeeper.from_headers(f"Bearer {token}", None)

    def _welcome(self, connection_id: str, identity: Identity, _auth: Any) -> None:
        """Nothing may be sent from here: it would leave before the client is told that it is connected."""
        self._identities[connection_id] = identity
        for room in (f"user:{identity.user_id}", *(f"role:{role}" for role in identity.roles)):
            self.server.enter_room(connection_id, room, namespace=self.namespace)

    def _disconnect(self, connection_id: str, reason: str | None = None) -> None:
        self._identities.pop(connection_id, None)
        log.info("disconnected", namespace=self.namespace, reason=reason)

    def _ping(self, connection_id: str, _arguments: tuple, call: Call) -> None:
        self._answer(connection_id, call, {"ts": self._clock()}, event="pong")

    def _answer(self, connection_id: str, call: Call, frame: dict[str, Any], event: str = "message") -> None:
        """To the callback where the client passed one, else as an event."""
        if call.id is None:
            self.server.emit(event, frame, namespace=self.namespace, to=connection_id, ignore_queue=True)
        else:
            packet = self.server.packet_class(ACK, data=[frame], namespace=self.namespace, id=call.id)
            self.server.eio.send(self.server.manager.eio_sid_from_sid(connection_id, self.namespace), packet.encode())


class RealtimeNamespace(RoomsNamespace):
    """The same, and the event `message` with the frames of protocol.py."""

    def __init__(self, transport, *args):
        super().__init__(REALTIME, *args)
        self._transport = transport
        self._hub = self._realtime.hub
        self._events["message"] = self._message
        self._unresumed: dict[str, Any] = {}

    def _welcome(self, connection_id: str, identity: Identity, auth: Any) -> None:
        super()._welcome(connection_id, identity, auth)
        self._transport.opened(connection_id)
        self._hub.connect(connection_id, identity)
        if isinstance(auth, dict) and auth.get("resume") is not None:
            self._unresumed[connection_id] = auth["resume"]
            gevent.spawn(self._resume, connection_id)  # as soon as the client was told that it is connected

    def _disconnect(self, connection_id: str, reason: str | None = None) -> None:
        self._unresumed.pop(connection_id, None)
        self._hub.disconnect(connection_id)
        self._transport.closed(connection_id)
        super()._disconnect(connection_id, reason)

    def _receive(self, event: str, connection_id: str, call: Call, *arguments) -> None:
        self._resume(connection_id)  # before anything that the client says
        super()._receive(event, connection_id, call, *arguments)

    def _resume(self, connection_id: str) -> None:
        """What the client gave as `resume` when it connected: every topic is answered as if it had subscribed by itself."""
        said = self._unresumed.pop(connection_id, None)
        if said is None:
            return
        answer = partial(self._answer, connection_id, Call(None))
        with self._refusing(connection_id, Call(None), None):
            for frame in protocol.parse_resume(said, self._hub.rules.max_topics):
                with self._refusing(connection_id, Call(None), {"topic": frame.topic}):
                    self._hub.handle(connection_id, frame, self._clock(), answer)

    def _refuse_event(self, event: str, connection_id: str, arguments: tuple, call: Call) -> None:
        self._hub.admit(connection_id, self._clock())
        super()._refuse_event(event, connection_id, arguments, call)

    def _ping(self, connection_id: str, arguments: tuple, call: Call) -> None:
        self._hub.admit(connection_id, self._clock())
        super()._ping(connection_id, arguments, call)

    def _message(self, connection_id: str, arguments: tuple, call: Call) -> None:
        """Whatever comes takes a token, except an acknowledgement that is news: there are as many as we send."""
        said = arguments[0] if len(arguments) == 1 else None
        is_ack = isinstance(said, dict) and said.get("type") == "ack"
        if not is_ack:
            self._hub.admit(connection_id, self._clock())
        if len(arguments) != 1:
            raise ApiError("bad_request", "A message carries exactly one frame.")
        answer = _say_nothing if is_ack and call.id is None else partial(self._answer, connection_id, call)
        try:
            self._handle(connection_id, protocol.parse(said, self._realtime.max_payload_bytes), answer)
        except ApiError as error:
            if is_ack and error.code != "rate_limited":
                self._hub.admit(connection_id, self._clock())
            raise

    def _handle(self, connection_id: str, frame: protocol.Frame, answer: Answer) -> None:
        if isinstance(frame, protocol.Auth):
            identity = self._identity_of(frame.token)
            before = self._hub.reauthenticate(connection_id, identity, frame.id, answer)
            self._move(connection_id, before, identity)
        else:
            self._hub.handle(connection_id, frame, self._clock(), answer)

    def _move(self, connection_id: str, before: Identity, identity: Identity) -> None:
        self._identities[connection_id] = identity
        for role in {*before.roles} - {*identity.roles}:
            self.server.leave_room(connection_id, f"role:{role}", namespace=self.namespace)
        for role in {*identity.roles} - {*before.roles}:
            self.server.enter_room(connection_id, f"role:{role}", namespace=self.namespace)


def _say_nothing(_frame: dict[str, Any]) -> None:
    """An acknowledgement that was in order is not acknowledged again."""
