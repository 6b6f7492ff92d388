"""Redis at a unix socket works for everything that uses Redis, and one that takes no writes is told apart from one that is up."""

import time

import pytest
import requests
import socketio

from tests.apps import SECRET, WRITE_KEY, bearer
from tests.servers import switchyard as switchyard_server
from tests.servers.real import real
from tests.servers.redis import RedisServer

ADMIN = bearer("root", "admin")


class AtUnixSocket(RedisServer):
    def command(self):
        return [*super().command(), "--unixsocket", self.folder / "r.sock"]

    @property
    def url(self):
        return f"unix://{self.folder}/r.sock?db=0"


@pytest.fixture
def redis_at_unix_socket():
    with real(AtUnixSocket) as server:
        yield server


def health(app):
    time.sleep(1)  # answers of /healthz are kept for a second
    return requests.get(f"{app.url}/healthz", headers=ADMIN, timeout=5).json()["dependencies"]["redis"]


@pytest.mark.parametrize("by", ["flask", "gunicorn"])
def test_redis_at_a_unix_socket_counts_carries_and_is_checked(switchyard, redis_at_unix_socket, by):
    redis = redis_at_unix_socket
    quoted = {"WRITE_KEYS": f'"web:{WRITE_KEY}"', "TELEMETRY_DENY": '"secret*"', "REDIS_URL": f"'{redis.url}'"}  # as docker --env-file does
    app = switchyard(by, JWT_SECRET=SECRET, **quoted)
    batch = {"app": "web", "events": [{"type": "event", "name": "secret.thing"}, {"type": "event", "name": "fine"}]}
    answer = requests.post(f"{app.url}/api/telemetry/batch", json=batch, headers={"X-Write-Key": WRITE_KEY}, timeout=5).json()
    assert answer["saved"] == 1 and answer["rejected"][0]["code"] == "denied"
    assert health(app)["state"] == "up"

    with redis.client() as client:
        requests.get(f"{app.url}/api/flags", headers=ADMIN, timeout=5)
        assert [key for key in client.scan_iter() if key.startswith(b"LIMITS")], "the rate limit counts in Redis"
        with socketio.SimpleClient() as browser:
            browser.connect(app.url, auth={"token": ADMIN["Authorization"].partition(" ")[2]}, transports=["websocket"])
            elsewhere = socketio.RedisManager(redis.url, channel="flask-socketio", write_only=True)
            elsewhere.emit("reservation:update", {"id": 1}, room="role:admin", namespace="/")
            assert browser.receive(timeout=5) == ["reservation:update", {"id": 1}], "an emit of another process arrives"
        event = {"event": "reservation:update", "to": "role:admin", "payload": {}}
        assert requests.post(f"{app.url}/api/realtime/emit", json=event, headers=ADMIN, timeout=5).ok

        for spoil, mend, reason in [
            ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "maxmemory"),
            ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only replica"),
            ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
        ]:
            client.execute_command(*spoil.split())
            found = health(app)
            assert found["state"] == "degraded" and reason in found["error"], found
            assert requests.get(f"{app.url}/api/flags", headers=ADMIN, timeout=5).ok
            client.execute_command(*mend.split())
        assert health(app)["state"] == "up"
    assert "Traceback" not in app.log


def test_gunicorn_at_a_unix_socket_says_that_all_clients_share_one_rate_bucket():
    class AtSocket(switchyard_server.Switchyard):
        def command(self):
            return [*super().command(), "--bind", f"unix:{self.folder}/s.sock"]

        def answers(self):
            return '"started"' in self.log

    warning = "clients_share_one_rate"
    with AtSocket("gunicorn", JWT_SECRET=SECRET) as app:
        assert warning in app.log and "TRUSTED_PROXIES" in app.log
    with AtSocket("gunicorn", JWT_SECRET=SECRET, TRUSTED_PROXIES="1") as app:
        assert warning not in app.log
