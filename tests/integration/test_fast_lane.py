"""The short way and Flask's way answer alike; and the short way is really taken."""

import codecs
import gc
import gzip
import json
import tracemalloc

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from app.errors import ApiError
from app.telemetry.sinks.memory import MemorySink
from tests.apps import WRITE_KEY, bearer, make_app

URL = "/api/telemetry/batch"
BATCH = {"app": "web", "events": [{"type": "page", "name": "/"}, {"type": "page"}]}
TEXT = json.dumps(BATCH)
KEY = {"X-Write-Key": WRITE_KEY}
CHANGING = ("X-Request-Id", "Date")


@pytest.fixture
def app(tmp_path):
    return make_app(tmp_path, parts={"sink": MemorySink()}, cors_origins="https://good.test,https://*.many.test")


def both_answers(app, **request):
    """(by the short way, by Flask's way): a path with a trailing newline-free twin is not needed, the lane is just closed."""
    options = {"path": URL, "data": TEXT, "headers": KEY, "content_type": "application/json", **request}
    fast = app.test_client().post(**options)
    lane, app.wsgi_app = app.wsgi_app, app.wsgi_app._application
    slow = app.test_client().post(**options)
    app.wsgi_app = lane
    return fast, slow


def comparable(response):
    headers = {name: value for name, value in response.headers if name not in CHANGING}
    return response.status_code, headers, response.get_json()


REQUESTS = {
    "plain": {},
    "a beacon": {"path": f"{URL}?writeKey={WRITE_KEY}", "headers": {}, "content_type": "text/plain;charset=UTF-8"},
    "a token": {"headers": bearer("u1")},
    "gzip": {"data": gzip.compress(TEXT.encode()), "headers": {**KEY, "Content-Encoding": "gzip"}},
    "gzip with padding": {"data": gzip.compress(TEXT.encode()) + bytes(512), "headers": {**KEY, "Content-Encoding": "gzip"}},
    "a byte order mark": {"data": codecs.BOM_UTF8 + TEXT.encode()},
    "what is adjusted": {"data": json.dumps({**BATCH, "userId": "", "release": "r" * 129})},
    "perf": {"path": "/api/perf/batch"},
    "an origin": {"headers": {**KEY, "Origin": "https://good.test"}},
    "an origin by pattern": {"headers": {**KEY, "Origin": "https://a.many.test"}},
    "another origin": {"headers": {**KEY, "Origin": "https://bad.test"}},
    "a wrong key": {"headers": {"X-Write-Key": "wrong"}},
    "nobody": {"headers": {}},
    "not JSON": {"data": "{"},
    "no batch": {"data": '{"events":{}}'},
    "too large": {"data": '{"events":[],"pad":"' + "x" * 512_000 + '"}'},
    "not gzip": {"headers": {**KEY, "Content-Encoding": "gzip"}},
    "another type": {"content_type": "text/csv"},
    "another encoding": {"headers": {**KEY, "Content-Encoding": "br"}},
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_both_ways_give_the_same_answer_with_the_same_headers(app, request_):
    fast, slow = both_answers(app, **request_)
    assert comparable(fast) == comparable(slow)


@pytest.mark.parametrize("name", ["plain", "a beacon", "a token", "gzip", "perf", "an origin", "not JSON", "not gzip"])
def test_an_ordinary_request_never_reaches_flask(app, name):
    app.wsgi_app._application = None
    assert app.test_client().post(**{"path": URL, "data": TEXT, "headers": KEY, "content_type": "application/json", **REQUESTS[name]})


def test_a_request_id_is_kept_on_both_ways(app):
    fast, slow = both_answers(app, headers={**KEY, "X-Request-Id": "mine-1"})
    assert fast.headers["X-Request-Id"] == slow.headers["X-Request-Id"] == "mine-1"


def test_both_ways_count_into_one_limit(tmp_path):
    app = make_app(tmp_path, parts={"sink": MemorySink()}, rate_limit_http="4/hour")
    answers = [response.status_code for _ in range(3) for response in both_answers(app)]
    assert answers == [200, 200, 200, 200, 429, 429]


def test_both_ways_count_into_the_same_metrics(app):
    both_answers(app)
    text = app.extensions["switchyard"].metrics.render().decode()
    assert f'http_requests_total{{method="POST",route="{URL}",status="200"}} 2.0' in text
    assert f'http_request_seconds_count{{route="{URL}"}} 2.0' in text


def test_an_overload_is_answered_on_the_short_way_with_retry_after(tmp_path):
    class FullSink:
        def write(self, events):
            raise ApiError("storage_full", retry_after_ms=5000)

    fast, slow = both_answers(make_app(tmp_path, parts={"sink": FullSink()}))
    assert comparable(fast) == comparable(slow)
    assert fast.headers["Retry-After"] == "5"


BOUND = "wk_that_is_bound_to_the_shop"
MIXED = {"app": "shop", "events": [{"type": "page", "name": "/"}, {"type": "page", "name": "/", "app": "blog"}]}


@pytest.mark.parametrize("body", [MIXED, {**MIXED, "app": "blog"}, {"events": MIXED["events"]}], ids=["one", "every", "no app"])
def test_a_bound_write_key_is_answered_alike_on_both_ways(tmp_path, body):
    app = make_app(tmp_path, parts={"sink": MemorySink()}, write_keys=f"shop:{BOUND}@shop+docs")
    fast, slow = both_answers(app, data=json.dumps(body), headers={"X-Write-Key": BOUND})
    assert comparable(fast) == comparable(slow)
    rows = {row["index"]: row["code"] for row in fast.get_json()["rejected"]}
    assert rows[1] == "forbidden" and fast.status_code == 200
    assert fast.get_json()["saved"] + len(rows) == 2


@pytest.mark.parametrize("setting", ["TELEMETRY_ADDRESS_BYTE_RATE", "TELEMETRY_KEY_BYTE_RATE", "TELEMETRY_APP_BYTE_RATE"])
def test_a_budget_that_is_used_up_is_answered_alike_on_both_ways(tmp_path, setting):
    app = make_app(tmp_path, parts={"sink": MemorySink()}, telemetry_byte_burst_s=1, **{setting.lower(): "3600/hour"})
    large = json.dumps({"app": "web", "events": [{"type": "page", "name": "/", "props": {"pad": "x" * 20_000}}]})
    assert app.test_client().post(URL, data=large, headers=KEY, content_type="application/json").status_code == 200
    fast, slow = both_answers(app)
    assert (fast.status_code, fast.headers["Retry-After"]) == (slow.status_code, slow.headers["Retry-After"])
    assert fast.status_code == 429 and int(fast.headers["Retry-After"]) > 10_000
    for answer in (fast, slow):
        error = answer.get_json()["error"]
        assert (error["code"], setting in error["message"]) == ("rate_limited", True)


def test_a_surprise_is_left_to_flask_with_the_body_unread(tmp_path):
    class BrokenSink:
        def write(self, events):
            raise RuntimeError("a surprise")

    fast, slow = both_answers(make_app(tmp_path, parts={"sink": BrokenSink()}))
    assert comparable(fast) == comparable(slow)
    assert fast.status_code == 500


MANY = json.dumps({"app": "web", "events": [{"type": "page", "name": "/"}] * 2000})
REFUSED = {
    "too many events": (413, MANY),
    "too many events, cut off": (413, MANY[:-1]),
    "cut off": (400, MANY[: len(MANY) // 4]),
    "a wrong envelope": (400, json.dumps({"app": 5, "pad": MANY, "events": []})),
    "a wrong event": (200, json.dumps({"app": "web", "events": [{"type": "page", "name": "/", "props": {"a": MANY}}]})),
}


@pytest.mark.parametrize("lane", ["the short way", "Flask's way"])
@pytest.mark.parametrize(("status", "text"), REFUSED.values(), ids=REFUSED)
def test_what_was_refused_leaves_nothing_to_the_collector_of_cycles(app, lane, status, text):
    way = app.wsgi_app if lane == "the short way" else app.wsgi_app._application
    options = {"path": URL, "method": "POST", "data": text, "headers": KEY, "content_type": "application/json"}
    environs = [EnvironBuilder(**options).get_environ() | {"REMOTE_ADDR": "127.0.0.1"} for _ in range(51)]
    run_wsgi_app(way, environs.pop())
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        while environs:
            assert run_wsgi_app(way, environs.pop())[1].startswith(str(status))
        assert tracemalloc.get_traced_memory()[0] - before < 10 * len(text)
    finally:
        tracemalloc.stop()
        gc.enable()
