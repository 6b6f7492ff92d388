"""What the hub knows of one client, and how it is answered."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.errors import ApiError
from app.identity import Identity
from app.realtime.buckets import Bucket, Rate
from app.realtime.subscription import Subscription

MAX_REFUSALS = 20  # frames over the rate within REFUSALS_MS; whoever goes on then is not listening
REFUSALS_MS = 5000

Answer = Callable[[dict[str, Any]], None]  # takes the frame that answers what the client said


@dataclass(slots=True)
class Connection:
    id: str
    identity: Identity
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    bucket: Bucket | None = None
    refusals: deque[int] = field(default_factory=lambda: deque(maxlen=MAX_REFUSALS))
    has_expired: bool = False

    @property
    def valid_identity(self) -> Identity:
        """Raises `token_expired`."""
        if self.has_expired:
            raise ApiError("token_expired")
        return self.identity

    def wait_for_token(self, rate: Rate, now: int) -> int:
        """0 where one more frame is within the rate; else for how many milliseconds it is not."""
        if self.bucket is None:
            self.bucket = Bucket(rate, now)
        return self.bucket.take(now)

    def note_refusal(self, now: int) -> bool:
        """True where it was one too many."""
        is_too_many = len(self.refusals) == MAX_REFUSALS and self.refusals[0] > now - REFUSALS_MS
        self.refusals.append(now)
        return is_too_many
