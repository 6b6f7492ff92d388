"""How much a member of a namespace may say, and until when: with tokens that end while the connection stays."""

import pytest

from app.errors import ApiError
from app.identity.identity import Identity
from app.realtime.allowance import Allowance
from app.realtime.members import Members
from app.realtime.options import Options
from app.realtime.timers import Timers
from tests.apps import NOW

GRACE_MS = 1000


def user(user_id="u1", expires_at=NOW + 5000, roles=()):
    return Identity(kind="user", user_id=user_id, roles=roles, expires_at=expires_at)


class House:
    def __init__(self):
        self.told, self.closed = [], []
        options = Options(token_grace_ms=GRACE_MS, connection_rate="10/second", connection_burst=5)
        self.members = Members(options, Timers(), self.tell, self.close)
        self.members.join("a", user())

    def tell(self, connection_id, error, **places):
        self.told.append((connection_id, error, places))

    def close(self, connection_id, reason):
        assert reason == "token_expired"
        self.closed.append(connection_id)


@pytest.fixture
def house():
    return House()


def test_a_token_that_expires_is_told_with_the_time_that_is_left_and_then_the_connection_is_closed(house):
    house.members.tick(NOW + 4999)
    assert house.told == []
    house.members.tick(NOW + 5000)
    ((connection_id, error, places),) = house.told
    assert (connection_id, error.code, error.retry_after_ms, places) == ("a", "token_expired", None, {"grace_ms": GRACE_MS})
    with pytest.raises(ApiError):
        _ = house.members["a"].valid_identity
    house.members.tick(NOW + 5999)
    assert house.closed == []
    house.members.tick(NOW + 6000)
    assert house.closed == ["a"]


@pytest.mark.parametrize("renewed_at", [NOW, NOW + 5500])
def test_a_fresh_token_before_or_after_that_keeps_the_connection_for_as_long_as_it_lasts(house, renewed_at):
    house.members.tick(renewed_at)
    before = house.members.renew("a", user(expires_at=NOW + 60_000, roles=("editor",)))
    assert before.roles == () and house.members["a"].valid_identity.roles == ("editor",)
    house.members.tick(NOW + 59_999)
    assert house.closed == []
    house.members.tick(NOW + 60_000)
    house.members.tick(NOW + 61_000)
    assert house.closed == ["a"]


def test_the_token_of_another_user_is_refused_and_changes_nothing(house):
    with pytest.raises(ApiError) as caught:
        house.members.renew("a", user("u2", expires_at=None))
    assert caught.value.code == "forbidden"
    house.members.tick(NOW + 5000)
    assert len(house.told) == 1


def test_who_has_left_is_neither_told_nor_closed(house):
    assert house.members.leave("a").identity.user_id == "u1"
    assert house.members.leave("a") is None
    house.members.tick(NOW + 60_000)
    assert (house.told, house.closed, len(house.members)) == ([], [], 0)


def test_a_token_without_an_end_is_never_asked_for_another(house):
    house.members.join("b", user(expires_at=None))
    house.members.tick(NOW + 10**12)
    assert [connection_id for connection_id, *_ in house.told] == ["a"]


def test_over_the_rate_a_frame_is_refused_with_the_time_to_wait_and_the_connection_stays(house):
    for _ in range(5):
        house.members.admit("a", NOW)
    for _ in range(400):
        with pytest.raises(ApiError) as caught:
            house.members.admit("a", NOW)
        assert caught.value.code == "rate_limited" and caught.value.retry_after_ms > 0
    assert house.closed == []


def test_two_places_of_one_transport_session_share_its_allowance(house):
    allowance = Allowance(Options(connection_rate="10/second", connection_burst=5), NOW)
    house.members.join("b", user(), allowance)
    for _ in range(5):
        house.members.admit("b", NOW)
    house.members.leave("b")
    house.members.join("c", user(), allowance)
    with pytest.raises(ApiError, match="rate_limited"):
        house.members.admit("c", NOW)
