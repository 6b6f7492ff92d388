"""What a name in the environment may be: a setting, a setting misspelt, or somebody else's."""

import json

import pytest

from app import create_app
from app.settings import Settings, SettingsError, load_settings
from app.settings.in_use import SettingsInUse
from app.settings.unknown_names import OUR_PREFIXES, similar_names, unknown_settings

KNOWN = {name.upper() for name in Settings.model_fields}
OF_SERVICES = {
    "FLAGS_PORT": "tcp://10.96.0.7:80", "FLAGS_SERVICE_HOST": "10.96.0.7", "FLAGS_SERVICE_PORT": "80", "FLAGS_SERVICE_PORT_HTTP": "80",
    "FLAGS_PORT_80_TCP": "tcp://10.96.0.7:80", "FLAGS_PORT_80_TCP_PROTO": "tcp", "FLAGS_PORT_80_TCP_PORT": "80",
    "FLAGS_PORT_80_TCP_ADDR": "10.96.0.7", "TELEMETRY_API_PORT_53_UDP": "udp://10.96.0.7:53", "MONGO_PORT": "tcp://10.96.0.8:27017",
}  # fmt: skip


@pytest.mark.parametrize("name", OF_SERVICES)
def test_what_kubernetes_says_of_a_service_is_none_of_our_settings(name):
    given = {name: OF_SERVICES[name]}
    assert (unknown_settings(given, KNOWN), similar_names(given, KNOWN)) == ({}, {})


def test_what_only_looks_like_it_is_a_mistake_all_the_same():
    assert unknown_settings({"FLAGS_PORT": "8080"}, KNOWN) == {"FLAGS_PORT": None}
    assert unknown_settings({"SPOOL_HOST": "10.96.0.7"}, KNOWN).keys() == {"SPOOL_HOST"}


def test_an_unknown_name_under_our_prefixes_comes_with_the_setting_that_it_is_most_like():
    assert unknown_settings({"TELEMETRY_TTL_DAY": "1", "rt_no_such_thing": "1"}, KNOWN) == {
        "TELEMETRY_TTL_DAY": "TELEMETRY_TTL_DAYS",
        "rt_no_such_thing": None,
    }


@pytest.mark.parametrize(
    "name, meant",
    [("MONGO_URL", "MONGO_URI"), ("REDIS_URI", "REDIS_URL"), ("WRITE_KEY", "WRITE_KEYS"), ("CORS_ORIGIN", "CORS_ORIGINS"),
     ("LOGLEVEL", "LOG_LEVEL"), ("mongo_url", "MONGO_URI")],
)  # fmt: skip
def test_a_name_that_is_very_much_like_a_setting_is_found(name, meant):
    assert similar_names({name: "x"}, KNOWN) == {name: meant}


@pytest.mark.parametrize(
    "name", ["HOSTNAME", "PATH", "HOME", "SHELL", "USER", "HTTP_PROXY", "HTTPS_PROXY", "SSH_PORT", "REDIS_HOST", "MONGO_USER", "TMPDIR"]
)
def test_a_name_of_another_program_is_not(name):
    assert similar_names({name: "x"}, KNOWN) == {}


def test_who_has_both_means_something_else_by_it():
    assert similar_names({"MONGO_URL": "x", "MONGO_URI": "mongodb://a/b"}, KNOWN) == {}


@pytest.mark.parametrize("prefix", OUR_PREFIXES)
def test_every_prefix_is_in_use(prefix):
    assert any(name.startswith(prefix) for name in KNOWN)


def test_the_boot_goes_on_and_says_what_was_most_likely_meant(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONGO_URL", "mongodb://user:hunter2@db/x")
    monkeypatch.setenv("FLAGS_PORT", OF_SERVICES["FLAGS_PORT"])
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setattr("app.settings.in_use.IN_USE", SettingsInUse())
    create_app()
    printed = capsys.readouterr().err
    (warning,) = (line for line in map(json.loads, printed.splitlines()) if line["event"] == "setting_misspelt")
    assert (warning["level"], warning["name"], warning["meant"]) == ("warning", "MONGO_URL", "MONGO_URI")
    assert "hunter2" not in printed


def test_a_refusal_says_it_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TELEMETRY_TTL_DAY", "5")
    with pytest.raises(SettingsError, match=r"unknown setting TELEMETRY_TTL_DAY \(TELEMETRY_TTL_DAYS\?\);"):
        load_settings()
