"""Clients of a running server: `connect` for python-socketio's, `raw` for a bare websocket. Both want a fixture `app`."""

import socket

import pytest
import websocket

from tests.apps import SECRET, token
from tests.integration.realtime_client import Client
from tests.servers.real import real
from tests.servers.switchyard import Switchyard


@pytest.fixture(scope="module")
def unlimited_app():
    """A server whose rates nobody reaches, to be asked what is wrong; none of it may leave a traceback in the log."""
    unlimited = {"RATE_LIMIT_HTTP": "10000/second", "RT_CONNECTION_RATE": "1000000/second", "RT_CONNECTION_BURST": 1_000_000}
    with real(Switchyard, "gunicorn", JWT_SECRET=SECRET, **unlimited) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.fixture
def connect(app):
    """Call it with a token and options for a Client."""
    clients = []

    def connect(*args, **options):
        clients.append(Client(app.url, *args, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def raw(app):
    """Call it for an Engine.IO connection by websocket that reads when it is told to and no more than its system takes; it has
    joined /realtime as an admin, or as whom `auth` (JSON text) says, unless that is None."""
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
    """Somebody else, who gets what is published to her topic, and is never cut off."""
    client = Client(app.url, token("bystander", "admin"))
    client.say(type="subscribe", topic="calm")
    yield client
    published = client.say(type="publish", topic="calm", id=f"m{client.sio.sid}", payload=1)
    assert published["ok"]
    client.wait(lambda client: [frame for frame in client.of("event") if frame["seq"] == published["seq"]])
    assert client.connects == 1
    client.close()
