"""The face of /realtime: everything that / has, and the frames of protocol.py for the hub."""

from functools import partial
from itertools import islice
from typing import Any

import gevent

from app.errors import ApiError
from app.identity.identity import Identity
from app.realtime import protocol
from app.realtime.namespace import Answer, RoomsNamespace, only_argument, say_nothing
from app.realtime.transport import REALTIME
from app.realtime.transport.session import state_of
from app.realtime.transport.wire import Call

NOTED = {protocol.Subscribe: "subscribed", protocol.Unsubscribe: "unsubscribed"}


class RealtimeNamespace(RoomsNamespace):
    def __init__(self, transport, *args):
        super().__init__(REALTIME, *args)
        self._transport = transport
        self._hub = self._realtime.hub
        self.members = self._hub.members
        self._unresumed: dict[str, Any] = {}

    def _welcome(self, connection_id: str, identity: Identity, auth: Any) -> None:
        self._transport.opened(connection_id)
        self._hub.connect(connection_id, identity, state_of(self.server.eio, self._eio_sid(connection_id)).allowance)
        self._resume_soon(connection_id, auth)

    def connect_again(self, connection_id: str, environ: dict, auth: Any = None) -> bool:
        goes_on = super().connect_again(connection_id, environ, auth)
        if goes_on:
            self._resume_soon(connection_id, auth)
        return goes_on

    def _resume_soon(self, connection_id: str, auth: Any) -> None:
        """As soon as the client was told that it is connected."""
        if isinstance(auth, dict) and auth.get("resume") is not None:
            self._unresumed[connection_id] = auth["resume"]
            gevent.spawn(self._resume, connection_id)

    def _leave(self, connection_id: str) -> None:
        self._unresumed.pop(connection_id, None)
        self._hub.disconnect(connection_id)
        self._transport.closed(connection_id)

    def _receive(self, event: str, connection_id: str, call: Call, *arguments) -> None:
        self._resume(connection_id)  # before anything that the client says
        super()._receive(event, connection_id, call, *arguments)

    def _resume(self, connection_id: str) -> None:
        """What the client gave as `resume` when it connected: every topic is answered as if it had subscribed by itself. So many
        at most are looked at, and one answer counts the others; a packet may have ten thousand."""
        said = self._unresumed.pop(connection_id, None)
        if said is None:
            return
        with self._refusing(connection_id, Call(None), None):
            positions, allowed = protocol.parse_resume(said), self._hub.options.max_topics
            is_first = self._note_resume(connection_id)
            for topic, position in islice(positions.items(), 2 * allowed):
                with self._refusing(connection_id, Call(None), {"topic": topic}):
                    self._resume_topic(connection_id, topic, position, is_first)
            if (left_out := len(positions) - 2 * allowed) > 0:
                sentence = f"A connection may subscribe to at most {allowed} topics; {left_out} more of resume were not looked at."
                raise ApiError("limit_exceeded", sentence)

    def _note_resume(self, connection_id: str) -> bool:
        """Whether it is the first of its transport session: that one costs its CONNECT, any further one a token a topic."""
        allowance = self.members.allowance(connection_id, self._clock())
        is_first, allowance.has_resumed = not allowance.has_resumed, True
        return is_first

    def _resume_topic(self, connection_id: str, topic: str, position: Any, is_first: bool) -> None:
        if not is_first:
            self.members.admit(connection_id, self._clock())
        self._handle(connection_id, protocol.parse_position(topic, position), partial(self._answer, connection_id, Call(None)))

    def _message(self, connection_id: str, arguments: tuple, call: Call) -> None:
        """Whatever comes takes a token, except an acknowledgement that is news: there are as many as we send."""
        is_ack = len(arguments) == 1 and isinstance(arguments[0], dict) and arguments[0].get("type") == "ack"
        if not is_ack:
            self.members.admit(connection_id, self._clock())
        answer = say_nothing if is_ack and call.id is None else partial(self._answer, connection_id, call)
        try:
            if is_ack:
                protocol.refuse_too_many_acks(arguments[0], self._hub.options.max_topics)
            self._handle(connection_id, protocol.parse(only_argument(arguments), self._realtime.max_payload_bytes), answer)
        except ApiError as error:
            if is_ack and error.code != "rate_limited":
                self.members.admit(connection_id, self._clock())
            raise

    def _handle(self, connection_id: str, frame: protocol.Frame, answer: Answer) -> None:
        if isinstance(frame, protocol.Auth):
            self._reauthenticate(connection_id, frame, answer)
            return
        self._hub.handle(connection_id, frame, self._clock(), answer)
        if event := NOTED.get(type(frame)):
            self._note(event, self.members[connection_id].identity, topic=frame.topic)

    def _renew(self, connection_id: str, identity: Identity, id: str | None, answer: Answer) -> Identity:
        return self._hub.reauthenticate(connection_id, identity, id, answer)
