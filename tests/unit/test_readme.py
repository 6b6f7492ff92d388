"""The pages of docs/ say what the code says: a row, a module or a path that one has and the other lacks fails, and is named."""

import re
from pathlib import Path

import pytest

from app.errors import CATALOGUE as ERRORS
from app.metrics import CATALOGUE as METRICS
from app.settings import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rows_of(page: str, first: str) -> list[str]:
    """The rows of the page's tables whose first cell is code, `first` being its pattern."""
    return re.findall(rf"^\| `{first}` \|.*$", (REFERENCE / page).read_text(), re.MULTILINE)


def test_every_setting_has_a_row_with_the_default_and_the_meaning_of_the_example_and_no_other_row_exists():
    lines = (ROOT / ".env.example").read_text().splitlines()
    expected = []
    for above, line in zip(lines, lines[1:], strict=False):
        if found := re.fullmatch(r"(\w+)=(.*)", line):
            default = f"`{found[2]}`" if found[2] else ""
            expected.append(f"| `{found[1]}` | {default} | {above.removeprefix('# ')} |")
    assert len(expected) == len(Settings.model_fields)
    assert rows_of("settings.md", "[A-Z_]+") == expected


def test_every_error_code_has_a_row_with_its_status_and_sentence_and_no_other_row_exists():
    rows = [f"| `{code}` | {row.status} | {'yes' if row.retryable else 'no'} | {row.sentence} |" for code, row in ERRORS.items()]
    assert rows_of("errors.md", "[a-z_]+") == rows


def test_every_metric_has_a_row_and_no_other_row_exists():
    rows = [f"| `{name}` | {row.kind.__name__.lower()} | {', '.join(row.labels)} | {row.help} |" for name, row in METRICS.items()]
    assert rows_of("metrics.md", "[a-z_]+") == rows


def named_paths() -> set[tuple[str, str]]:
    pattern = r"`((?:app|bench|tests|docs|migrations_indexes)/[\w/.-]+?)`"
    return {(page.relative_to(ROOT).as_posix(), path) for page in PAGES for path in re.findall(pattern, page.read_text())}


@pytest.mark.parametrize(("page", "path"), sorted(named_paths()))
def test_every_path_that_is_named_exists(page, path):
    assert (ROOT / path).exists(), f"{page} names {path}"


def test_the_map_of_the_architecture_has_every_module_and_package():
    page = (ROOT / "docs" / "architecture.md").read_text()
    names = [f"app/{path.name}" + ("/" if path.is_dir() else "") for path in (ROOT / "app").iterdir() if not path.name.startswith("__")]
    assert [name for name in names if f"`{name}`" not in page] == []
