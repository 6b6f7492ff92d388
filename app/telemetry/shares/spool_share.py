"""How much of the spool one application may take. Pure.

A part of the spool, 1 - `share`, is divided into equal floors: one for each party, which nobody else can take. What is left is
common, and one party may take `share` of what the others leave of it. So with the usual 0.8 an application that is alone can use
65 % of the spool, a second one still finds a seventh of it, and whatever the others do each has its floor. The limits never add up
to more than the spool.

Parties are the applications that a write key names, the first MAX_APPS others that have something in the spool, and all further
ones together as one: invented names share one part.
"""

from collections.abc import Mapping
from typing import NamedTuple

MAX_APPS = 16
OTHER = "(other)"  # the party of all further applications


class SpoolShare(NamedTuple):
    """`parties` is how many there can be."""

    max_bytes: int
    share: float
    parties: int

    def limit_of(self, party: str, stored: Mapping[str, int]) -> int:
        """How many bytes it may have in the spool while the others have what is `stored`."""
        floor = (1 - self.share) * self.max_bytes / self.parties
        taken = sum(size - floor for other, size in stored.items() if size > floor and other != party)
        return int(floor + self.share * max(0.0, self.share * self.max_bytes - taken))
