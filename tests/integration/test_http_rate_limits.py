"""The rate limit: whom it counts together, what it answers, and what becomes of it without Redis."""

import time

import pytest

from tests.apps import WRITE_KEY, bearer, error_of, make_app

BATCH = {"app": "web", "events": []}
KEY = {"X-Write-Key": WRITE_KEY}


@pytest.fixture
def limited(tmp_path):
    """Three requests an hour."""
    return make_app(tmp_path, rate_limit_http="3/hour").test_client()


def statuses(client, *requests):
    """The status of GET /api/flags with each of these headers; an address may stand in the place of the header's name."""
    answers = []
    for headers in requests:
        address = headers.get("from", "127.0.0.1")
        sent = {name: value for name, value in headers.items() if name != "from"}
        answers.append(client.get("/api/flags", headers=sent, environ_base={"REMOTE_ADDR": address}).status_code)
    return answers


def test_over_the_limit_is_429_with_the_seconds_to_wait_in_header_and_body(limited):
    assert statuses(limited, *[bearer("u1")] * 3) == [200, 200, 200]
    refused = limited.get("/api/flags", headers=bearer("u1"))
    error = error_of(refused)
    assert (refused.status_code, error["code"], error["retryable"]) == (429, "rate_limited", True)
    assert 0 < error["retryAfterMs"] <= 3_601_000
    assert int(refused.headers["Retry-After"]) == -(-error["retryAfterMs"] // 1000)


def test_users_are_counted_apart_though_they_share_an_address(limited):
    assert statuses(limited, *[bearer("u1")] * 4, *[bearer("u2")] * 3) == [200, 200, 200, 429, 200, 200, 200]


def test_a_user_is_counted_once_wherever_and_with_whatever_token(limited):
    requests = [bearer("u1"), {**bearer("u1", "editor"), "from": "10.0.0.1"}, bearer("u1", "admin"), {**bearer("u1"), "from": "10.0.0.2"}]
    assert statuses(limited, *requests) == [200, 200, 200, 429]


def test_all_routes_count_into_one_limit(limited):
    assert statuses(limited, bearer("u1")) == [200]
    assert limited.post("/api/telemetry/batch", json=BATCH, headers=bearer("u1")).status_code == 200
    assert limited.get("/api/telemetry/config", headers=bearer("u1")).status_code == 200
    assert limited.post("/api/telemetry/batch", json=BATCH, headers=bearer("u1")).status_code == 429
    assert limited.post("/api/realtime/publish", json={}, headers=bearer("u1")).status_code == 429


def test_a_write_key_is_counted_by_address_since_everybody_has_it(limited):
    assert statuses(limited, *[KEY] * 4, {**KEY, "from": "10.0.0.1"}) == [200, 200, 200, 429, 200]


def test_a_wrong_credential_counts_against_the_address(limited):
    wrong = [{"Authorization": f"Bearer guess-{number}"} for number in range(4)]
    assert statuses(limited, *wrong, KEY) == [401, 401, 401, 429, 429]
    assert statuses(limited, bearer("u1")) == [200]


def test_nobody_in_particular_counts_against_the_address_too(limited):
    assert statuses(limited, {}, {}, {}, {}) == [401, 401, 401, 429]


def test_addresses_of_one_ipv6_network_count_together_and_an_ipv4_written_as_ipv6_is_itself(limited):
    same = [{**KEY, "from": address} for address in ("2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3", "2001:db8::4")]
    assert statuses(limited, *same, {**KEY, "from": "2001:db8:0:1::1"}) == [200, 200, 200, 429, 200]
    mapped = [{**KEY, "from": "::ffff:10.0.0.9"}] * 3
    assert statuses(limited, *mapped, {**KEY, "from": "10.0.0.9"}) == [200, 200, 200, 429]


def test_health_and_metrics_and_preflights_are_never_refused(limited):
    preflight = {"Origin": "https://a.test", "Access-Control-Request-Method": "GET"}
    for _ in range(5):
        for path in ("/livez", "/readyz", "/healthz", "/metrics"):
            assert limited.get(path).status_code == 200
        assert limited.options("/api/flags", headers=preflight).status_code == 200


def test_addresses_that_do_not_exist_count_too(limited):
    answers = [limited.get("/nowhere") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [404, 404, 404, 429]
    assert error_of(answers[3])["code"] == "rate_limited"


@pytest.mark.parametrize("port_of", [lambda n: f"9.9.9.9:{n}", lambda n: f"[2001:db8::1]:{n}", lambda n: f"junk-{n}"])
def test_a_port_or_nonsense_in_an_address_buys_no_fresh_count(limited, port_of):
    assert statuses(limited, *[{**KEY, "from": port_of(5000 + n)} for n in range(4)]) == [200, 200, 200, 429]


def test_a_refusal_is_counted(limited):
    statuses(limited, *[KEY] * 5)
    assert b"http_rate_limited_total 2.0" in limited.get("/metrics").data


def test_the_limit_ends_with_its_window(tmp_path):
    client = make_app(tmp_path, rate_limit_http="1/second").test_client()
    wait_for_a_new_second()
    assert statuses(client, KEY, KEY) == [200, 429]
    time.sleep(1.1)
    assert statuses(client, KEY) == [200]


def wait_for_a_new_second():
    time.sleep(1 - time.time() % 1)


# Behind proxies.


def forwarded(addresses):
    return {**KEY, "X-Forwarded-For": addresses}


def test_without_trusted_proxies_nobody_can_choose_an_address(limited):
    assert statuses(limited, *[forwarded(f"10.0.0.{number}") for number in range(4)]) == [200, 200, 200, 429]


def test_with_trusted_proxies_the_address_is_the_one_that_the_outermost_of_them_saw(tmp_path):
    client = make_app(tmp_path, rate_limit_http="1/hour", trusted_proxies=2).test_client()
    assert statuses(client, forwarded("9.9.9.9, 10.0.0.1, 172.16.0.1"), forwarded("8.8.8.8, 10.0.0.1, 172.16.0.1")) == [200, 429]
    assert statuses(client, forwarded("9.9.9.9, 10.0.0.2, 172.16.0.1")) == [200]


# Redis.


@pytest.fixture
def clients_of(tmp_path):
    def make(url, count=2, limit="3/hour"):
        return [make_app(tmp_path / str(n), rate_limit_http=limit, redis_url=url).test_client() for n in range(count)]

    return make


def test_two_applications_with_one_redis_share_the_count(clients_of, redis_url):
    first, second = clients_of(redis_url)
    assert statuses(first, KEY, KEY) + statuses(second, KEY, KEY) == [200, 200, 200, 429]


def seconds(action):
    started = time.monotonic()
    action()
    return time.monotonic() - started


def batch(client):
    return client.post("/api/telemetry/batch", json=BATCH, headers=KEY)


@pytest.mark.parametrize("end", ["kill", "pause"])
def test_without_redis_requests_are_served_at_once_and_counted_in_memory(clients_of, own_redis, end):
    (client,) = clients_of(own_redis.url, count=1)
    assert statuses(client, KEY) == [200]
    getattr(own_redis, end)()
    assert seconds(lambda: batch(client)) < 2
    assert seconds(lambda: [batch(client) for _ in range(5)]) < 2
    assert batch(client).status_code == 429
    if end == "pause":
        own_redis.resume()


def test_a_redis_that_was_not_there_at_the_start_is_no_reason_not_to_start(clients_of, own_redis):
    own_redis.kill()
    (client,) = clients_of(own_redis.url, count=1)
    assert statuses(client, KEY, KEY, KEY, KEY) == [200, 200, 200, 429]


@pytest.mark.parametrize("ask", [batch, lambda client: client.get("/api/flags", headers=KEY)], ids=["the batch route", "any route"])
def test_when_redis_is_back_the_count_is_shared_again(clients_of, own_redis, ask):
    first, second = clients_of(own_redis.url, limit="1000/hour")
    own_redis.kill()
    ask(first), ask(second)
    own_redis.start()
    with own_redis.client(decode_responses=True) as redis:

        def both_count_in_redis():
            before = sum(int(redis.get(key)) for key in redis.keys("LIMITS*"))
            ask(first), ask(second)
            return sum(int(redis.get(key)) for key in redis.keys("LIMITS*")) - before == 2

        deadline = time.monotonic() + 15
        while not both_count_in_redis():
            assert time.monotonic() < deadline
            time.sleep(0.1)
