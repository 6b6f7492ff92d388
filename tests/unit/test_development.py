"""The first five minutes: a secret made once, kept private, printed ready to paste."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app import development
from app.identity.tokens import TokenVerifier
from app.identity.write_keys import WriteKey
from app.settings import SettingsError, load_settings

ROOT = Path(__file__).parents[2]
NOW_S = 1_760_000_000


def settings_in(folder, **changes):
    return load_settings(None, data_dir=folder, **changes)


def test_a_secret_and_a_write_key_are_made_once_and_kept(tmp_path):
    first, second = development.load(settings_in(tmp_path)), development.load(settings_in(tmp_path))
    assert first == second
    assert len(first.jwt_secret) >= 32 and list(first.write_keys.values()) == [WriteKey("dev")]


def test_only_the_owner_may_read_them(tmp_path):
    old = os.umask(0)
    try:
        development.load(settings_in(tmp_path))
    finally:
        os.umask(old)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_processes_that_start_together_agree(tmp_path):
    script = f"""
from app import development
from app.settings import load_settings
print(development.load(load_settings(None, data_dir={str(tmp_path)!r})).jwt_secret)
"""
    starts = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)]
    assert len({process.communicate()[0] for process in starts}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["development.json"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"jwtSecret": "", "writeKey": ""}', '{"jwtSecret": "short", "writeKey": "wk_abcdefgh"}',
     '{"jwtSecret": ["xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"], "writeKey": "wk_abcdefgh"}', "\udcff"],
)  # fmt: skip
def test_a_damaged_file_stops_the_start_and_says_what_to_do(tmp_path, text):
    (tmp_path / "development.json").write_text(text, errors="surrogateescape")
    with pytest.raises(SettingsError, match=r"development\.json is damaged; delete it"):
        development.load(settings_in(tmp_path))


def test_a_folder_that_cannot_be_used_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="DATA_DIR .*file is not usable: Not a directory"):
        development.load(settings_in(tmp_path / "file"))


def test_what_the_environment_gives_wins_and_then_no_file_is_needed(tmp_path):
    secrets = development.load(settings_in(tmp_path, jwt_secret="x" * 32, write_keys="web:wk_abc"))
    assert (secrets.jwt_secret, dict(secrets.write_keys)) == ("x" * 32, {"wk_abc": WriteKey("web")})
    assert list(tmp_path.iterdir()) == []


def test_the_printed_token_is_an_admins_and_is_let_in(tmp_path):
    secrets = development.load(settings_in(tmp_path, jwt_issuer="me", jwt_audience="us"))
    verifier = TokenVerifier(secret=secrets.jwt_secret, issuer="me", audience="us")
    assert verifier.verify(secrets.admin_token(NOW_S), NOW_S * 1000).is_admin


def test_the_welcome_has_the_address_and_both_credentials(tmp_path):
    secrets = development.load(settings_in(tmp_path))
    text = secrets.welcome("http://127.0.0.1:8080")
    kept = json.loads((tmp_path / "development.json").read_text())
    assert "http://127.0.0.1:8080" in text and kept["writeKey"] in text and "eyJ" in text
    assert kept["jwtSecret"] not in text
