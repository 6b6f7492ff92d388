"""A credential in a text that is logged is masked, however it is written there."""

from urllib.parse import quote

import pytest

from app.logs import masking
from app.logs.masking import mask, mask_address, never_show

KEY = "wk_of_the_web_site"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setattr(masking, "_known", masking.KnownKeys())
    never_show([KEY, "clé/du/site", "web"])


EVERY_SIGN = "".join(f"%{ord(sign):02x}" for sign in KEY)
WRITTEN = {
    "plain": KEY,
    "one sign encoded": KEY.replace("k", "%6B", 1),
    "every sign encoded": EVERY_SIGN,
    "encoded twice": quote(EVERY_SIGN),
    "another key, encoded": quote("clé/du/site", safe=""),
    "another key, as WSGI reads a path": "clé/du/site".encode().decode("latin-1"),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("text", ["/api/flags/{}", "/x/{}/y?a=1", "it said {}.", "/x?q={}&a=1"])
def test_a_key_of_this_server_is_masked_wherever_it_stands(text, written):
    assert mask(text.format(written)) == text.format("***")


@pytest.mark.parametrize("name", ["writeKey", "write%4bey", "write%4Bey", "%77riteKey", "WRITEKEY", "write_key", "t%6fken", "ticket"])
def test_the_value_of_a_parameter_with_the_name_of_a_credential_is_masked_however_the_name_is_written(name):
    assert mask(f"https://x.test/?a=1&{name}=hunter2&b=2") == f"https://x.test/?a=1&{name}=***&b=2"
    assert mask(f"{name}=hunter2") == f"{name}=***"


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_credential_in_an_address_within_an_address_is_masked(times):
    inner = "https://x.test/?writeKey=hunter2"
    for _ in range(times):
        inner = quote(inner, safe="")
    assert mask(f"/login?next={inner}&a=1") == "/login?next=***&a=1"


@pytest.mark.parametrize("value", ['hun"ter2', "hun ter2", "hun'ter2", "hun;ter2"])
def test_a_value_in_an_address_ends_at_the_next_parameter_and_not_at_a_quote(value):
    assert mask_address(f"/x?token={value}&a=1") == "/x?token=***&a=1"


@pytest.mark.parametrize("text", ["/x?a=1&b=50%25&app=web", "a=b", "100% of the web", "/x?next=https%3A%2F%2Fy.test%2F%3Fa%3D1"])
def test_what_is_no_credential_stays(text):
    assert mask(text) == mask_address(text) == text


def test_the_keys_of_an_earlier_call_are_forgotten():
    never_show(["another_key"])
    assert mask(f"{KEY} another_key") == f"{KEY} ***"


def test_without_keys_everything_else_is_still_masked():
    never_show([])
    assert mask(f"/x/{KEY}?token=hunter2") == f"/x/{KEY}?token=***"
