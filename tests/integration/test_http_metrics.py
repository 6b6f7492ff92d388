"""/metrics: for who holds the token, in development for this machine, too, and for nobody who only looks local."""

import pytest

from app.metrics import CATALOGUE
from tests.apps import bearer, error_of, make_app

TOKEN = "a token for metrics"


@pytest.fixture
def client(tmp_path):
    return make_app(tmp_path, metrics_token=TOKEN).test_client()


def ask(client, address="10.0.0.1", **headers):
    return client.get("/metrics", environ_base={"REMOTE_ADDR": address}, headers={name.replace("_", "-"): v for name, v in headers.items()})


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine_may_read_it(client, address):
    answer = ask(client, address)
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain")
    assert all(f"# HELP {name.removesuffix('_total')}" in answer.text for name in CATALOGUE)


@pytest.mark.parametrize("address", ["10.0.0.1", "::2", "", "not an address", "0.0.0.0"])
def test_any_other_machine_may_not(client, address):
    assert error_of(ask(client, address))["code"] == "forbidden"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_who_holds_the_token_may_from_anywhere(client, scheme):
    assert ask(client, Authorization=f"{scheme} {TOKEN}").status_code == 200


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}x", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", "Bearer \xff"])
def test_a_wrong_token_may_not(client, given):
    assert ask(client, Authorization=given).status_code == 403


def test_an_admin_of_the_application_is_not_the_holder_of_the_token(client):
    assert ask(client, **bearer("root", "admin")).status_code == 403


def test_without_a_token_in_the_settings_no_token_is_right(tmp_path):
    client = make_app(tmp_path).test_client()
    for given in ("Bearer ", "Bearer None", "Bearer"):
        assert ask(client, Authorization=given).status_code == 403


@pytest.mark.parametrize("mark", ["X-Forwarded-For", "X-Real-Ip", "Forwarded", "Via"])
def test_a_stranger_behind_a_proxy_on_this_machine_does_not_look_local(client, mark):
    assert ask(client, "127.0.0.1", **{mark: "127.0.0.1"}).status_code == 403


def test_behind_trusted_proxies_an_invented_address_does_not_look_local(tmp_path):
    client = make_app(tmp_path, trusted_proxies=1).test_client()
    assert ask(client, "10.0.0.1", X_Forwarded_For="127.0.0.1").status_code == 403


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", ""])
def test_in_production_the_address_decides_nothing_and_the_refusal_says_what_is_needed(tmp_path, address):
    client = make_app(tmp_path, app_env="production", write_keys="web:wk_long_enough_for_it").test_client()
    error = error_of(ask(client, address))
    assert error["code"] == "forbidden" and "needs METRICS_TOKEN: set it" in error["message"]


def test_in_production_the_token_is_enough_and_needed(tmp_path):
    client = make_app(tmp_path, app_env="production", write_keys="web:wk_long_enough_for_it", metrics_token=TOKEN).test_client()
    assert ask(client, "127.0.0.1", Authorization=f"Bearer {TOKEN}").status_code == 200
    assert "bearer of METRICS_TOKEN" in error_of(ask(client, "127.0.0.1"))["message"]
