"""Fixtures for the real servers, and a header of the run that lists which of them this machine has.

Shared servers last for the whole run, and a test must leave them working. A test that stops or kills a server uses an `own_…`
fixture. gevent does not patch the test process: an app made by create_app() works without, and other servers are processes.
"""

import pytest
from playwright.sync_api import sync_playwright

from tests.servers import chromium as chromium_server
from tests.servers import disk, mongo, node, redis, switchyard, toxiproxy
from tests.servers.real import Unavailable, real

PARTS = {"redis": redis, "mongo": mongo, "toxiproxy": toxiproxy, "node": node, "browser": chromium_server}


def pytest_report_header():
    return [f"real {name}: {_found(part)}" for name, part in PARTS.items()]


def _found(part):
    try:
        return part.found()
    except Unavailable as reason:
        return f"none, {reason}"


def _serving(make, *arguments, **options):
    """Start a server for the time of a fixture, or skip the test where the machine lacks it."""
    server = real(make, *arguments, **options)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def redis_server():
    yield from _serving(redis.RedisServer)


@pytest.fixture
def redis_url(redis_server):
    """The address of the shared Redis, after emptying it."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_redis():
    """A Redis that the test may stop, kill and pause. It loses its data when it ends."""
    yield from _serving(redis.RedisServer)


@pytest.fixture
def own_redis_that_keeps_data():
    """A Redis that the test may stop and kill. It restarts with everything that it acknowledged."""
    yield from _serving(redis.RedisServer, keeps_data=True)


@pytest.fixture(scope="session")
def mongo_server():
    yield from _serving(mongo.shared_server)


@pytest.fixture
def mongo_uri(mongo_server):
    """The address of a new database on the shared MongoDB, dropped after the test."""
    uri = mongo_server.new_database()
    yield uri
    with mongo_server.client() as client:
        client.drop_database(uri.rsplit("/", 1)[-1].split("?")[0])


@pytest.fixture
def own_mongo():
    """A MongoDB that the test may stop, kill and pause. It restarts with everything that it acknowledged."""
    yield from _serving(mongo.MongoServer)


@pytest.fixture(scope="session")
def mongo_server_with_login():
    for server in _serving(mongo.MongoServer):
        yield server.require_login()


@pytest.fixture(scope="session", name="toxiproxy")
def toxiproxy_server():
    yield from _serving(toxiproxy.Toxiproxy)


@pytest.fixture
def proxy_to(toxiproxy):
    """A function that makes a Toxiproxy `Proxy` to a port, deleted after the test."""
    proxies = []

    def make(port):
        proxies.append(toxiproxy.proxy_to(port))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.delete()


@pytest.fixture
def small_disk():
    """A disk of four megabytes that the test may fill and free."""
    yield from _serving(disk.SmallDisk, 4_194_304)


@pytest.fixture(scope="session", name="node")
def node_with_packages():
    return real(node.Node)


@pytest.fixture(scope="module")
def chromium():
    """A Browser for one module. While it is open, Playwright runs an event loop in this thread, and asyncio.run() of a test in
    another module would fail."""
    real(chromium_server.executable)
    with sync_playwright() as playwright:
        browser = chromium_server.launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page in a context of its own, without cookies, storage or cache of another test."""
    with chromium.new_context() as context:
        yield context.new_page()


@pytest.fixture(name="switchyard")
def switchyard_processes():
    """A function that starts Switchyard as a process, from `by="gunicorn"` or `by="flask"` and settings."""
    running = []

    def start(by="gunicorn", **settings):
        running.append(switchyard.Switchyard(by, **settings))
        return running[-1].start()

    yield start
    for process in running:
        process.close()
