"""The issuer's keys: fetched over real HTTP, kept through its outages, never fetched because a stranger says so."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from app.identity.jwks import FRESH_MS, MAX_SET_BYTES, REST_MS, USER_AGENT, Jwks, KeysUnavailable, UnknownKey, fetch_document, read_keys
from tests.unit.keys import ec_key, rsa_key

NOW = 1_000_000


def jwk(key, kid="k1", **fields):
    algorithm = ECAlgorithm if hasattr(key, "curve") else RSAAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **({"kid": kid} if kid else {}), **fields}


def document(*rows):
    return json.dumps({"keys": list(rows)}).encode()


class Issuer:
    """Answers with `body` and `status`, and counts how often it was asked."""

    def __init__(self):
        self.body, self.status, self.headers, self.asked = document(jwk(rsa_key())), 200, {}, 0

    def __call__(self, _url):
        self.asked += 1
        if self.status != 200:
            raise OSError("it is away")
        return self.body


@pytest.fixture
def issuer():
    return Issuer()


@pytest.fixture
def served():
    """The same over HTTP, at `.url`."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            issuer.asked += 1
            issuer.asked_by = self.headers["User-Agent"]
            self.send_response(403 if "urllib" in issuer.asked_by else issuer.status)
            for name, value in issuer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(issuer.body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    issuer.url = f"http://127.0.0.1:{server.server_port}/keys"
    yield issuer
    server.shutdown()
    server.server_close()


# When it is fetched.


def test_the_set_is_fetched_once_and_kept(issuer):
    jwks = Jwks("u", issuer)
    for passed in (0, 1, FRESH_MS - 1):
        assert jwks.find("k1", "RS256", NOW + passed)
    assert issuer.asked == 1


def test_a_new_key_is_found_as_soon_as_the_rest_is_over(issuer):
    jwks = Jwks("u", issuer)
    jwks.find("k1", "RS256", NOW)
    issuer.body = document(jwk(rsa_key()), jwk(rsa_key("second"), "k2"))
    with pytest.raises(UnknownKey):
        jwks.find("k2", "RS256", NOW + REST_MS - 1)
    assert jwks.find("k2", "RS256", NOW + REST_MS)


def test_a_withdrawn_key_stops_verifying_with_the_next_fetch(issuer):
    jwks = Jwks("u", issuer)
    jwks.find("k1", "RS256", NOW)
    issuer.body = document(jwk(rsa_key("second"), "k2"))
    assert jwks.find("k1", "RS256", NOW + FRESH_MS - 1)
    with pytest.raises(UnknownKey):
        jwks.find("k1", "RS256", NOW + FRESH_MS)


def test_a_thousand_invented_key_ids_cause_one_fetch(issuer):
    jwks = Jwks("u", issuer)
    for number in range(1000):
        with pytest.raises(UnknownKey):
            jwks.find(f"invented-{number}", "RS256", NOW + number)
    assert issuer.asked == 1


def test_an_issuer_that_is_away_is_asked_once_a_rest_and_not_once_a_request(issuer):
    issuer.status = 500
    jwks = Jwks("u", issuer)
    for passed in (0, 1, REST_MS - 1):
        with pytest.raises(KeysUnavailable):
            jwks.find("k1", "RS256", NOW + passed)
    assert issuer.asked == 1
    issuer.status = 200
    assert jwks.find("k1", "RS256", NOW + REST_MS)


def test_a_known_key_goes_on_verifying_while_the_issuer_is_away(issuer):
    jwks = Jwks("u", issuer)
    jwks.find("k1", "RS256", NOW)
    issuer.status = 500
    assert jwks.find("k1", "RS256", NOW + FRESH_MS)
    assert jwks.find("k1", "RS256", NOW + 100 * FRESH_MS)


def test_a_key_that_is_not_known_yet_is_unavailable_and_not_unknown_while_the_issuer_is_away(issuer):
    jwks = Jwks("u", issuer)
    jwks.find("k1", "RS256", NOW)
    issuer.status = 500
    with pytest.raises(KeysUnavailable):
        jwks.find("k2", "RS256", NOW + REST_MS)


@pytest.mark.parametrize("garbage", [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"\xff", b"[" * 100_000])
def test_garbage_from_the_issuer_counts_as_an_outage(issuer, garbage):
    jwks = Jwks("u", issuer)
    jwks.find("k1", "RS256", NOW)
    issuer.body = garbage
    assert jwks.find("k1", "RS256", NOW + FRESH_MS)
    with pytest.raises(KeysUnavailable):
        jwks.find("k2", "RS256", NOW + FRESH_MS)


def test_callers_at_the_same_time_share_one_fetch(issuer):
    is_asked, may_answer = threading.Event(), threading.Event()

    def slowly(url):
        is_asked.set()
        assert may_answer.wait(5)
        return issuer(url)

    jwks, found = Jwks("u", slowly), []
    threads = [threading.Thread(target=lambda: found.append(jwks.find("k1", "RS256", NOW))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert is_asked.wait(5)
    may_answer.set()
    for thread in threads:
        thread.join(5)
    assert (len(found), issuer.asked) == (8, 1)


def test_who_has_a_key_does_not_wait_for_a_refresh(issuer):
    jwks = Jwks("u", issuer)
    known = jwks.find("k1", "RS256", NOW)
    is_asked, may_answer = threading.Event(), threading.Event()
    jwks._fetch = lambda url: is_asked.set() or may_answer.wait(5) and issuer(url)
    refreshing = threading.Thread(target=lambda: jwks.find("k1", "RS256", NOW + FRESH_MS))
    refreshing.start()
    assert is_asked.wait(5)
    assert jwks.find("k1", "RS256", NOW + FRESH_MS) is known
    may_answer.set()
    refreshing.join(5)


# Another key under a name that is known.


def test_another_key_under_a_known_name_is_found_by_one_more_look(issuer):
    jwks = Jwks("u", issuer)
    key = jwks.find("k1", "RS256", NOW)
    issuer.body = document(jwk(rsa_key("second"), "k1"))
    other = jwks.find_other("k1", "RS256", key, NOW + REST_MS)
    assert other.public_numbers() == rsa_key("second").public_key().public_numbers()
    assert jwks.find_other("k1", "RS256", key, NOW + REST_MS + 1) is other
    assert issuer.asked == 2


def test_signatures_that_never_fit_cause_one_look_a_rest_and_not_one_each(issuer):
    jwks = Jwks("u", issuer)
    key = jwks.find("k1", "RS256", NOW)
    assert [jwks.find_other("k1", "RS256", key, NOW + passed) for passed in range(0, 3 * REST_MS, 100)] == [None] * 300
    assert issuer.asked == 3


def test_a_name_that_is_gone_or_an_issuer_that_is_away_gives_no_other_key(issuer):
    jwks = Jwks("u", issuer)
    key = jwks.find("k1", "RS256", NOW)
    issuer.status = 500
    assert jwks.find_other("k1", "RS256", key, NOW + REST_MS) is None
    issuer.status, issuer.body = 200, document(jwk(ec_key(), "e1"))
    assert jwks.find_other("k1", "RS256", key, NOW + 2 * REST_MS) is None


# As a dependency.


def test_health_looks_itself_and_says_up_degraded_or_down(issuer):
    jwks = Jwks("u", issuer)
    assert jwks.check(NOW) == {"state": "up", "keys": 1}
    issuer.status = 403
    assert jwks.check(NOW + FRESH_MS) == {"state": "degraded", "keys": 1, "error": "OSError: it is away"}
    never = Jwks("u", issuer)
    assert never.check(NOW) == {"state": "down", "keys": 0, "error": "OSError: it is away"}
    issuer.status = 200
    assert never.check(NOW + 1)["state"] == "down"
    assert never.check(NOW + REST_MS)["state"] == "up"


def test_health_asks_the_issuer_no_more_than_tokens_do(issuer):
    jwks = Jwks("u", issuer)
    for passed in range(0, FRESH_MS, 1000):
        jwks.check(NOW + passed)
    assert issuer.asked == 1


# What counts as a key.


def test_a_token_without_a_key_id_means_the_only_key_of_its_algorithm():
    keys = read_keys(document(jwk(rsa_key(), None), jwk(ec_key(), "e1")))
    assert set(keys) == {(None, "RS256"), ("e1", "ES256"), (None, "ES256")}
    assert (None, "RS256") not in read_keys(document(jwk(rsa_key(), "a"), jwk(rsa_key("second"), "b")))


@pytest.mark.parametrize(
    "row",
    [
        7,
        None,
        {},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"},
        {"kty": "RSA", "kid": "k1"},
        {"kty": "RSA", "kid": "k1", "n": "?", "e": 7},
        jwk(rsa_key(), use="enc"),
        jwk(rsa_key(), alg="RS512"),
        jwk(rsa_key(), kid=["k1"]),
        jwk(rsa_key("weak", bits=1024)),
    ],
    ids=["number", "null", "empty", "oct", "no n", "bad n", "for encryption", "RS512", "list as kid", "1024 bits"],
)
def test_a_row_that_is_not_for_us_is_passed_over_and_the_others_count(row):
    assert set(read_keys(document(row, jwk(ec_key(), "e1")))) == {("e1", "ES256"), (None, "ES256")}


def test_a_key_verifies_only_the_algorithm_it_is_made_for(issuer):
    with pytest.raises(UnknownKey):
        Jwks("u", issuer).find("k1", "ES256", NOW)


# Over HTTP.


def test_the_set_comes_over_http(served):
    assert Jwks(served.url).find("k1", "RS256", NOW)


def test_we_ask_under_a_name_of_our_own_since_hosts_refuse_that_of_the_library(served):
    assert fetch_document(served.url) == served.body
    assert served.asked_by == USER_AGENT


@pytest.mark.parametrize("status", [404, 500, 301])
def test_any_answer_but_200_counts_as_an_outage(served, status):
    served.status, served.headers = status, {"Location": served.url + "/elsewhere"}
    with pytest.raises(KeysUnavailable):
        Jwks(served.url).find("k1", "RS256", NOW)
    assert served.asked == 1


def test_a_refused_connection_counts_as_an_outage(served):
    with pytest.raises(KeysUnavailable):
        Jwks("http://127.0.0.1:9/keys").find("k1", "RS256", NOW)


def test_a_set_without_an_end_is_not_read_to_its_end(served):
    served.body = b" " * (MAX_SET_BYTES + 1)
    with pytest.raises(OSError, match="more than"):
        fetch_document(served.url)
