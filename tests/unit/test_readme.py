"""The tables of docs/reference/ and of the architecture equal the code. A failing test prints the rows to add and to remove."""

import re
from pathlib import Path

import pytest

from app.errors import CATALOGUE as ERRORS
from app.metrics import CATALOGUE as METRICS
from app.settings import Settings
from app.telemetry.event_types import EVENT_TYPES
from tests.apps import make_app

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def rows_of(page: str, first: str) -> list[str]:
    """Return the rows of the page's tables whose first cell is code that matches `first`."""
    return re.findall(rf"^\| `{first}` \|.*$", (REFERENCE / page).read_text(), re.MULTILINE)


def assert_equal_rows(page: str, found: list[str], expected: list[str]) -> None:
    missing = [row for row in expected if row not in found]
    surplus = [row for row in found if row not in expected]
    assert not missing and not surplus, "\n".join([f"docs/reference/{page}: add", *missing, "remove", *surplus])
    assert found == expected, f"docs/reference/{page}: put the rows in the order of the code"


def test_the_example_has_every_setting():
    names = re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    missing = sorted({name.upper() for name in Settings.model_fields} - set(names))
    assert missing == [], f"add to .env.example a line of meaning and a line NAME=default for {', '.join(missing)}"


def test_every_setting_has_a_row_with_the_default_and_the_meaning_of_the_example():
    lines = (ROOT / ".env.example").read_text().splitlines()
    expected = []
    for above, line in zip(lines, lines[1:], strict=False):
        if found := re.fullmatch(r"(\w+)=(.*)", line):
            default = f"`{found[2]}`" if found[2] else ""
            expected.append(f"| `{found[1]}` | {default} | {above.removeprefix('# ')} |")
    assert_equal_rows("settings.md", rows_of("settings.md", "[A-Z_]+"), expected)


def test_every_error_code_has_a_row_with_its_status_and_sentence():
    rows = [f"| `{code}` | {row.status} | {'yes' if row.retryable else 'no'} | {row.sentence} |" for code, row in ERRORS.items()]
    assert_equal_rows("errors.md", rows_of("errors.md", "[a-z_]+"), rows)


def test_every_metric_has_a_row():
    rows = [f"| `{name}` | {row.kind.__name__.lower()} | {', '.join(row.labels)} | {row.help} |" for name, row in METRICS.items()]
    assert_equal_rows("metrics.md", rows_of("metrics.md", "[a-z_]+"), rows)


def test_every_route_has_a_row(tmp_path):
    cells = re.findall(r"^\| (`[A-Z][^|]*) \|", (REFERENCE / "http.md").read_text(), re.MULTILINE)
    named = [span.partition("?")[0].rsplit(" ", 1) for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    in_docs = {(method, path) for methods, path in named for method in methods.split()}
    rules = make_app(tmp_path).url_map.iter_rules()
    in_code = {(method, rule.rule.replace("<path:", "<")) for rule in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert (sorted(in_code - in_docs), sorted(in_docs - in_code)) == ([], [])


@pytest.mark.parametrize("page", ["docs/reference/http.md", "docs/zh/README.md"])
@pytest.mark.parametrize("type", EVENT_TYPES)
def test_every_event_type_is_named(page, type):
    assert f"`{type}`" in (ROOT / page).read_text()


def test_the_map_of_the_architecture_has_every_module_and_package():
    page = (ROOT / "docs" / "architecture.md").read_text()
    names = [f"app/{path.name}" + ("/" if path.is_dir() else "") for path in (ROOT / "app").iterdir() if not path.name.startswith("__")]
    assert [name for name in names if f"`{name}`" not in page] == []
