"""Whose a request is, from its head alone."""

import pytest

from app.identity.gatekeeper import Gatekeeper
from app.identity.tokens import TokenVerifier
from app.identity.write_keys import WriteKey
from app.serving.sender_check import SMALL_BYTES, SenderCheck, is_small
from tests.apps import NOW, SECRET, Clock, token

GATEKEEPER = Gatekeeper(TokenVerifier(secret=SECRET), {"wk_web": WriteKey("web")}, Clock(NOW))


def head(**fields):
    return {"REMOTE_ADDR": "192.0.2.1", "QUERY_STRING": "", **fields}


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({}, ("192.0.2.1", False)),
        ({"HTTP_X_WRITE_KEY": "wk_web"}, ("192.0.2.1", True)),
        ({"QUERY_STRING": "a=1&writeKey=wk_web"}, ("192.0.2.1", True)),
        ({"HTTP_AUTHORIZATION": "Bearer wk_web"}, ("192.0.2.1", True)),
        ({"HTTP_AUTHORIZATION": f"Bearer {token('u1', exp=NOW // 1000 + 60)}"}, ("user:u1", True)),
        ({"HTTP_AUTHORIZATION": f"Bearer {token('u1', exp=NOW // 1000 - 60)}"}, ("192.0.2.1", False)),
        ({"HTTP_X_WRITE_KEY": "wk_wrong"}, ("192.0.2.1", False)),
        ({"QUERY_STRING": "writeKey=wk_wrong"}, ("192.0.2.1", False)),
        ({"HTTP_AUTHORIZATION": "Basic x"}, ("192.0.2.1", False)),
        ({"REMOTE_ADDR": "2001:db8::1:2"}, ("2001:db8::/64", False)),
        ({"HTTP_X_FORWARDED_FOR": "198.51.100.7"}, ("192.0.2.1", False)),
    ],
)
def test_a_head_says_whose_a_request_is(fields, answer):
    assert SenderCheck(GATEKEEPER)(head(**fields)) == answer


@pytest.mark.parametrize(
    ("forwarded", "party"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("1.2.3.4, 198.51.100.7", "198.51.100.7"),
        ("[2001:db8::1]:443", "2001:db8::/64"),
        ("", "192.0.2.1"),
    ],
)
def test_behind_a_trusted_proxy_the_address_is_the_one_it_wrote(forwarded, party):
    assert SenderCheck(GATEKEEPER, trusted_proxies=1)(head(HTTP_X_FORWARDED_FOR=forwarded)) == (party, False)


def test_a_small_body_is_one_that_was_declared_so():
    assert is_small(head(CONTENT_LENGTH=str(SMALL_BYTES))) and is_small(head())
    assert not is_small(head(CONTENT_LENGTH=str(SMALL_BYTES + 1)))
    assert not is_small(head(HTTP_TRANSFER_ENCODING="chunked"))
