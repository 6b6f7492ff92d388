"""Which application loses numbers when the statistics have reached their bound. Pure.

The first SENIOR_APPS that were counted here are parties of their own, and all that came later are one party together: the party
that has most loses first. So invented applications, envs and times displace one another, and an application that was there before
them keeps at least a part of SENIOR_APPS + 1.
"""

import heapq
from collections.abc import Callable, Mapping
from typing import NamedTuple

SENIOR_APPS = 20
FREED_SHARE = 10  # a tenth of the bound is freed at once, so that this is rare


class Stored(NamedTuple):
    """`since` orders the applications by their first event here, by the server's own clock or count."""

    size: int
    since: int


def evict(apps: Mapping[str, Stored], drop_oldest: Callable[[str], tuple[int, int]], is_enough: Callable[[], bool]) -> dict[str, int]:
    """How many buckets went, by application. `drop_oldest` drops some of an application and gives (buckets, bytes), zeros where it has
    none left."""
    gone: dict[str, int] = {}
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
            gone[party[-1]] = gone.get(party[-1], 0) + count
        else:
            party.pop()
        if party:
            heapq.heappush(heap, (size + freed, number, party))
    return gone
