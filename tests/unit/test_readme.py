"""The README's tables are the catalogues: whoever adds a row there adds it here, and the failure says which."""

import re
from pathlib import Path

import pytest

from app.errors import CATALOGUE as ERRORS
from app.metrics import CATALOGUE as METRICS
from app.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_every_setting_stands_in_the_table():
    missing = [name.upper() for name in Settings.model_fields if f"| `{name.upper()}` |" not in README]
    assert missing == []


def test_every_error_code_stands_in_the_table_with_its_status_and_sentence():
    rows = [f"| `{code}` | {row.status} | {'yes' if row.retryable else 'no'} | {row.sentence} |" for code, row in ERRORS.items()]
    assert [row for row in rows if row not in README] == []


def test_every_metric_stands_in_the_table():
    rows = [f"| `{name}` | {row.kind.__name__.lower()} | {', '.join(row.labels)} | {row.help} |" for name, row in METRICS.items()]
    assert [row for row in rows if row not in README] == []


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:app|tests|migrations_indexes)/[\w/.]+?)`", README))))
def test_every_path_that_is_named_exists(path):
    assert (Path(__file__).parents[2] / path).exists()
