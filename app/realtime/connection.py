"""What the hub knows of one client, and how it is answered."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.errors import ApiError
from app.identity.identity import Identity
from app.realtime.allowance import Allowance
from app.realtime.subscription import NO_LINK, Subscription
from app.realtime.transport import Link

Answer = Callable[[dict[str, Any]], None]  # takes the frame that answers what the client said


@dataclass(slots=True)
class Connection:
    id: str
    identity: Identity
    allowance: Allowance | None = None  # of its transport session, which it shares with the other namespace
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    has_expired: bool = False
    link: Link = NO_LINK  # none in the namespace /, which has no topics

    @property
    def valid_identity(self) -> Identity:
        """Raises `token_expired`."""
        if self.has_expired:
            raise ApiError("token_expired")
        return self.identity
