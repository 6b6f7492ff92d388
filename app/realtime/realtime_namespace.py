"""The face of /realtime: everything that / has, and the frames of protocol.py for the hub."""

from functools import partial
from typing import Any

import gevent

from app.errors import ApiError
from app.identity import Identity
from app.realtime import protocol
from app.realtime.namespace import Answer, RoomsNamespace, only_argument
from app.realtime.transport import REALTIME
from app.realtime.transport.wire import Call


class RealtimeNamespace(RoomsNamespace):
    def __init__(self, transport, *args):
        super().__init__(REALTIME, *args)
        self._transport = transport
        self._hub = self._realtime.hub
        self.members = self._hub.members
        self._unresumed: dict[str, Any] = {}

    def _welcome(self, connection_id: str, identity: Identity, auth: Any) -> None:
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
            for topic, position in protocol.parse_resume(said, self._hub.rules.max_topics).items():
                with self._refusing(connection_id, Call(None), {"topic": topic}):
                    self._hub.handle(connection_id, protocol.parse_position(topic, position), self._clock(), answer)

    def _message(self, connection_id: str, arguments: tuple, call: Call) -> None:
        """Whatever comes takes a token, except an acknowledgement that is news: there are as many as we send."""
        is_ack = len(arguments) == 1 and isinstance(arguments[0], dict) and arguments[0].get("type") == "ack"
        if not is_ack:
            self.members.admit(connection_id, self._clock())
        answer = _say_nothing if is_ack and call.id is None else partial(self._answer, connection_id, call)
        try:
            self._handle(connection_id, protocol.parse(only_argument(arguments), self._realtime.max_payload_bytes), answer)
        except ApiError as error:
            if is_ack and error.code != "rate_limited":
                self.members.admit(connection_id, self._clock())
            raise

    def _handle(self, connection_id: str, frame: protocol.Frame, answer: Answer) -> None:
        if isinstance(frame, protocol.Auth):
            self._reauthenticate(connection_id, frame, answer)
        else:
            self._hub.handle(connection_id, frame, self._clock(), answer)

    def _renew(self, connection_id: str, identity: Identity, id: str | None, answer: Answer) -> Identity:
        return self._hub.reauthenticate(connection_id, identity, id, answer)


def _say_nothing(_frame: dict[str, Any]) -> None:
    """An acknowledgement that was in order is not acknowledged again."""
