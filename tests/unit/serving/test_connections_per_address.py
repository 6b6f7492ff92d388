"""How many connections one address may have."""

from app.serving.connections_per_address import ConnectionsPerAddress


def test_an_address_may_have_so_many_and_a_closed_one_makes_room():
    shares = ConnectionsPerAddress(2)
    assert [shares.acquire("a"), shares.acquire("a"), shares.acquire("a"), shares.acquire("b")] == [True, True, False, True]
    shares.release("a")
    assert [shares.acquire("a"), shares.acquire("a")] == [True, False]


def test_what_is_no_single_client_and_a_limit_of_0_have_no_bound():
    assert all(ConnectionsPerAddress(1).acquire(None) for _ in range(5))
    assert all(ConnectionsPerAddress(0).acquire("a") for _ in range(5))


def test_addresses_without_a_connection_are_forgotten():
    shares = ConnectionsPerAddress(5)
    for number in range(100):
        shares.acquire(f"a{number}")
        shares.release(f"a{number}")
    assert shares._open == {}
