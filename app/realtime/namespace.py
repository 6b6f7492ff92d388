"""A face of realtime: lets a client in, carries what it says to a core and the answer back. This one is `/`; see
realtime_namespace.py for the other.

Every event ends in an answer of ours. An error is an `error` frame, whatever went wrong; the connection stays.
"""

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog
from flask_socketio import ConnectionRefusedError, Namespace
from socketio.packet import ACK

from app.errors import ApiError
from app.identity.gatekeeper import Gatekeeper
from app.identity.identity import Identity
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.realtime import protocol
from app.realtime.credentials import identity_of, identity_of_connect
from app.realtime.members import Members
from app.realtime.realtime import Realtime
from app.realtime.timers import Timers
from app.realtime.transport.session import close_transport, slow_down, state_of
from app.realtime.transport.wire import Call, Unreadable
from app.realtime.user_log import UserLog

log = SampledLog(get_logger(__name__))

Answer = Callable[[dict[str, Any]], None]


class RoomsNamespace(Namespace):
    """Authentication, the rooms `user:<id>` and `role:<role>`, `ping`, and of the frames `auth`: all that `/` offers."""

    def __init__(self, name: str, gatekeeper: Gatekeeper, realtime: Realtime, clock, metrics, user_log: UserLog):
        super().__init__(name)
        self._gatekeeper = gatekeeper
        self._realtime = realtime
        self._clock = clock
        self._metrics = metrics
        self._user_log = user_log
        self.members = Members(realtime.hub.options, Timers(), self._tell, self._close)
        self._events: dict[str, Callable[[str, list, Call], None]] = {"ping": self._ping, "message": self._message}

    def trigger_event(self, event: str, connection_id: str, *args):
        """Called by python-socketio with connect (environ, auth) and disconnect (reason), and by the dispatch with a client's event
        (Call, *arguments)."""
        user = {"user": self.members[connection_id].identity.user_id} if connection_id in self.members else {}
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(connection_id=connection_id, **user)
        if event == "connect":
            return self._connect(connection_id, *args)
        if event == "disconnect":
            return self._disconnect(connection_id, *args)
        return self._receive(event, connection_id, *args)

    # Who comes and goes

    def _connect(self, connection_id: str, environ: dict, auth: Any = None) -> None:
        try:
            identity = identity_of_connect(self._gatekeeper, environ, auth)
        except Exception as error:
            error = _known(error, "connect_failed")
            log.info("connection_refused", namespace=self.namespace, error=error.code, reason=error.summary)
            raise ConnectionRefusedError(error.message, error.to_dict()) from None
        if self.server.get_environ(connection_id, self.namespace) is None:
            raise ConnectionRefusedError("It went away while its token was verified.")
        for room in (f"user:{identity.user_id}", *_rooms_of_roles(identity)):
            self.server.enter_room(connection_id, room, namespace=self.namespace)
        self._welcome(connection_id, identity, auth)
        self._note("connected", identity, namespace=self.namespace)

    def _welcome(self, connection_id: str, identity: Identity, _auth: Any) -> None:
        """Nothing may be sent from here: it would leave before the client is told that it is connected."""
        self.members.join(connection_id, identity, state_of(self.server.eio, self._eio_sid(connection_id)).allowance)

    def _disconnect(self, connection_id: str, reason: str | None = None) -> None:
        """`reason` is python-socketio's, or what `close_transport` was given."""
        if connection_id in self.members:
            self._note("disconnected", self.members[connection_id].identity, namespace=self.namespace, reason=reason)
        self._leave(connection_id)

    def _leave(self, connection_id: str) -> None:
        self.members.leave(connection_id)

    def connect_again(self, connection_id: str, environ: dict, auth: Any = None) -> bool:
        """For a second CONNECT in the same namespace. True where the token is of the same user: the connection keeps its place and
        its subscriptions, and gets the new token."""
        try:
            identity = identity_of_connect(self._gatekeeper, environ, auth)
            self._take_identity(connection_id, identity, None, say_nothing)
        except ApiError:
            return False
        return True

    # What a client says

    def _receive(self, event: str, connection_id: str, call: Call, *arguments) -> None:
        with self._refusing(connection_id, call, _what_was_said(arguments)):
            handle = self._events.get(event) or partial(self._refuse_event, event)
            handle(connection_id, arguments, call)

    def _refuse_event(self, event: str, connection_id: str, _arguments: tuple, _call: Call) -> None:
        self.members.admit(connection_id, self._clock())
        raise ApiError("bad_request", f"There is no event {event[:64]!r} here; there are: {', '.join(self._events)}.")

    def _ping(self, connection_id: str, _arguments: tuple, call: Call) -> None:
        self.members.admit(connection_id, self._clock())
        self._answer(connection_id, call, {"ts": self._clock()}, event="pong")

    def _message(self, connection_id: str, arguments: tuple, call: Call) -> None:
        self.members.admit(connection_id, self._clock())
        frame = protocol.parse(only_argument(arguments), self._realtime.max_payload_bytes)
        if not isinstance(frame, protocol.Auth):
            raise ApiError("bad_request", "This namespace has rooms only; topics are in /realtime.")
        self._reauthenticate(connection_id, frame, partial(self._answer, connection_id, call))

    def _reauthenticate(self, connection_id: str, frame: protocol.Auth, answer: Answer) -> None:
        self._take_identity(connection_id, identity_of(self._gatekeeper, frame.token), frame.id, answer)

    def _take_identity(self, connection_id: str, identity: Identity, id: str | None, answer: Answer) -> None:
        before = self._renew(connection_id, identity, id, answer)
        was_in, is_in = set(_rooms_of_roles(before)), set(_rooms_of_roles(identity))
        for room in was_in - is_in:
            self.server.leave_room(connection_id, room, namespace=self.namespace)
        for room in is_in - was_in:
            self.server.enter_room(connection_id, room, namespace=self.namespace)

    def _renew(self, connection_id: str, identity: Identity, id: str | None, answer: Answer) -> Identity:
        before = self.members.renew(connection_id, identity)
        answer(protocol.ack_frame(id))
        return before

    # What it is told

    @contextmanager
    def _refusing(self, connection_id: str, call: Call, said: Any):
        """Whatever goes wrong inside is answered with an error frame."""
        try:
            yield
        except Exception as error:
            if connection_id not in self.members:
                return  # it left meanwhile
            error = _known(error, "event_failed")
            self._metrics.realtime_errors_total.labels(error.code).inc()
            frame = protocol.refusal_frame(error, said)
            self._answer(connection_id, call, frame)
            if error.code == "rate_limited":
                self._slow_down(connection_id)
            else:
                self._note("frame_refused", self.members[connection_id].identity, error=error.code, topic=frame.get("topic"))

    def _slow_down(self, connection_id: str) -> None:
        slow_down(self.server.eio, self._eio_sid(connection_id), self.members.allowance(connection_id, self._clock()))

    def _note(self, event: str, identity: Identity, **fields) -> None:
        self._user_log.info(event, identity.user_id, self._clock(), **fields)

    def _answer(self, connection_id: str, call: Call, frame: dict[str, Any], event: str = "message") -> None:
        """To the callback where the client passed one, else as an event."""
        if call.id is None:
            self.server.emit(event, frame, namespace=self.namespace, to=connection_id, ignore_queue=True)
        else:
            packet = self.server.packet_class(ACK, data=[frame], namespace=self.namespace, id=call.id)
            self.server.eio.send(self._eio_sid(connection_id), packet.encode())

    def _tell(self, connection_id: str, error: ApiError, **places) -> None:
        self._metrics.realtime_errors_total.labels(error.code).inc()
        self._answer(connection_id, Call(None), protocol.error_frame(error, **places))

    def _close(self, connection_id: str, reason: str) -> None:
        close_transport(self.server.eio, self._eio_sid(connection_id), reason)

    def _eio_sid(self, connection_id: str) -> str | None:
        return self.server.manager.eio_sid_from_sid(connection_id, self.namespace)


def _known(error: Exception, event: str) -> ApiError:
    """What is no error of the catalogue is a mistake of ours, and logged."""
    if isinstance(error, ApiError):
        return error
    log.exception(event)
    return ApiError("internal")


def only_argument(arguments: tuple) -> Any:
    if len(arguments) != 1:
        raise ApiError("bad_request", "A message carries exactly one frame.")
    (said,) = arguments
    if isinstance(said, Unreadable):
        raise ApiError("bad_request", said.sentence)
    return said


def _rooms_of_roles(identity: Identity) -> list[str]:
    return [f"role:{role}" for role in identity.roles]


def _what_was_said(arguments: tuple) -> Any:
    """As far as it can be read, for an answer that names its id and topic."""
    said = arguments[0] if arguments else None
    return said.said if isinstance(said, Unreadable) else said


def say_nothing(_frame: dict[str, Any]) -> None:
    """The answer to a frame that is only answered where it is wrong."""
