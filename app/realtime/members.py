"""The connections of a namespace: their identity, their rate, and the lifetime of their token.

When a token expires, its client gets `token_expired` and some time to send a new one; then the connection is closed. /realtime
and / have one Members each.
"""

from collections.abc import Callable, Iterator

from app.errors import ApiError
from app.identity.identity import Identity
from app.realtime.allowance import Allowance
from app.realtime.connection import Connection
from app.realtime.options import Options
from app.realtime.timers import Timers

TOO_MANY = "Too many frames; slow down."


class Members:
    """The open connections of one namespace, by their id.

    `tell(connection_id, error, **places)` sends an error frame, `close(connection_id, reason)` closes the connection. The owner of
    `timers` calls the handlers in `deadlines`.
    """

    def __init__(self, options: Options, timers: Timers, tell: Callable[..., None], close: Callable[[str, str], None]):
        self._grace_ms = options.token_grace_ms
        self._options = options
        self._timers = timers
        self._tell = tell
        self._close = close
        self._connections: dict[str, Connection] = {}
        self.deadlines = {"token": self._on_token_expired, "grace": self._on_grace_over}

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._connections

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._connections.values())

    def __getitem__(self, connection_id: str) -> Connection:
        return self._connections[connection_id]

    def join(self, connection_id: str, identity: Identity, allowance: Allowance | None = None) -> Connection:
        """Add a connection and return it. `allowance` is that of its transport session; without one the connection gets its own."""
        connection = self._connections[connection_id] = Connection(connection_id, identity, allowance)
        self._watch_token(connection_id, identity)
        return connection

    def leave(self, connection_id: str) -> Connection | None:
        """Remove a connection and its timers. Returns None if it is unknown."""
        connection = self._connections.pop(connection_id, None)
        for kind in self.deadlines:
            self._timers.cancel((kind, connection_id))
        return connection

    def admit(self, connection_id: str, now: int) -> None:
        """Take one frame out of the connection's rate. Raises ApiError `rate_limited`."""
        allowance = self.allowance(connection_id, now)
        if wait_ms := allowance.take(now):
            message = "Frames kept coming at many times the rate; the connection is closed." if allowance.is_flooding else TOO_MANY
            raise ApiError("rate_limited", message, retry_after_ms=wait_ms)

    def allowance(self, connection_id: str, now: int) -> Allowance:
        """Return the connection's allowance. Makes one if the connection came without."""
        connection = self._connections[connection_id]
        if connection.allowance is None:
            connection.allowance = Allowance(self._options, now)
        return connection.allowance

    def renew(self, connection_id: str, identity: Identity) -> Identity:
        """Replace the identity by that of a new token. Returns the old one. Raises ApiError `forbidden` for another user's token."""
        connection = self._connections[connection_id]
        before = connection.identity
        if identity.user_id != before.user_id:
            raise ApiError("forbidden", "The token is of another user; connect anew with it.")
        connection.identity, connection.has_expired = identity, False
        self._timers.cancel(("grace", connection_id))
        self._watch_token(connection_id, identity)
        return before

    def tick(self, now: int) -> None:
        """Run the deadlines that are due. For an owner whose `timers` hold only these."""
        for kind, connection_id in self._timers.due(now):
            self.deadlines[kind](connection_id, now)

    def _watch_token(self, connection_id: str, identity: Identity) -> None:
        if identity.expires_at is not None:
            self._timers.set(("token", connection_id), identity.expires_at)

    def _on_token_expired(self, connection_id: str, now: int) -> None:
        """Subscriptions continue until the grace period ends. New ones are rejected."""
        self._connections[connection_id].has_expired = True
        self._timers.set(("grace", connection_id), now + self._grace_ms)
        self._tell(connection_id, ApiError("token_expired"), grace_ms=self._grace_ms)

    def _on_grace_over(self, connection_id: str, _now: int) -> None:
        self._close(connection_id, "token_expired")
