"""`.env.example` equals Settings: the same names, defaults and units."""

import os
import re
from pathlib import Path

from dotenv import dotenv_values

from app.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def test_the_example_names_every_setting_once_and_nothing_else():
    names = re.findall(r"^(\w+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)


def test_the_example_copied_unchanged_changes_nothing(monkeypatch):
    for name in dotenv_values(EXAMPLE):
        monkeypatch.delenv(name, raising=False)
    assert load_settings(EXAMPLE) == load_settings(None)


def test_the_example_shows_each_default_as_a_value(monkeypatch):
    for name in list(os.environ):
        monkeypatch.delenv(name)
    shown = {name.lower() for name, value in dotenv_values(EXAMPLE).items() if value}
    with_default = {name for name, field in Settings.model_fields.items() if not field.default_factory and field.default not in (None, ())}
    assert shown == with_default - {"app_env"}  # which depends on the server


def test_every_setting_has_a_line_of_meaning_and_numbers_say_their_unit():
    lines = EXAMPLE.read_text().splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        name = line.partition("=")[0]
        if re.match(r"\w+=", line):
            assert above.startswith("# "), f"{name} is not explained"
        for ending, unit in {"_MS": "milliseconds", "_BYTES": "bytes", "_S": "seconds", "_DAYS": "Days"}.items():
            if re.match(r"\w+=", line) and name.endswith(ending):
                assert unit in above, f"{name} does not say its unit"
