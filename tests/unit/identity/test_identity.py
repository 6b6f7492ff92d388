"""Who is let in, as what, and who is not."""

import hashlib
import hmac
import json
import time
import tracemalloc
from base64 import urlsafe_b64encode

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ApiError
from app.identity import tokens
from app.identity.gatekeeper import Gatekeeper, same_secret
from app.identity.identity import Identity, identity_from_claims
from app.identity.jwks import FRESH_MS, REST_MS, Jwks
from app.identity.tokens import MAX_TOKEN_LENGTH, REMEMBERED_MS, TokenVerifier, make_token
from app.identity.write_keys import WriteKey
from tests.apps import Clock
from tests.unit.identity.test_jwks import Issuer, document, jwk
from tests.unit.keys import ec_key, private_pem, public_pem, rsa_key

SECRET = "a secret of the tests that is long enough to be one"
NOW = 1_760_000_000_000
SOON = NOW // 1000 + 3600


UPTIME = Clock(0)  # shared: a test that lets time pass lets it pass for all, which nobody minds


def verifier(**options):
    return TokenVerifier(**{"secret": SECRET, "uptime": UPTIME, **options})


def claims(**changes):
    return {name: value for name, value in {"sub": "u1", "exp": SOON, **changes}.items() if value is not ...}


def hs256(**changes):
    """Signed whatever the claims are: PyJWT would refuse to write some of what an issuer may send."""
    return jwt.PyJWS().encode(json.dumps(claims(**changes)).encode(), SECRET, algorithm="HS256")


def signed(key, algorithm, kid=None, **changes):
    return jwt.encode(claims(**changes), private_pem(key), algorithm=algorithm, headers={"kid": kid} if kid else None)


def handmade(header, body, signature=b""):
    """A token of these parts, whatever they are."""
    return ".".join(
        urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).decode().rstrip("=")
        for part in (header, body, signature)
    )


def refusal(token, now=NOW, **options):
    with pytest.raises(ApiError) as refused:
        verifier(**options).verify(token, now)
    return refused.value.code


# Signatures.


def test_an_hs256_token_is_verified_with_the_secret():
    identity = verifier().verify(hs256(role="editor"), NOW)
    assert (identity.kind, identity.user_id, identity.roles, identity.expires_at) == ("user", "u1", ("editor",), SOON * 1000)
    assert refusal(make_token("another secret that is long enough, too", claims())) == "unauthorized"


@pytest.mark.parametrize(("key", "algorithm"), [(rsa_key, "RS256"), (ec_key, "ES256")])
def test_a_public_key_verifies_its_own_algorithm(key, algorithm):
    options = {"secret": None, "public_key": public_pem(key())}
    assert verifier(**options).verify(signed(key(), algorithm), NOW).user_id == "u1"
    assert refusal(signed(key("second"), algorithm), **options) == "unauthorized"


@pytest.mark.parametrize("token", ["x", "a.b", "a.b.c", "eyJhbGciOiJIUzI1NiJ9.e30.x", "...", "é.é.é"])
def test_what_is_no_token_at_all_is_malformed_in_our_words(token):
    with pytest.raises(ApiError, match="The token is not valid: it is malformed\\.$"):
        verifier().verify(token, NOW)


def test_a_public_key_is_never_taken_for_an_hmac_secret():
    pem = public_pem(rsa_key())
    start = handmade({"alg": "HS256"}, claims()).rpartition(".")[0]
    forged = start + "." + urlsafe_b64encode(hmac.new(pem.encode(), start.encode(), hashlib.sha256).digest()).decode().rstrip("=")
    assert refusal(forged, secret=None, public_key=pem) == "unauthorized"
    assert refusal(forged, public_key=pem) == "unauthorized"


def test_an_es256_token_is_not_verified_with_an_rsa_key():
    assert refusal(signed(ec_key(), "ES256"), secret=None, public_key=public_pem(rsa_key())) == "unauthorized"


@pytest.mark.parametrize("algorithm", ["none", "None", "HS384", "HS512", "RS512", "PS256", "EdDSA", "", None, 7, ["HS256"]])
def test_any_other_algorithm_is_refused(algorithm):
    assert refusal(handmade({"alg": algorithm, "typ": "JWT"}, claims())) == "unauthorized"


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "..",
        "a.b.c",
        "ü.ü.ü",
        "\ud800",
        "\x00",
        hs256()[:-1],
        hs256() + "x",
        hs256() + ",Bearer " + hs256(),
        handmade([], claims()),
        handmade({"alg": "HS256"}, []),
        handmade({"alg": "HS256", "kid": ["a"]}, claims()),
        handmade({"alg": "HS256", "crit": ["x"]}, claims()),
        "x" * (MAX_TOKEN_LENGTH + 1),
        make_token(SECRET, claims(padding="x" * MAX_TOKEN_LENGTH)),
        handmade(b"[" * 6000, claims()),
        handmade(b'{"alg":"HS256","x":' + b"[" * 5000, claims()),
    ],
    ids=lambda token: ascii(token[:20]),
)
def test_whatever_is_no_token_is_unauthorized(token):
    assert refusal(token) == "unauthorized"


# Times.


def test_an_expired_token_says_so_and_the_leeway_is_given_to_it():
    token = hs256()
    assert refusal(token, now=SOON * 1000) == "token_expired"
    assert verifier(leeway_s=10).verify(token, SOON * 1000 + 9_999)
    assert refusal(token, now=SOON * 1000 + 10_000, leeway_s=10) == "token_expired"


def test_a_remembered_token_expires_like_any_other():
    remembering = verifier()
    token = hs256()
    assert remembering.verify(token, NOW) is remembering.verify(token, NOW + 1)
    with pytest.raises(ApiError, match="token_expired"):
        remembering.verify(token, SOON * 1000)
    with pytest.raises(ApiError, match="token_expired"):
        remembering.verify(token, SOON * 1000)


def test_a_token_is_verified_anew_after_some_minutes():
    remembering = verifier()
    token = hs256()
    first = remembering.verify(token, NOW)
    assert remembering.verify(token, NOW - 3_600_000) is first  # whatever the system's clock says
    UPTIME.pass_ms(REMEMBERED_MS)
    assert remembering.verify(token, NOW) is not first


def test_not_before_is_respected_with_leeway():
    early = NOW // 1000 + 5
    assert refusal(hs256(nbf=early)) == "unauthorized"
    assert verifier(leeway_s=5).verify(hs256(nbf=early), NOW)
    for weird in ("soon", True, None, float("nan"), [1]):
        assert refusal(hs256(nbf=weird)) == "unauthorized"


def test_a_clock_of_the_issuer_that_is_ahead_refuses_nobody():
    assert verifier().verify(hs256(iat=NOW // 1000 + 60), NOW)


@pytest.mark.parametrize("expires", [True, False, "1", None, float("nan"), float("inf"), -1, -float("inf"), 10**400, NOW, [], {}, ...])
def test_an_expiry_that_is_no_time_is_refused(expires):
    assert refusal(hs256(exp=expires)) == "unauthorized"


# Claims.


@pytest.mark.parametrize(
    "subject",
    [..., None, "", 7.0, 7.5, True, 10**255, -(10**255), 10**4000, ["u1"], {}, "x" * 257, "a\nb", "a\x00b", "\ud800"],
)
def test_a_subject_that_is_no_name_is_refused(subject):
    assert refusal(hs256(sub=subject)) == "unauthorized"


@pytest.mark.parametrize(("number", "text"), [(7, "7"), (0, "0"), (-3, "-3"), (2**63, str(2**63)), (10**255 - 1, "9" * 255)])
def test_a_subject_that_is_a_whole_number_is_its_decimal_text(number, text):
    assert verifier().verify(hs256(sub=number), NOW).user_id == text


@pytest.mark.parametrize("subject", ["u1", "auth0|5f7c", "Zoë 👩‍💻", "x" * 256])
def test_a_subject_may_be_any_printable_name(subject):
    if subject.isprintable():
        assert verifier().verify(hs256(sub=subject), NOW).user_id == subject


def test_issuer_and_audience_are_checked_where_they_are_set():
    assert verifier(issuer="me", audience="us").verify(hs256(iss="me", aud=["them", "us"]), NOW)
    for wrong in ({"iss": "me"}, {"aud": "us"}, {"iss": "you", "aud": "us"}, {"iss": "me", "aud": "them"}, {"iss": ["me"], "aud": "us"},
                  {"iss": "me", "aud": {"us": 1}}):  # fmt: skip
        assert refusal(hs256(**wrong), issuer="me", audience="us") == "unauthorized"
    assert verifier().verify(hs256(iss="anybody", aud="anything"), NOW)


@pytest.mark.parametrize(("role", "roles"), [("admin", ("admin",)), (["a", "b"], ("a", "b")), (None, ()), ("", ()), ([], ()), (..., ())])
def test_a_role_is_a_word_or_a_list_of_words(role, roles):
    assert verifier().verify(hs256(role=role), NOW).roles == roles


@pytest.mark.parametrize("role", [7, 0, False, True, {}, {"admin": True}, [7], [None], [""], [["admin"]], "x" * 257, "ad\nmin"])
def test_any_other_role_is_refused(role):
    assert refusal(hs256(role=role)) == "unauthorized"


def test_admin_is_a_service_too_and_a_word_that_contains_admin_is_not_admin():
    assert verifier().verify(hs256(role="admin"), NOW).is_service
    other = verifier().verify(hs256(role=["administrator", "Admin", "service "]), NOW)
    assert not other.is_admin and not other.is_service


def test_topics_are_lists_of_patterns():
    identity = verifier().verify(hs256(topics={"sub": ["a:*", "b"], "pub": None, "more": 1}), NOW)
    assert (identity.subscribe_to, identity.publish_to) == (("a:*", "b"), ())


@pytest.mark.parametrize("topics", [[], "a:*", 0, True, {"sub": "a:*"}, {"pub": {}}, {"sub": [7]}, {"sub": [""]}, {"pub": ["x" * 257]}])
def test_any_other_topics_are_refused(topics):
    assert refusal(hs256(topics=topics)) == "unauthorized"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(["sub", "pub"]), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["sub", "exp", "role", "topics", "nbf", "iss", "aud"]), anything))
@settings(deadline=None)
def test_any_claims_make_an_identity_or_an_api_error(some):
    try:
        identity = identity_from_claims(some)
    except ApiError as error:
        assert error.code == "unauthorized"
    else:
        assert identity.user_id and isinstance(identity.expires_at, int)
        assert all(isinstance(word, str) for word in identity.roles + identity.subscribe_to + identity.publish_to)


@given(st.dictionaries(st.sampled_from(["sub", "exp", "role", "topics", "nbf", "iss", "aud", "iat", "jti"]), anything))
@settings(deadline=None)
def test_any_signed_claims_make_an_identity_or_an_api_error(some):
    try:
        verifier(issuer="me").verify(hs256(**some), NOW)
    except ApiError as error:
        assert error.code in ("unauthorized", "token_expired")


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
@settings(deadline=None)
def test_any_text_is_at_worst_unauthorized(text):
    assert refusal(text) == "unauthorized"


# What is remembered.


def test_what_is_remembered_is_bounded_by_its_bytes(monkeypatch):
    monkeypatch.setattr(tokens, "REMEMBERED_BYTES", 10_000)
    remembering = verifier()
    for number in range(50):
        remembering.verify(hs256(sub=f"u{number}"), NOW)
    few = len(remembering._remembered)
    assert 5 <= few < 20
    remembering.verify(hs256(padding="x" * 5000), NOW)
    assert len(remembering._remembered) < few / 2
    remembering.verify(hs256(padding="x" * 6000, sub="u2"), NOW + 1)
    assert len(remembering._remembered) == 1


def test_a_token_of_many_short_words_counts_with_all_of_them():
    """500 patterns of one sign are 7 kB as a token and 50 kB in memory."""
    tracemalloc.start()
    try:
        before, remembering = tracemalloc.get_traced_memory()[0], verifier()
        for number in range(20):
            remembering.verify(hs256(sub=f"u{number}", topics={"sub": [chr(0x4E00 + n) for n in range(500)]}), NOW)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(remembering._remembered) == 20
    assert 0.7 < remembering._remembered_bytes / held < 1.5


def test_what_is_forgotten_or_expired_no_longer_counts():
    remembering = verifier()
    for number in range(5):
        token = hs256(sub=f"u{number}")
        for _ in range(2):
            remembering.verify(token, NOW)
            UPTIME.pass_ms(REMEMBERED_MS)
        with pytest.raises(ApiError, match="token_expired"):
            remembering.verify(token, SOON * 1000)
    assert (len(remembering._remembered), remembering._remembered_bytes) == (0, 0)


def test_the_longest_token_is_a_setting_and_the_refusal_names_it():
    token = hs256(padding="x" * 300)
    assert verifier(max_length=len(token)).verify(token, NOW)
    with pytest.raises(ApiError, match="longer than 300 characters .JWT_MAX_LENGTH"):
        verifier(max_length=300).verify(token, NOW)


def test_a_wrong_token_is_never_remembered():
    remembering = verifier()
    for number in range(10):
        with pytest.raises(ApiError):
            remembering.verify(f"wrong-{number}", NOW)
    assert not remembering._remembered


# JWKS.


def with_jwks():
    issuer = Issuer()
    return issuer, verifier(secret=None, jwks=Jwks("u", issuer))


def test_a_token_is_verified_with_the_key_that_it_names():
    issuer, verifying = with_jwks()
    issuer.body = document(jwk(rsa_key(), "r"), jwk(ec_key(), "e"))
    assert verifying.verify(signed(rsa_key(), "RS256", "r"), NOW)
    assert verifying.verify(signed(ec_key(), "ES256", "e"), NOW)
    with pytest.raises(ApiError, match="unauthorized"):
        verifying.verify(signed(rsa_key("second"), "RS256", "r", sub="u2"), NOW)


def test_an_outage_of_the_issuer_is_503_and_not_401():
    issuer, verifying = with_jwks()
    issuer.status = 500
    with pytest.raises(ApiError) as refused:
        verifying.verify(signed(rsa_key(), "RS256", "k1"), NOW)
    assert (refused.value.code, refused.value.status, refused.value.retryable) == ("unavailable", 503, True)
    issuer.status, issuer.body = 200, b"<html>login</html>"
    UPTIME.pass_ms(FRESH_MS)
    with pytest.raises(ApiError, match="unavailable"):
        verifying.verify(signed(rsa_key(), "RS256", "k1"), NOW)


def test_an_invented_key_id_is_401_and_causes_no_fetch_of_its_own():
    issuer, verifying = with_jwks()
    for number in range(50):
        with pytest.raises(ApiError, match="unauthorized"):
            verifying.verify(signed(rsa_key(), "RS256", f"invented-{number}"), NOW)
    assert issuer.asked == 1


def test_a_withdrawn_key_counts_for_minutes_and_not_until_the_token_expires():
    issuer, verifying = with_jwks()
    token = signed(rsa_key(), "RS256", "k1")
    assert verifying.verify(token, NOW)
    issuer.body = document(jwk(rsa_key("second"), "k2"))
    UPTIME.pass_ms(REMEMBERED_MS + FRESH_MS)
    with pytest.raises(ApiError, match="unauthorized"):
        verifying.verify(token, NOW)


def test_a_key_that_was_replaced_under_its_name_is_found_and_a_forged_signature_still_is_none():
    issuer, verifying = with_jwks()
    issuer.body = document(jwk(rsa_key(), "k1"))
    assert verifying.verify(signed(rsa_key(), "RS256", "k1"), NOW)
    issuer.body = document(jwk(rsa_key("second"), "k1"))
    UPTIME.pass_ms(REST_MS)
    assert verifying.verify(signed(rsa_key("second"), "RS256", "k1"), NOW)
    with pytest.raises(ApiError, match="unauthorized"):
        verifying.verify(signed(rsa_key(), "RS256", "k1", sub="forged"), NOW)
    assert issuer.asked == 2


# Where a credential stands.


@pytest.fixture
def gate():
    return Gatekeeper(verifier(), {"wk_abc": WriteKey("web"), "wk_shop": WriteKey("shop", frozenset({"shop"}))}, lambda: NOW)


def test_nothing_presented_is_nobody(gate):
    assert gate.from_headers(None, None) is None
    assert gate.from_headers("", "") is None
    assert gate.from_headers("  ", None) is None


@pytest.mark.parametrize("presented", [("Bearer wk_abc", None), ("bearer  wk_abc ", None), (None, "wk_abc"), ("Basic dTpw", "wk_abc")])
def test_a_write_key_is_known_as_bearer_in_its_header_and_in_the_query(gate, presented):
    identity = gate.from_headers(*presented)
    assert (identity.is_write_key, identity.write_key_name, identity.user_id, identity.roles) == (True, "web", None, ())


def test_a_write_key_may_name_the_apps_that_it_is_bound_to_and_an_unbound_one_any(gate):
    bound, unbound, token = (gate.from_headers(f"Bearer {given}", None) for given in ("wk_shop", "wk_abc", hs256()))
    assert [identity.may_name("shop") for identity in (bound, unbound, token)] == [True, True, True]
    assert [identity.may_name("Shop") for identity in (bound, unbound, token)] == [False, True, True]


def test_a_token_wins_over_a_write_key_beside_it(gate):
    assert gate.from_headers(f"Bearer {hs256()}", "wk_abc").user_id == "u1"


@pytest.mark.parametrize(
    "presented",
    [("Bearer nonsense", None), ("Bearer nonsense", "wk_abc"), ("Bearer", None), ("Basic dTpw", None), ("wk_abc", None),
     (None, "wk_other"), (None, "WK_ABC"), ("Bearer " + hs256() + ",Bearer wk_abc", None)],
)  # fmt: skip
def test_a_wrong_credential_is_an_error_and_never_nobody(gate, presented):
    with pytest.raises(ApiError, match="unauthorized"):
        gate.from_headers(*presented)


@pytest.mark.parametrize("token", [None, "", 7, {}, ["a"], b"bytes"])
def test_a_token_from_a_socket_may_be_of_any_type_and_is_still_only_unauthorized(gate, token):
    with pytest.raises(ApiError, match="unauthorized"):
        gate.from_token(token)


def test_a_write_key_never_has_a_role():
    assert not Identity(kind="write_key").is_admin and not Identity(kind="write_key").is_service


def test_a_made_token_is_one_that_is_let_in():
    token = make_token(SECRET, {"sub": "u1", "exp": int(time.time()) + 60})
    assert verifier().verify(token, int(time.time() * 1000)).user_id == "u1"


def test_secrets_are_compared_whatever_signs_they_are_made_of():
    assert same_secret("ü", "ü")
    assert not same_secret("\ud800", "ü") and not same_secret("", "ü")
