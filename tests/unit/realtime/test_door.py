"""What Engine.IO answers over HTTP, and how many sessions an address may open."""

import orjson
import pytest

from app.metrics import Metrics
from app.realtime.buckets import Rate
from app.realtime.transport.door import Door
from tests.apps import Clock


def engine_io(environ, start_response):
    """As the library answers, by the path's last part."""
    what = environ["PATH_INFO"].rsplit("/", 1)[1]
    if what == "websocket":
        return []
    if what == "bad":
        start_response("400 BAD REQUEST", [("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", "*")])
        return [b'"Invalid session x"']
    if what == "garbage":
        start_response("400 Bad Request", [("Connection", "close")])
        return [b"Bad Request"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


@pytest.fixture
def ask():
    """(status, headers, body) of a request, at a clock of its own."""
    clock = Clock()
    door = Door(
        engine_io,
        Rate.of("10/second", burst=3),
        Rate.of("100/second"),
        clock,
        Metrics(),
        lambda origin: [("Access-Control-Allow-Origin", origin or "*")],
    )

    def ask(path="/socket.io/", query="EIO=4&transport=polling", address="192.0.2.1", method="GET", **headers):
        environ = {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": method, "REMOTE_ADDR": address, **headers}
        said = []
        body = b"".join(door(environ, lambda *start: said.append(start)))
        return (said[0][0], dict(said[0][1]), body) if said else (None, {}, body)

    ask.clock = clock
    return ask


def test_every_answer_has_a_request_id_the_callers_own_where_it_is_a_sane_one(ask):
    assert len(ask(query="sid=s")[1]["X-Request-Id"]) == 32
    assert ask(query="sid=s", HTTP_X_REQUEST_ID="r-1")[1]["X-Request-Id"] == "r-1"
    assert ask(query="sid=s", HTTP_X_REQUEST_ID="r\n1")[1]["X-Request-Id"] != "r\n1"


@pytest.mark.parametrize(
    ("path", "message"), [("/socket.io/bad", "Invalid session x"), ("/socket.io/garbage", "The request has the wrong shape.")]
)
def test_a_refusal_of_the_library_has_the_shape_of_the_catalogue(ask, path, message):
    status, headers, body = ask(path, query="sid=x")
    assert status.startswith("400 ") and headers["Content-Type"] == "application/json" and headers["X-Request-Id"]
    assert orjson.loads(body) == {"ok": False, "error": {"code": "bad_request", "message": message, "retryable": False}}


def test_an_address_may_open_so_many_sessions_at_once_and_then_so_many_a_second(ask):
    assert [ask()[0][:3] for _ in range(4)] == ["200", "200", "200", "429"]
    ask.clock.pass_ms(100)
    assert [ask()[0][:3] for _ in range(2)] == ["200", "429"]


def test_too_many_are_429_with_the_time_to_wait_in_the_shape_of_the_catalogue(ask):
    for _ in range(3):
        ask()
    _, headers, body = ask(HTTP_ORIGIN="https://shop.example.com")
    error = orjson.loads(body)["error"]
    assert (error["code"], error["retryable"]) == ("rate_limited", True) and 0 < error["retryAfterMs"] <= 101
    assert headers["Retry-After"] == "1" and headers["X-Request-Id"]
    assert headers["Access-Control-Allow-Origin"] == "https://shop.example.com"


def test_each_address_has_a_count_of_its_own_and_an_ipv6_network_shares_one(ask):
    for address in ("192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8::3"):
        ask(address=address)
    assert ask(address="192.0.2.1")[0][:3] == "200"
    assert ask(address="2001:db8::4")[0][:3] == "429"


def test_who_has_a_session_and_who_asks_for_something_else_is_not_counted(ask):
    for _ in range(10):
        assert ask(query="EIO=4&sid=s")[0][:3] == "200"
        assert ask(method="POST")[0][:3] == "200"
        assert ask("/api/flags")[0][:3] == "200"
    assert ask("/socket.io/websocket") == (None, {}, b"")
