"""The bound over what is unfinished, and who loses where it is met. Values and `now` alone."""

import random

from app.serving.unfinished_bytes import ConnectionBytes, UnfinishedBytes, largest


def holding(party="ip:1", is_known=False):
    made = ConnectionBytes(party, lambda: None)
    made.is_known = is_known
    return made


def test_what_fits_stays():
    unfinished = UnfinishedBytes(1000, 500)
    one, two = holding(), holding()
    unfinished.resize(one, 250, 0)
    unfinished.resize(two, 250, 1)
    assert (unfinished.bytes, unfinished.unknown_bytes, one.is_dropped, two.is_dropped) == (500, 500, False, False)
    unfinished.resize(one, 0, 2)
    assert unfinished.bytes == 250


def test_the_client_with_most_bytes_for_longest_makes_room_and_is_told():
    unfinished, told = UnfinishedBytes(1000, 1000), []
    old, large, small = (ConnectionBytes("ip:1", lambda name=name: told.append(name)) for name in ("old", "large", "small"))
    unfinished.resize(old, 400, 0)
    unfinished.resize(large, 500, 9)
    unfinished.resize(small, 200, 10)
    assert told == ["old"]
    unfinished.resize(old, 400, 11)  # too late
    assert (old.is_dropped, old.bytes, unfinished.bytes) == (True, 0, 700)


def test_many_small_holdings_of_one_address_lose_before_one_larger_of_another():
    unfinished = UnfinishedBytes(10_000, 10_000)
    attacker = [holding("attacker") for _ in range(200)]
    for each in attacker[:98]:
        unfinished.resize(each, 100, 0)
    honest = holding("honest")
    unfinished.resize(honest, 200, 1)
    for each in attacker[98:]:
        unfinished.resize(each, 100, 1)
        unfinished.resize(honest, honest.bytes + 10, 1)
    assert not honest.is_dropped
    assert honest.bytes == 200 + 10 * 102


def test_strangers_make_room_among_themselves_and_never_among_those_who_are_known():
    unfinished = UnfinishedBytes(1000, 300)
    known = holding("user:u1", is_known=True)
    unfinished.resize(known, 600, 0)
    strangers = [holding(f"ip:{number}") for number in range(10)]
    for now, each in enumerate(strangers):
        unfinished.resize(each, 100, 10 + now)
    assert not known.is_dropped
    assert unfinished.unknown_bytes <= 300


def test_who_says_who_he_is_no_longer_counts_among_strangers():
    unfinished = UnfinishedBytes(1000, 300)
    one = holding()
    unfinished.resize(one, 250, 0)
    unfinished.identify(one, "user:u1", True)
    assert (unfinished.bytes, unfinished.unknown_bytes, one.party) == (250, 0, "user:u1")
    unfinished.resize(one, 900, 1)
    assert not one.is_dropped


def test_what_the_application_works_on_is_not_dropped_and_still_counts():
    unfinished = UnfinishedBytes(1000, 1000)
    worked_on, new = holding(), holding()
    unfinished.resize(worked_on, 900, 0)
    worked_on.is_in_work = True
    unfinished.resize(new, 200, 5)
    assert (worked_on.is_dropped, new.is_dropped, unfinished.bytes) == (False, True, 900)


def test_as_many_lose_as_are_needed_and_no_more():
    holdings = [holding(f"ip:{number}") for number in range(4)]
    for number, each in enumerate(holdings):
        each.bytes = 100 + number
    assert list(largest(holdings, 150, 1)) == [holdings[3], holdings[2]]
    assert list(largest(holdings, 0, 1)) == []


def test_whatever_comes_the_bounds_hold_and_the_sums_are_right():
    chance = random.Random(1)
    unfinished = UnfinishedBytes(5000, 2000)
    holdings = [holding(f"ip:{number % 5}") for number in range(30)]
    for now in range(3000):
        each = chance.choice(holdings)
        action = chance.random()
        if action < 0.1:
            unfinished.identify(each, each.party, True)
        else:
            each.is_in_work = False
            unfinished.resize(each, chance.choice([0, each.bytes + 100, each.bytes + 900, each.bytes // 2]), now)
        if each.is_dropped:
            assert each.bytes == 0
            holdings[holdings.index(each)] = holding(each.party)
        assert unfinished.bytes == sum(each.bytes for each in holdings) <= 5000
        assert unfinished.unknown_bytes == sum(each.bytes for each in holdings if not each.is_known)
        assert unfinished.unknown_bytes <= 2000
    assert unfinished.dropped > 50
