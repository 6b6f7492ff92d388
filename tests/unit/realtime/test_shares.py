"""Who has to give up what all publishers share."""

from random import Random

import pytest

from app.realtime.log.shares import Shares


def make(limit, **amounts):
    """Holdings by name; a name in capitals is the server's or a service's."""
    shares = Shares(limit)
    holdings = {name: shares.holding(name, name.isupper()) for name in amounts}
    for name, amount in amounts.items():
        holdings[name].change(amount)
    return shares, holdings


def first_loser(shares):
    return next(shares.losers()) if shares.is_over() else None


@pytest.mark.parametrize(
    ("limit", "amounts", "loser"),
    [
        (10, {"a": 6, "b": 4}, None),
        (10, {"a": 6, "b": 5}, "a"),
        (10, {"a": 5, "b": 6}, "b"),
        (10, {"SERVICE": 9, "a": 2}, "a"),
        (10, {"SERVICE": 10, "a": 1}, None),  # the reserve of users
        (80, {"SERVICE": 80, "a": 10}, None),
        (80, {"SERVICE": 80, "a": 6, "b": 5}, "a"),
        (10, {"SERVICE": 8, "OTHER": 3, "a": 1}, "SERVICE"),
        (10, {"a": 99, "SERVICE": 1}, "a"),
    ],
)
def test_the_one_that_holds_most_gives_up_first_and_the_server_never_for_a_user(limit, amounts, loser):
    shares, _ = make(limit, **amounts)
    assert first_loser(shares) == loser


def test_of_equal_holdings_the_one_that_has_had_its_rank_for_longest_gives_up_first():
    shares, _ = make(2, a=1, b=1, c=1)
    assert list(shares.losers()) == ["a", "b", "c"]


def test_within_a_thousandth_of_the_limit_holdings_count_as_equal_and_beyond_it_they_do_not():
    shares, holdings = make(1_024_000, a=600_100, b=600_900, c=500)
    assert first_loser(shares) == "a"
    holdings["b"].change(200)
    assert first_loser(shares) == "b"
    assert list(shares.losers()) == ["b", "a", "c"]


@pytest.mark.parametrize("limit", [1, 7, 1024, 5000, 1_000_000])
def test_whatever_changes_the_ranks_are_those_of_the_amounts(limit):
    random = Random(limit)
    shares, holdings = make(limit, **dict.fromkeys("abcDEF", 0))
    for _ in range(2000):
        holding = random.choice(list(holdings.values()))
        holding.change(random.choice([-holding.amount, random.randint(-holding.amount, 0), random.randint(0, limit // 3 + 1)]))
        assert shares.total == sum(holding.amount for holding in holdings.values())
        if shares.is_over():
            losers = list(shares.losers())
            ranks = [holdings[name].amount // shares.step for name in losers]
            assert ranks == sorted(ranks, reverse=True)
            assert len({name.isupper() for name in losers}) == 1
            assert set(losers) == {name for name in holdings if holdings[name].amount and name.isupper() == losers[0].isupper()}
