"""When the store is full, the application with most buckets loses first, and all newcomers count as one application."""

from app.telemetry.stats.store.eviction import SENIOR_APPS, Stored, evict


class Apps:
    def __init__(self, **sizes):
        self.sizes = dict(sizes)
        self.left = sum(sizes.values())

    def drop(self, app):
        gone = min(10, self.sizes[app])
        self.sizes[app] -= gone
        self.left -= gone
        return (1, gone) if gone else (0, 0)

    def evict_to(self, left):
        stored = {app: Stored(size, number) for number, (app, size) in enumerate(self.sizes.items())}
        return evict(stored, self.drop, lambda: self.left <= left)


def test_the_largest_application_loses_until_it_is_as_small_as_the_next():
    apps = Apps(big=1000, middle=500, small=100)
    assert apps.evict_to(1100) == {"big": 50}
    apps.evict_to(700)
    assert apps.sizes == {"big": 300, "middle": 300, "small": 100}


def test_newcomers_lose_before_an_older_application_although_each_of_them_is_smaller():
    apps = Apps(**{f"old{n}": 100 for n in range(SENIOR_APPS)}, **{f"new{n}": 20 for n in range(100)})
    apps.evict_to(SENIOR_APPS * 100 + 150)
    assert all(apps.sizes[f"old{n}"] == 100 for n in range(SENIOR_APPS))
    assert sum(apps.sizes[f"new{n}"] for n in range(100)) <= 150


def test_an_older_application_keeps_its_part_whatever_newcomers_send():
    apps = Apps(first=10_000, **{f"new{n}": 10_000 for n in range(200)})
    apps.evict_to(21_000)
    assert apps.sizes["first"] >= 21_000 // (SENIOR_APPS + 1) - 10


def test_eviction_ends_when_nothing_is_left():
    apps = Apps(a=15, **{f"n{n}": 5 for n in range(40)})
    apps.evict_to(-1)
    assert apps.left == 0
