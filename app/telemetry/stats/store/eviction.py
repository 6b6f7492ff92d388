"""Decides which application loses buckets when the statistics have reached their maximum size. Pure.

Each of the first SENIOR_APPS applications is a party of its own, and all later ones together are one more party. The party with most
bytes loses first. So invented applications, envs and times displace one another, and an older application keeps at least one part of
SENIOR_APPS + 1.
"""

import heapq
from collections.abc import Callable, Mapping
from typing import NamedTuple

SENIOR_APPS = 20
FREED_SHARE = 10  # a tenth of the maximum size is freed at once, so that eviction is rare


class Stored(NamedTuple):
    """The bytes of an application, and when it was first counted here by the server's clock."""

    size: int
    since: int


def evict(apps: Mapping[str, Stored], drop_oldest: Callable[[str], tuple[int, int]], is_enough: Callable[[], bool]) -> dict[str, int]:
    """Return how many buckets were deleted, by application. `drop_oldest` deletes some buckets of an application and returns their number
    and bytes, zeros where it has none left."""
    dropped: dict[str, int] = {}
    by_age = sorted(apps, key=lambda app: (apps[app].since, app))
    parties = [[app] for app in by_age[:SENIOR_APPS]]
    if late := by_age[SENIOR_APPS:]:
        parties.append(sorted(late, key=lambda app: apps[app].size))
    heap = [(-sum(apps[app].size for app in party), number, party) for number, party in enumerate(parties)]
    heapq.heapify(heap)
    while heap and not is_enough():
        size, number, party = heapq.heappop(heap)
        count, freed = drop_oldest(party[-1])
        if count:
            dropped[party[-1]] = dropped.get(party[-1], 0) + count
        else:
            party.pop()
        if party:
            heapq.heappush(heap, (size + freed, number, party))
    return dropped
