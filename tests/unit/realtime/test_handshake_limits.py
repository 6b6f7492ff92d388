"""What Engine.IO answers over HTTP, and how many sessions an address may open."""

from types import SimpleNamespace

import orjson
import pytest

from app.metrics import Metrics
from app.realtime.buckets import Rate
from app.realtime.transport.handshake_limits import HandshakeLimits
from app.serving.server import MAX_SESSIONS
from tests.apps import Clock

OPENED = SimpleNamespace(has_opened=True)
WEBSOCKET = {"wsgi.websocket": OPENED}


def engine_io(environ, start_response):
    """As the library answers, by the path's last part."""
    what = environ["PATH_INFO"].rsplit("/", 1)[1]
    if what == "websocket":
        while environ.get("nested"):
            environ["nested"].pop()()
        return []
    if what == "fails":
        raise KeyError("a mistake")
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
    door = HandshakeLimits(
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


def test_who_has_a_session_and_who_asks_for_something_else_is_not_counted_as_new(ask):
    for _ in range(10):
        assert ask(query="EIO=4&sid=s")[0][:3] == "200"
        assert ask(method="POST")[0][:3] == "200"
        assert ask("/api/flags")[0][:3] == "200"
    assert ask("/socket.io/websocket", query="EIO=4&transport=websocket", **WEBSOCKET) == (None, {}, b"")


@pytest.mark.parametrize("query", ["EIO=4&sid=s", "sid=x", "EIO=4&transport=websocket&sid=s", "EIO=4&sid=s&t=1"])
def test_whatever_an_address_asks_beside_new_sessions_is_held_to_a_rate_of_its_own(ask, query):
    answers = [ask(query=query, method=("GET", "POST", "PUT", "OPTIONS")[number % 4])[0][:3] for number in range(150)]
    assert "429" not in answers[:100] and set(answers[100:]) == {"429"}
    assert ask(query=query, address="192.0.2.9")[0][:3] != "429"
    assert ask()[0][:3] == "200"  # a handshake has its own
    ask.clock.pass_ms(10)
    assert ask(query=query)[0][:3] != "429"


@pytest.mark.parametrize(
    ("query", "extra"),
    [
        ("EIO=4&transport=polling&j=0", {}), ("EIO=4&sid=s&j=x", {}), ("EIO=4&transport=websocket", {}),
        ("EIO=4&transport=websocket&sid=s", {}), ("EIO=4&transport=polling", WEBSOCKET), ("EIO=4&sid=s", WEBSOCKET), ("&" * 21, {}),
    ],
)  # fmt: skip
def test_what_the_library_would_fail_at_is_a_400_with_a_sentence(ask, query, extra):
    status, headers, body = ask("/socket.io/fails", query=query, **extra)
    assert status == "400 Bad Request" and headers["X-Content-Type-Options"] == "nosniff"
    assert orjson.loads(body)["error"]["message"]


def test_a_mistake_of_ours_is_an_answer_of_the_catalogue(ask):
    status, headers, body = ask("/socket.io/fails")
    assert status.startswith("500 ") and orjson.loads(body)["error"]["code"] == "internal" and headers["X-Request-Id"]


def test_every_answer_forbids_sniffing(ask):
    for path in ("/socket.io/", "/socket.io/bad", "/socket.io/garbage"):
        assert ask(path, query="sid=s")[1]["X-Content-Type-Options"] == "nosniff"


def test_where_live_connections_have_all_the_room_that_there_is_for_them_one_more_is_503_and_others_are_answered(ask):
    """A websocket and a poll are calls that last; each is one inside the other here."""
    room = {MAX_SESSIONS: 2}
    said = []

    def inside():
        said.extend([ask(query="sid=s", **room), ask(query="sid=s", method="POST", **room), ask("/livez", **room)])

    websocket = {"path": "/socket.io/websocket", "query": "EIO=4&transport=websocket", **WEBSOCKET, **room}
    ask(**websocket, nested=[lambda: ask(**websocket, nested=[inside])])
    (full, headers, body), post, livez = said
    assert full.startswith("503 ") and orjson.loads(body)["error"]["code"] == "unavailable" and headers["Retry-After"] == "5"
    assert (post[0][:3], livez[0][:3]) == ("200", "200")
    assert ask(query="sid=s", **room)[0][:3] == "200"
