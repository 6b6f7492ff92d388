"""Hands each Socket.IO packet of a session to the part that answers it.

It replaces the dispatch of python-socketio, which limits no rate, keeps attachments in memory, refuses a second CONNECT with a
packet that clients take for the end of the connection, and refuses an unknown namespace without a message.
"""

from collections.abc import Callable

import socketio
from socketio.packet import ACK, BINARY_ACK, BINARY_EVENT, CONNECT, CONNECT_ERROR, DISCONNECT, EVENT

from app.clock import Clock
from app.errors import ApiError
from app.logs import get_logger
from app.logs.sampling import SampledLog
from app.realtime.transport import NAMESPACES
from app.realtime.transport.session import SessionState, close_transport, slow_down, state_of
from app.realtime.transport.wire import WirePacket

log = SampledLog(get_logger(__name__))

NO_NAMESPACE = ApiError("not_found", f"There is no such namespace; there are: {', '.join(NAMESPACES)}.")
TOO_MANY = "Too many packets; slow down."


class Dispatch:
    """`max_packet_bytes` is what a packet may have once its session has joined a namespace."""

    def __init__(self, server: socketio.Server, clock: Clock, max_packet_bytes: int):
        self._server = server
        self._eio = server.eio
        self._clock = clock
        self._max_packet_bytes = max_packet_bytes
        self._handlers: dict[int, Callable[[str, SessionState, WirePacket], None]] = {
            CONNECT: self._connect,
            DISCONNECT: self._disconnect,
            EVENT: self._event,
            ACK: self._ack,
            BINARY_EVENT: self._binary,
            BINARY_ACK: self._binary,
        }

    def receive(self, eio_sid: str, data: str | bytes) -> None:
        """Raises ValueError for what no client may send."""
        state = state_of(self._eio, eio_sid)
        if isinstance(data, bytes) is not bool(state.attachments_due):
            raise ValueError("an attachment that is not due, or another packet where one is")
        if state.attachments_due:
            state.attachments_due -= 1
            return
        packet = WirePacket(encoded_packet=data)
        handle = self._handlers.get(packet.packet_type)
        if handle is None:
            raise ValueError("a packet that only a server sends")
        handle(eio_sid, state, packet)

    def admit(self, eio_sid: str, state: SessionState) -> bool:
        """Whether a packet that gets no answer is within the rate. If it is not, the session is read more slowly."""
        if not state.allowance.take(self._clock()):
            return True
        slow_down(self._eio, eio_sid, state.allowance)
        return False

    def _connect(self, eio_sid: str, state: SessionState, packet: WirePacket) -> None:
        namespace = packet.namespace or "/"
        if sid := self._server.manager.sid_from_eio_sid(eio_sid, namespace):
            if not self._server.manager.is_connected(sid, namespace):
                return  # the first CONNECT is answered soon
            self._connect_again(eio_sid, state, sid, packet)
        elif wait_ms := state.allowance.take(self._clock()):
            self._refuse(eio_sid, namespace, ApiError("rate_limited", TOO_MANY, retry_after_ms=wait_ms))
            slow_down(self._eio, eio_sid, state.allowance)
        elif namespace not in NAMESPACES:
            self._refuse(eio_sid, namespace, NO_NAMESPACE)
        else:
            self._server._handle_connect(eio_sid, packet.namespace, packet.data)
        self._note_connect(eio_sid, state, namespace)

    def _connect_again(self, eio_sid: str, state: SessionState, sid: str, packet: WirePacket) -> None:
        """A client sends a second CONNECT after two calls of connect(), for example. The same user keeps its place and its
        subscriptions. Any other token ends them first, and is then treated as in a first CONNECT."""
        namespace = packet.namespace or "/"
        if not self.admit(eio_sid, state):
            return  # it is still connected, as the answer to its first CONNECT said
        if self._server.namespace_handlers[namespace].connect_again(sid, self._server.environ[eio_sid], packet.data):
            self._server._send_packet(eio_sid, WirePacket(CONNECT, {"sid": sid}, namespace=namespace))
            return
        self._server._handle_disconnect(eio_sid, namespace, self._server.reason.CLIENT_DISCONNECT)
        self._server._handle_connect(eio_sid, packet.namespace, packet.data)

    def _refuse(self, eio_sid: str, namespace: str, error: ApiError) -> None:
        data = {"message": error.message, "data": error.to_dict()}
        self._server._send_packet(eio_sid, WirePacket(CONNECT_ERROR, data=data, namespace=namespace))

    def _note_connect(self, eio_sid: str, state: SessionState, namespace: str) -> None:
        has_joined = self._has_joined(eio_sid, namespace)
        if has_joined:
            state.max_packet_bytes = self._max_packet_bytes
            sid = self._server.manager.sid_from_eio_sid(eio_sid, namespace)
            state.user_id = self._server.namespace_handlers[namespace].members[sid].identity.user_id
        if state.allowance.note_connect(has_joined):
            log.info("connects_refused", transport_id=eio_sid, consequence="its transport is closed")
            close_transport(self._eio, eio_sid, "connects_refused")

    def _disconnect(self, eio_sid: str, state: SessionState, packet: WirePacket) -> None:
        """Leaving is never refused, but takes a token."""
        if self._has_joined(eio_sid, packet.namespace or "/"):  # else python-socketio would close the transport of the others
            self._server._handle_disconnect(eio_sid, packet.namespace, self._server.reason.CLIENT_DISCONNECT)
        self.admit(eio_sid, state)

    def _event(self, eio_sid: str, state: SessionState, packet: WirePacket) -> None:
        """The namespace takes the token of an event, since it answers with the event's id. An event for a namespace that the session
        has not joined gets no answer."""
        namespace, manager = packet.namespace or "/", self._server.manager
        sid = manager.sid_from_eio_sid(eio_sid, namespace)
        if manager.is_connected(sid, namespace):
            name, *arguments = packet.data
            self._server.namespace_handlers[namespace].trigger_event(name, sid, *arguments)
        else:
            self.admit(eio_sid, state)

    def _ack(self, eio_sid: str, state: SessionState, packet: WirePacket) -> None:
        if self.admit(eio_sid, state) and self._has_joined(eio_sid, packet.namespace or "/"):
            self._server._handle_ack(eio_sid, packet.namespace, packet.id, packet.data)

    def _binary(self, eio_sid: str, state: SessionState, packet: WirePacket) -> None:
        """No frame takes binary data. So the packet is refused before its attachments arrive, which are then read and dropped."""
        if not self._has_joined(eio_sid, packet.namespace or "/"):
            raise ValueError("a binary packet to a namespace that was not joined")
        state.attachments_due = packet.attachment_count
        if packet.packet_type == BINARY_EVENT:
            self._event(eio_sid, state, packet)
        else:
            self.admit(eio_sid, state)

    def _has_joined(self, eio_sid: str, namespace: str) -> bool:
        manager = self._server.manager
        return manager.is_connected(manager.sid_from_eio_sid(eio_sid, namespace), namespace)
