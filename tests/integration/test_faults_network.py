"""A bad network between us and MongoDB: answers that are late, cut or lost, with the writes they were about done or not."""

import random
import time

import pytest

from tests.integration.telemetry_clients import SETTINGS, Clients, assert_kept, stored_names, wait_until_drained
from tests.servers.real import real
from tests.servers.switchyard import Switchyard

TIMEOUT_S = SETTINGS["MONGO_TIMEOUT_MS"] / 1000
SLACK_S = 1.5  # for a machine with other things to do


@pytest.fixture(scope="module")
def way(toxiproxy, mongo_server):
    proxy = toxiproxy.proxy_to(mongo_server.port)
    yield proxy
    proxy.delete()


@pytest.fixture(scope="module")
def uri(mongo_server):
    return mongo_server.new_database()


@pytest.fixture(scope="module")
def app(way, uri, mongo_server):
    app = real(Switchyard, MONGO_URI=uri.replace(str(mongo_server.port), str(way.port)), **SETTINGS)
    yield app.start()
    app.close()


@pytest.fixture
def clients(app, uri):
    """Sending while the test does its worst; what they were promised is looked for afterwards."""
    stored_before = set(stored_names(uri))
    with Clients(app.url) as clients:
        clients.until(lambda: clients.answers.get("mongo", 0) > 10)
        yield clients
        clients.until(lambda: clients.answers.get("mongo", 0) > 20)
    wait_until_drained(app)
    clients.sent |= stored_before
    assert_kept(clients, uri)


def test_a_mongo_that_accepts_and_never_answers_costs_a_request_one_timeout_at_most(clients, way):
    with way.toxic("timeout", timeout=0):
        clients.until(lambda: clients.answers.get("spool", 0) > 50)
        time.sleep(1)
    assert clients.slowest_s < TIMEOUT_S + SLACK_S
    assert "storage_full" not in clients.answers


def test_a_mongo_that_is_never_heard_is_the_same(clients, way):
    with way.toxic("timeout", stream="upstream", timeout=0):
        clients.until(lambda: clients.answers.get("spool", 0) > 50)
    assert clients.slowest_s < TIMEOUT_S + SLACK_S


def test_a_slow_mongo_around_the_timeout_loses_and_doubles_nothing(clients, way):
    with way.toxic("latency", latency=int(TIMEOUT_S * 1000), jitter=200):
        time.sleep(2)
    assert clients.slowest_s < TIMEOUT_S + SLACK_S


def test_answers_cut_after_any_number_of_bytes_lose_and_double_nothing(clients, way):
    for _ in range(8):
        with way.toxic("limit_data", bytes=random.choice([0, 1, 15, 16, 17, random.randrange(18, 120), random.randrange(120, 2000)])):
            time.sleep(random.uniform(0.1, 0.5))


def test_requests_cut_after_any_number_of_bytes_lose_and_double_nothing(clients, way):
    for _ in range(5):
        with way.toxic("limit_data", stream="upstream", bytes=random.randrange(0, 5000)):
            time.sleep(random.uniform(0.1, 0.5))


def test_connections_that_are_reset_lose_and_double_nothing(clients, way):
    for _ in range(5):
        with way.toxic("reset_peer", timeout=random.choice([0, 1, 20])):
            time.sleep(random.uniform(0.1, 0.4))
        time.sleep(random.uniform(0.1, 0.6))
