"""Fixtures of several modules: clients of a running server, the collection of events, and the commands of telemetry.

`connect` makes python-socketio clients, `raw` bare websockets. Both need a fixture `app`.
"""

import socket

import pymongo
import pytest
import websocket

from tests.apps import SECRET, make_app, token
from tests.integration.realtime_client import Client
from tests.integration.telemetry_clients import COLLECTION
from tests.servers.real import real
from tests.servers.switchyard import Switchyard


@pytest.fixture(scope="module")
def unlimited_app():
    """A server with rates that no test reaches. The log must not contain a traceback at the end."""
    unlimited = {"RATE_LIMIT_HTTP": "10000/second", "RT_CONNECTION_RATE": "1000000/second", "RT_CONNECTION_BURST": 1_000_000}
    with real(Switchyard, "gunicorn", JWT_SECRET=SECRET, **unlimited) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.fixture
def collection(mongo_uri):
    """The collection of events."""
    with pymongo.MongoClient(mongo_uri) as client:
        yield client.get_default_database()[COLLECTION]


@pytest.fixture
def telemetry_command(tmp_path, mongo_uri):
    """A function that runs `flask telemetry …` and returns its exit code and output."""

    def run(*words, stdin=None, **settings):
        app = make_app(tmp_path, **{"mongo_uri": mongo_uri, **settings})
        result = app.test_cli_runner().invoke(args=["telemetry", *map(str, words)], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


@pytest.fixture
def connect(app):
    """A function that makes a Client from a token and options."""
    clients = []

    def connect(*args, **options):
        clients.append(Client(app.url, *args, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def raw(app):
    """A function that makes an Engine.IO connection by websocket. The connection reads only when the test calls `recv`, and has a
    small receive buffer. It has joined /realtime as an admin, or with the JSON text `auth`; with None it has not joined."""
    connections = []
    admin = f'{{"token":"{token("root", "admin")}"}}'

    def connect(auth=admin, joins=True):
        small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)]
        url = f"ws://127.0.0.1:{app.port}/socket.io/?EIO=4&transport=websocket"
        connection = websocket.create_connection(url, timeout=5, sockopt=small)
        connections.append(connection)
        assert connection.recv().startswith("0{")
        if auth is not None:
            connection.send(f"40/realtime,{auth}")
            assert not joins or connection.recv().startswith("40/realtime,{")
        return connection

    yield connect
    for connection in connections:
        connection.shutdown()


@pytest.fixture
def bystander(app):
    """Another client. The fixture fails if it misses a message of its topic or loses its connection."""
    client = Client(app.url, token("bystander", "admin"))
    client.say(type="subscribe", topic="calm")
    yield client
    published = client.say(type="publish", topic="calm", id=f"m{client.sio.sid}", payload=1)
    assert published["ok"]
    client.wait(lambda client: [frame for frame in client.of("event") if frame["seq"] == published["seq"]])
    assert client.connects == 1
    client.close()
