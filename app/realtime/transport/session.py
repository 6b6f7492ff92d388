"""The state that is kept for one Engine.IO session beside engineio's own, and how the server ends or slows a session.

A session that has joined no namespace is anonymous. Its packets may be as long as a token and a resume of the permitted number
of topics, and not longer.
"""

from dataclasses import dataclass

import engineio
import gevent

from app.realtime.allowance import Allowance

STATE = "switchyard"  # in engineio's dictionary of a session
CONNECT_BYTES = 1024  # of a CONNECT, beside its token and its positions
POSITION_BYTES = 512  # a topic of 255 characters, its epoch, its number, and three options


def max_connect_bytes(max_topics: int, max_token_bytes: int) -> int:
    """The length of the longest CONNECT that makes sense."""
    return CONNECT_BYTES + max_token_bytes + max_topics * POSITION_BYTES


@dataclass(slots=True)
class SessionState:
    allowance: Allowance
    max_packet_bytes: int
    user_id: str | None = None  # of the last CONNECT that was accepted
    attachments_due: int = 0  # of a binary packet that has been answered; they are counted and not kept


def state_of(eio: engineio.Server, eio_sid: str) -> SessionState:
    return eio.sockets[eio_sid].session[STATE]


def close_transport(eio: engineio.Server, eio_sid: str | None, reason: str) -> None:
    """End a session without the Engine.IO packet CLOSE, on which some clients do not reconnect by themselves. What waits for
    the client still leaves. `reason` is what the log says of each namespace that it was in."""
    session = eio.sockets.get(eio_sid)
    if session is not None:
        session.close(wait=False, abort=True, reason=reason)


def slow_down(eio: engineio.Server, eio_sid: str | None, allowance: Allowance) -> None:
    """Call it after a packet over the rate was answered: the session is read again after a pause, or is closed."""
    if allowance.is_flooding:
        close_transport(eio, eio_sid, "flood")
    else:
        gevent.sleep(allowance.pause_ms / 1000)
