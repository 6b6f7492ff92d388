"""Who sent a batch: the party that its requests are counted under, and the credential that it came with."""

from typing import NamedTuple

from app.identity.identity import Identity
from app.telemetry.batch import Batch
from app.telemetry.config.event_filter import without

TOKENS = "tokens"  # the name under which all that come with a token are counted beside the write keys


class Sender(NamedTuple):
    """`party` is `user:<id>` or `ip:<address>`, as the rate limit counts."""

    party: str
    identity: Identity

    @property
    def key(self) -> str:
        return self.identity.write_key_name or TOKENS

    def admit(self, batch: Batch) -> Batch:
        """The same batch, with the events of applications that the write key may not name among the rejected."""
        if self.identity.apps is None:
            return batch
        foreign = {
            place: f"This write key may not name the application {event.app}."
            for place, event in enumerate(batch.events)
            if not self.identity.may_name(event.app)
        }
        return without(foreign, batch, "forbidden") if foreign else batch
