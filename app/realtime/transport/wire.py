"""Socket.IO packets, read strictly and written by orjson: the class that python-socketio is given as its serializer."""

from dataclasses import dataclass
from typing import Any

import orjson
from socketio.packet import BINARY_EVENT, CONNECT, DISCONNECT, EVENT, Packet

from app.errors import ApiError
from app.http.json import decode_json

RESERVED_EVENTS = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"})
MAX_ATTACHMENTS = 16  # none is ever used, and each has to be read
NO_BINARY = "A frame is JSON; binary has no place in it."


class NoJson(ValueError):
    """The message says what is wrong with it."""


class Json:
    """What python-socketio and python-engineio expect of a json module."""

    @staticmethod
    def dumps(value, **_) -> str:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()

    @staticmethod
    def loads(text: str):
        try:
            return decode_json(text)
        except ApiError as error:
            raise NoJson(error.message) from None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Replaces an argument that cannot be used, with the reason for the error frame. `said` is what can be read of it."""

    sentence: str
    said: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """Stands before the arguments of every event from a client: `id` is the callback that waits, or None."""

    id: int | None


class WirePacket(Packet):
    """Raises ValueError for what no client may send, the names included that python-socketio uses for its own events."""

    json = Json

    def decode(self, encoded_packet):
        try:
            attachments = super().decode(encoded_packet)
        except NoJson as error:
            if self.packet_type not in (CONNECT, DISCONNECT, EVENT):
                raise
            self.data = ["message", Unreadable(str(error))] if self.packet_type == EVENT else Unreadable(str(error))
            attachments = 0
        if attachments > MAX_ATTACHMENTS:
            raise ValueError("too many attachments")
        if self.packet_type in (EVENT, BINARY_EVENT):
            if not isinstance(self.data, list) or not self.data or not isinstance(self.data[0], str):
                raise ValueError("an event is a list that begins with a name")
            if self.data[0] in RESERVED_EVENTS:
                raise ValueError("this event name is reserved")
            self.data.insert(1, Call(self.id))
        if self.packet_type == BINARY_EVENT:
            self.data[2:] = [Unreadable(NO_BINARY, *self.data[2:3])]
        return attachments
