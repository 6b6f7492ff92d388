"""Which pages may call."""

import pytest

from app.identity.origins import allows, is_own, is_pattern


@pytest.mark.parametrize("text", ["*", "https://a.example.com", "http://localhost:3000", "https://*.example.com", "null",
                                  "capacitor://localhost", "http://[::1]:3000", "file://"])  # fmt: skip
def test_a_pattern_is_an_origin_or_every_subdomain_of_one_or_everybody(text):
    assert is_pattern(text)


@pytest.mark.parametrize("text", ["", "example.com", "https://a.example.com/", "https://*", "https://a.*.com", "https://.*", "https://[",
                                  "https://a b", "https://a\n", "file:///", "file://*"])  # fmt: skip
def test_what_no_browser_ever_sends_is_no_pattern(text):
    assert not is_pattern(text)


def test_an_origin_is_compared_whole_and_without_case():
    assert allows(["https://app.example.com"], "https://APP.example.com")
    for other in ("https://app.example.com.evil.test", "https://app-example.com", "http://app.example.com", "https://app.example.com:444",
                  "https://app.example.com\n", "https://xapp.example.com", ""):  # fmt: skip
        assert not allows(["https://app.example.com"], other)


def test_a_star_before_the_host_means_its_subdomains():
    assert allows(["https://*.example.com"], "https://a.example.com")
    assert allows(["https://*.example.com"], "https://a.b.example.com")
    for other in ("https://example.com", "https://evilexample.com", "https://a.example.com.evil.test", "https://evil.test/.example.com"):
        assert not allows(["https://*.example.com"], other)


def test_a_star_alone_means_everybody_and_no_pattern_means_nobody():
    assert allows(["*"], "null")
    assert not allows([], "https://a.test")


@pytest.mark.parametrize(("origin", "host"), [
    ("https://shop.test", "shop.test"), ("http://shop.test:8080", "shop.test:8080"), ("https://SHOP.test", "shop.TEST:443"),
    ("http://[::1]:3000", "[::1]:3000"), ("https://127.0.0.1", "127.0.0.1"),
])  # fmt: skip
def test_a_page_is_our_own_where_it_was_sent_from_the_host_and_port_that_it_asks(origin, host):
    assert is_own(origin, host)


@pytest.mark.parametrize(("origin", "host"), [
    ("https://evil.test", "shop.test"), ("https://shop.test:444", "shop.test"), ("null", "shop.test"), ("null", ""), ("", ""),
    ("https://", ""), ("file://", ""), ("https://shop.test.evil.test", "shop.test"),
    ("http://[", "["), ("https://shop.test:x", "shop.test:x"),
])  # fmt: skip
def test_and_nowhere_else(origin, host):
    assert not is_own(origin, host)
