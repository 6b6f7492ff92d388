"""CPU, memory, open files and what waits to be sent: of each worker and summed, under gunicorn and `flask run`."""

import json
import os
import re
import signal
import socket
import time

import pytest
import requests
import websocket

from tests.apps import SECRET, bearer, token
from tests.servers.switchyard import Switchyard
from tests.waiting import wait_until

METRICS = {"Authorization": "Bearer a token for metrics"}
SETTINGS = {
    "JWT_SECRET": SECRET,
    "METRICS_TOKEN": "a token for metrics",
    "RT_TOPIC_RATE": "10000/second",
    "RATE_LIMIT_HTTP": "10000/second",
}


def values(app, name):
    """{pid or None: value}"""
    return values_in(scrape(app), name)


def scrape(app):
    return requests.get(f"{app.url}/metrics", headers=METRICS, timeout=5).text


def values_in(text, name):
    found = re.findall(rf'^{name}(?:\{{pid="(\d+)"\}})? (\S+)$', text, re.MULTILINE)
    return {int(pid) if pid else None: float(value) for pid, value in found}


def one(app, name):
    return one_in(scrape(app), name)


def one_in(text, name):
    (value,) = values_in(text, name).values()
    return value


def test_each_worker_of_gunicorn_stands_for_itself_and_the_sum_for_all(switchyard, redis_url):
    app = switchyard(**SETTINGS, WEB_CONCURRENCY="2", REDIS_URL=redis_url)
    workers = set(wait_until(lambda: len(app.workers) == 2 and len(values(app, "worker_open_fds")) == 2 and app.workers))
    wait_until(lambda: values(app, "worker_resident_memory_bytes").keys() == workers)
    text = scrape(app)  # one for all, since workers that have just started grow
    resident = values_in(text, "worker_resident_memory_bytes")
    assert resident.keys() == workers and all(value > 10_000_000 for value in resident.values())
    assert one_in(text, "process_resident_memory_bytes") == pytest.approx(sum(resident.values()), rel=0.2)
    opened = one_in(text, "process_open_fds")
    assert opened == pytest.approx(sum(values_in(text, "worker_open_fds").values()), abs=10) and opened < one_in(text, "process_max_fds")
    assert 0 < time.time() - one_in(text, "process_start_time_seconds") < 60

    spent = one_in(text, "process_cpu_seconds_total")
    assert spent >= 0.9 * sum(values_in(text, "worker_cpu_seconds").values()) > 0
    ended = workers.pop()
    os.kill(ended, signal.SIGKILL)
    wait_until(lambda: len(app.workers) == 2 and ended not in app.workers and set(values(app, "worker_cpu_seconds")) == set(app.workers))
    assert one(app, "process_cpu_seconds_total") >= spent, "what an ended worker spent stays spent"


@pytest.mark.parametrize("by", ["flask", "gunicorn"])
def test_what_waits_for_a_client_that_does_not_read_is_counted_in_bytes(by):
    with Switchyard(by, **SETTINGS, RT_SOCKET_BUFFER_BYTES="4096") as app:
        assert one(app, "realtime_send_queue_bytes") == 0
        small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]
        client = websocket.create_connection(f"ws://127.0.0.1:{app.port}/socket.io/?EIO=4&transport=websocket", timeout=5, sockopt=small)
        client.recv()
        client.send(f"40/realtime,{json.dumps({'token': token('root', 'admin')})}")
        client.recv()
        client.send('42/realtime,["message",{"type":"subscribe","topic":"t","id":"1","ack":false}]')
        client.recv()
        for _ in range(10):
            body = {"topic": "t", "payload": "x" * 60_000}
            assert requests.post(f"{app.url}/api/realtime/publish", json=body, headers=bearer("root", "admin"), timeout=5).ok
        assert wait_until(lambda: one(app, "realtime_send_queue_bytes")) > 60_000
        client.shutdown()
        wait_until(lambda: one(app, "realtime_send_queue_bytes") == 0)
        assert one(app, "process_resident_memory_bytes") > 10_000_000 and one(app, "process_open_fds") > 5
