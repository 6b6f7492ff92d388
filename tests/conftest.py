"""The real parts as fixtures, and a header that says which of them this machine has.

The shared ones last for the whole run and must be left working; a test that stops or kills takes an `own_…` one. The
test process is never monkey-patched: an app made by create_app() works unpatched, and everything else is a process.
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
    """The shared Redis, emptied."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_redis():
    """A Redis to stop, kill and pause; it forgets everything when it ends."""
    yield from _serving(redis.RedisServer)


@pytest.fixture
def own_redis_that_keeps_data():
    """A Redis to stop and kill; it comes back with all it had acknowledged."""
    yield from _serving(redis.RedisServer, keeps_data=True)


@pytest.fixture(scope="session")
def mongo_server():
    yield from _serving(mongo.shared_server)


@pytest.fixture
def mongo_uri(mongo_server):
    """A new database on the shared server, dropped afterwards."""
    uri = mongo_server.new_database()
    yield uri
    with mongo_server.client() as client:
        client.drop_database(uri.rsplit("/", 1)[-1].split("?")[0])


@pytest.fixture
def own_mongo():
    """A MongoDB to stop, kill and pause; it comes back with all it had acknowledged."""
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
    """Call it with a port: a Proxy to it, gone after the test."""
    proxies = []

    def make(port):
        proxies.append(toxiproxy.proxy_to(port))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.delete()


@pytest.fixture
def small_disk():
    """Four megabytes, to be filled and freed."""
    yield from _serving(disk.SmallDisk, 4_194_304)


@pytest.fixture(scope="session", name="node")
def node_with_packages():
    return real(node.Node)


@pytest.fixture(scope="module")
def chromium():
    """A Browser for one module and not for the whole run: while it is open Playwright has an event loop running in this
    thread, and any other test's asyncio.run() would refuse to start."""
    real(chromium_server.executable)
    with sync_playwright() as playwright:
        browser = chromium_server.launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page in a context of its own: no cookies, no storage and no cache of another test."""
    with chromium.new_context() as context:
        yield context.new_page()


@pytest.fixture(name="switchyard")
def switchyard_processes():
    """Call it with `by="gunicorn"` or `by="flask"` and settings: Switchyard as a running process."""
    running = []

    def start(by="gunicorn", **settings):
        running.append(switchyard.Switchyard(by, **settings))
        return running[-1].start()

    yield start
    for process in running:
        process.close()
