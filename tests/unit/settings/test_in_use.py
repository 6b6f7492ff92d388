"""Settings that a start would refuse never take the place of good ones."""

import os
import socket

import pytest

from app.settings import Settings, SettingsError
from app.settings.in_use import SettingsInUse, refuse_what_cannot_run
from tests.apps import make_settings

GOOD = "JWT_SECRET=a secret of the tests that is long enough\nTELEMETRY_SAMPLE_RATE=0.5\n"


@pytest.fixture
def env_file(tmp_path, monkeypatch):
    for name in {name.upper() for name in Settings.model_fields} & os.environ.keys():
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(GOOD)
    return tmp_path / ".env"


@pytest.fixture
def in_use(env_file):
    in_use = SettingsInUse()
    in_use.take("production")
    return in_use


WRONG = {
    "a misspelt name": "TELEMETRY_SAMPLE_RAT=1\n",
    "a value out of range": "TELEMETRY_SAMPLE_RATE=2\n",
    "no key in production": "JWT_SECRET=\n",
    "two workers without Redis": "WEB_CONCURRENCY=2\n",
    "half a pair of quotes": "JWT_ISSUER=me\\'\nHOST=\\'h\n",
    "bytes that are no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_start_refuses_leaves_a_running_server_with_its_settings(in_use, env_file, what):
    more = WRONG[what]
    env_file.write_bytes(GOOD.encode() + (more if isinstance(more, bytes) else more.encode()))
    with pytest.raises(SettingsError):
        SettingsInUse().take("production")
    kept = in_use.settings
    assert in_use.take("production") is kept
    assert in_use.check()["state"] == "degraded" and in_use.check()["error"] == in_use.refusal
    env_file.write_text(GOOD.replace("0.5", "0.7"))
    assert in_use.take("production").telemetry_sample_rate == 0.7
    assert in_use.check() == {"state": "up"}


def test_an_attempt_that_fails_in_whatever_way_leaves_them_too(in_use):
    def fails(_):
        raise BlockingIOError("no process could be made")

    kept = in_use.settings
    assert in_use.take("production", try_first=fails) is kept
    assert "no process could be made" in in_use.refusal


def test_a_change_of_the_file_is_judged_before_anybody_restarts_and_changes_nothing(in_use, env_file):
    assert in_use.check() == {"state": "up"}
    env_file.write_text(GOOD + "RT_MAX_TOPIC=1\n")
    assert "RT_MAX_TOPIC " in in_use.check()["error"]
    env_file.write_text(GOOD.replace("0.5", "0.7"))
    assert in_use.check() == {"state": "up"}
    env_file.unlink()
    assert "JWT_SECRET" in in_use.check()["error"]
    assert in_use.settings.telemetry_sample_rate == 0.5


def test_another_working_folder_is_no_other_env_file(in_use, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert in_use.take("production").telemetry_sample_rate == 0.5


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"data_dir": "/dev/null/x"}, "DATA_DIR"), ({"mongo_uri": "mongodb://h/?noSuchOption=1"}, "MONGO_URI")],
)
def test_what_only_the_application_finds_wrong_is_found_by_building_it(tmp_path, changes, word):
    before = make_settings(tmp_path)
    with pytest.raises(SettingsError, match=word):
        refuse_what_cannot_run(before, make_settings(tmp_path, **changes), listens=True)
    refuse_what_cannot_run(before, before, listens=True)


def test_an_address_that_cannot_be_listened_on_is_refused_unless_gunicorn_was_given_another(tmp_path):
    before = make_settings(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        fresh = make_settings(tmp_path, host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match="HOST and PORT"):
            refuse_what_cannot_run(before, fresh, listens=True)
        refuse_what_cannot_run(before, fresh, listens=False)
