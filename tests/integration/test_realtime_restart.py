"""SIGTERM with clients connected: the process ends at once, and stock clients come back to its successor by themselves."""

import signal
import socket
import time

import pytest
import websocket

from tests.apps import SECRET, token
from tests.integration.realtime_client import Client

TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]]
SETTINGS = {"JWT_SECRET": SECRET, "RATE_LIMIT_HTTP": "10000/second"}


def raw_websocket(app, **options):
    return websocket.create_connection(f"ws://127.0.0.1:{app.port}/socket.io/?EIO=4&transport=websocket", timeout=5, **options)


def join(*identity):
    return f'40/realtime,{{"token":"{token(*identity)}"}}'


@pytest.mark.parametrize("by", ["gunicorn", "flask"])
def test_on_sigterm_the_process_ends_fast_and_stock_clients_reconnect_and_resume(switchyard, by):
    app = switchyard(by, **SETTINGS)
    clients = [Client(app.url, token("root", "admin"), transports=transports) for transports in TRANSPORTS]
    epoch = clients[0].say(type="subscribe", topic="t")["epoch"]
    seconds = app.stop()
    assert seconds < 10
    assert app.exit_code == 0
    app.start()
    for client in clients:
        client.wait(lambda client: client.connects == 2, within_s=10)
        answer = client.say(type="subscribe", topic="t", since=0, epoch=epoch)
        assert (answer["ok"], answer["recovered"], answer["reason"]) == (True, False, "epoch_changed")
        client.close()


def test_a_client_that_never_hangs_up_does_not_hold_the_process(switchyard):
    app = switchyard(**SETTINGS)
    deaf = raw_websocket(app)
    assert app.stop() < 10
    deaf.shutdown()


def test_a_client_that_does_not_read_does_not_hold_the_process(switchyard):
    app = switchyard(**SETTINGS)
    full = raw_websocket(app, sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
    full.send(join("root", "admin"))
    full.send('42/realtime,["message",{"type":"subscribe","topic":"t"}]')
    writer = Client(app.url, token("root", "admin"))
    for number in range(100):
        assert writer.say(type="publish", topic="t", id=str(number), payload="x" * 60_000)["ok"]
    writer.close()
    assert app.stop() < 10
    full.shutdown()


def test_nobody_is_told_of_a_close_that_is_only_of_the_namespace(switchyard):
    """A stock client that is merely disconnected stays away, so the packet for that must not be sent."""
    app = switchyard(**SETTINGS)
    raw = raw_websocket(app)
    raw.recv()
    raw.send(join("u1"))
    assert raw.recv().startswith("40/realtime")
    app._signal(signal.SIGTERM)
    assert raw.recv_data(control_frame=True)[0] == websocket.ABNF.OPCODE_CLOSE
    raw.shutdown()


def test_without_a_websocket_open_nothing_waits(switchyard):
    app = switchyard(**SETTINGS)
    started = time.monotonic()
    app.stop()
    assert time.monotonic() - started < 5
