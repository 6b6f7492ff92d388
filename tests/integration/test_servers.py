"""The proofs stand on the real parts, so these come first: each part does what the other tests take for granted."""

import pathlib
import signal
import socket
import subprocess
import sys
import time

import pymongo
import pytest
import redis
import requests
from pymongo.errors import OperationFailure

from tests.servers import ports
from tests.servers.real import Unavailable, real
from tests.servers.switchyard import REPOSITORY

OWNER = """
import time
from tests.servers.{module} import {kind}
server = {kind}().start()
print(server.port, server.folder, flush=True)
time.sleep(60)
"""


def wait_until(true, within_s=10):
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)


def seconds(action):
    started = time.monotonic()
    action()
    return time.monotonic() - started


# What a machine does not have.


def test_a_missing_part_skips_its_test_with_the_reason(monkeypatch):
    monkeypatch.delenv("REQUIRE_REAL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is no such thing"):
        real(_missing)


def test_a_missing_part_fails_its_test_where_real_parts_are_required(monkeypatch):
    monkeypatch.setenv("REQUIRE_REAL", "1")
    with pytest.raises(pytest.fail.Exception, match="there is no such thing"):
        real(_missing)


def _missing():
    raise Unavailable("there is no such thing")


# Every server: its end.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_and_its_folder_are_gone_when_the_tests_are_killed(redis_server, number):
    _kill_an_owner(OWNER.format(module="redis", kind="RedisServer"), number)


def test_both_halves_of_a_mongo_are_gone_when_the_tests_are_killed(mongo_server):
    _kill_an_owner(OWNER.format(module="mongo", kind="MongoServer"), signal.SIGKILL)


def _kill_an_owner(script, number):
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY)
    with owner:
        port, folder = owner.stdout.readline().split()
        assert ports.is_listening(int(port))
        owner.send_signal(number)
        wait_until(lambda: not ports.is_listening(int(port)))
        wait_until(lambda: not pathlib.Path(folder).exists())


def test_a_server_that_cannot_start_shows_its_log(own_redis):
    second = type(own_redis)()
    second.port = own_redis.port
    second.answers = lambda: False
    with pytest.raises(AssertionError, match="Address already in use"):
        second.start()
    second.close()


# Redis.


def test_redis_answers_and_a_test_finds_it_empty(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping() and client.dbsize() == 0
        client.set("left", "behind")


def test_redis_is_empty_for_the_next_test_too(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_a_killed_redis_comes_back_on_the_same_port_with_nothing(own_redis):
    with own_redis.client(retry=None) as client:
        client.set("key", "value")
        own_redis.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        own_redis.start()
        assert client.get("key") is None


def test_a_killed_redis_that_keeps_data_comes_back_with_all_of_it(own_redis_that_keeps_data):
    with own_redis_that_keeps_data.client() as client:
        client.set("key", "value")
        own_redis_that_keeps_data.kill()
        own_redis_that_keeps_data.start()
        assert client.get("key") == b"value"


def test_a_paused_redis_says_nothing_until_it_is_resumed(own_redis):
    with own_redis.client(socket_timeout=0.2, retry=None) as client:
        own_redis.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        own_redis.resume()
        assert client.ping()


# MongoDB.


def test_mongo_keeps_what_it_acknowledged_through_kill_and_restart(own_mongo):
    with own_mongo.client() as client:
        assert client.shop.events.insert_one({"_id": 1, "name": "kept"}).acknowledged
        own_mongo.kill()
        assert not ports.is_listening(own_mongo.port)
        own_mongo.start()
        assert client.shop.events.find_one() == {"_id": 1, "name": "kept"}
        own_mongo.restart()
        assert client.shop.events.count_documents({}) == 1


def test_each_test_gets_a_database_of_its_own(mongo_server, mongo_uri):
    assert mongo_server.new_database() != mongo_uri
    with pymongo.MongoClient(mongo_uri) as client:
        assert client.get_default_database().list_collection_names() == []


def test_mongo_with_a_login_lets_in_who_has_the_password(mongo_server_with_login):
    with pymongo.MongoClient(mongo_server_with_login.new_database()) as client:
        database = client.get_default_database()
        database.events.insert_one({"_id": 1})
        assert database.events.count_documents({}) == 1


def test_mongo_with_a_login_refuses_a_wrong_password_with_code_18(mongo_server_with_login):
    user, _ = mongo_server_with_login.login
    assert _refusal(mongo_server_with_login.uri_as(user, "guessed")) == 18


def test_mongo_with_a_login_refuses_nobody_in_particular_with_code_13(mongo_server_with_login):
    assert _refusal(f"mongodb://127.0.0.1:{mongo_server_with_login.port}/") == 13


def _refusal(uri):
    with pymongo.MongoClient(uri) as client, pytest.raises(OperationFailure) as refused:
        client.shop.events.insert_one({})
    return refused.value.code


# The bad network.


@pytest.fixture
def redis_through(proxy_to, own_redis):
    """The way to a Redis, and a client that goes that way and never tries twice."""
    way = proxy_to(own_redis.port)
    with redis.Redis(port=way.port, socket_timeout=5, retry=None) as client:
        assert client.ping()
        yield way, client


def test_latency_delays_every_answer(redis_through):
    way, client = redis_through
    with way.toxic("latency", latency=300):
        assert 0.3 <= seconds(client.ping) < 1
    assert seconds(client.ping) < 0.2


def test_limit_data_loses_the_answer_after_the_write_was_done(redis_through, own_redis):
    way, client = redis_through
    with way.toxic("limit_data", bytes=0), pytest.raises(redis.ConnectionError):
        client.incr("written")
    with own_redis.client() as beside:
        assert beside.get("written") == b"1"


def test_limit_data_cuts_an_answer_after_so_many_bytes(redis_through):
    way, client = redis_through
    client.set("long", "x" * 100_000)
    with way.toxic("limit_data", bytes=50_000), pytest.raises(redis.ConnectionError):
        client.get("long")
    assert len(client.get("long")) == 100_000


def test_a_timeout_of_0_lets_nothing_pass_and_closes_nothing(redis_through):
    way, _ = redis_through
    with way.toxic("timeout", timeout=0), redis.Redis(port=way.port, socket_timeout=0.3, retry=None) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()


def test_reset_peer_resets_the_connection(redis_through):
    way, client = redis_through
    with way.toxic("reset_peer", timeout=0), pytest.raises(redis.ConnectionError):
        client.ping()


def test_slow_close_keeps_a_connection_open_after_the_server_closed_it(redis_through):
    way, _ = redis_through
    with way.toxic("slow_close", delay=400):
        assert seconds(lambda: _quit_and_wait_for_the_end(way.port)) >= 0.4


def _quit_and_wait_for_the_end(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"QUIT\r\n")
        while connection.recv(100):
            pass


def test_a_disabled_way_refuses_connections_until_it_is_enabled(redis_through):
    way, client = redis_through
    way.disable()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    way.enable()
    assert client.ping()


# Node and the browser.


def test_node_has_the_official_client(node):
    assert node.run("console.log(require('socket.io-client/package.json').version, process.argv[1])", "given") == "4.8.4 given\n"


def test_a_script_of_node_that_fails_says_what_it_said(node):
    with pytest.raises(AssertionError, match="no good"):
        node.run("throw new Error('no good')")


def test_a_spawned_script_of_node_can_be_talked_to(node):
    with node.spawn("process.stdin.on('data', d => console.log('heard ' + d))") as script:
        script.stdin.write("this")
        script.stdin.close()
        assert script.stdout.read() == "heard this\n"


def test_the_browser_renders_a_page_and_runs_its_script(page):
    page.set_content("<h1>before</h1><script>document.querySelector('h1').textContent = 'after'</script>")
    assert page.text_content("h1") == "after"
    assert page.locator("h1").bounding_box()["height"] > 0


# Switchyard itself.


@pytest.mark.parametrize("by", ["flask", "gunicorn"])
def test_switchyard_starts_answers_and_stops(switchyard, by):
    app = switchyard(by=by, APP_ENV="development")
    assert requests.get(f"{app.url}/livez", timeout=5).status_code == 200
    assert app.stop() < 10
    assert not ports.is_listening(app.port)


def test_a_killed_switchyard_starts_again_on_its_port(switchyard):
    app = switchyard(APP_ENV="development")
    app.kill()
    assert not ports.is_listening(app.port)
    app.restart()
    assert requests.get(f"{app.url}/livez", timeout=5).status_code == 200
