"""The pages of the repository are connected and name only what exists: links, files, settings, commands, routes, log events.

A failing test prints the page and the name that is wrong.
"""

import re
from functools import cache
from pathlib import Path

import click
import pytest

from app.settings import Settings
from tests.apps import make_app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
CHINESE = ROOT / "docs" / "zh"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # the changelog names what was removed, too
FOLDERS = "app|bench|tests|docs|deploy|migrations_indexes"
NOT_SETTINGS = {"MONGO_TEST_URI", "MONGO_URL", "REQUIRE_REAL", "TEST_PROCESSES", "TMPDIR", "HTTP_PROXY"}
PREFIXES = sorted({name.upper().split("_")[0] for name in Settings.model_fields})


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def code_of(page: Path) -> str:
    return "\n".join(re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))


def links_of(page: Path) -> list[tuple[Path, str]]:
    """Return (page, anchor) of each relative link. A link to a heading of the same page names the page itself."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))
    relative = [target.partition("#") for target in targets if "://" not in target]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in relative]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors as GitHub makes them: lower case, without punctuation, a hyphen for each space."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_resolves_to_a_page_and_a_heading(page):
    for target, anchor in links_of(page):
        assert target.exists(), f"{target.relative_to(ROOT)} does not exist"
        assert not anchor or anchor in anchors_of(target), f"{target.name} has no heading #{anchor}"


def test_every_page_of_docs_is_reachable_from_the_readme():
    reached, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md" and page.exists():
            reached.add(page)
            waiting += [target for target, _ in links_of(page)]
    assert set(PAGES) - reached == set()


@cache
def names_in_code() -> str:
    files = [path for folder in ("app", "bench", "migrations_indexes", "tests") for path in (ROOT / folder).rglob("*.py")]
    return "\n".join(path.read_text() for path in [*files, ROOT / "gunicorn.conf.py", ROOT / "pyproject.toml"])


@cache
def names_of_files() -> set[str]:
    return {path.name for folder in FOLDERS.split("|") for path in (ROOT / folder).rglob("*.*")}


def code_spans(page: Path, pattern: str) -> list[str]:
    """Return the `code` of the page that matches the pattern as a whole."""
    return re.findall(rf"`({pattern})`", without_code(page.read_text()))


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_every_file_that_a_page_names_exists(page):
    paths = code_spans(page, rf"(?:{FOLDERS})/[\w/.-]+?")
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [name for name in code_spans(page, r"\w+\.(?:py|js|json)") if name not in names_of_files() and name not in names_in_code()] == []


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_every_setting_that_a_page_names_exists(page):
    names = code_spans(page, rf"(?:{'|'.join(PREFIXES)})_[A-Z_]+")
    assert [name for name in names if name.lower() not in Settings.model_fields and name not in NOT_SETTINGS] == []


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_every_name_of_a_log_event_a_metric_or_a_code_that_a_page_names_is_in_the_code(page):
    names = code_spans(page, r"[a-z]+(?:_[a-z0-9]+)+")
    assert [name for name in names if not re.search(rf"\b{name}\b", names_in_code())] == []


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_every_command_of_make_that_a_page_names_exists(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text(), re.MULTILINE)
    assert [target for target in named if target not in targets] == []


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_every_command_of_flask_that_a_page_names_exists(page, tmp_path):
    commands = make_app(tmp_path).cli
    named = re.findall(r"(?:^|`)flask (indexes|telemetry|token)((?: [a-z]+)*)", page.read_text(), re.MULTILINE)
    for group, words in named:
        command = commands.commands[group]
        for word in words.split():
            assert isinstance(command, click.Group) and word in command.commands, f"flask {group}{words}"
            command = command.commands[word]


def lines_of_code(page: Path) -> set[str]:
    """Return the lines of the page's code blocks without comments, with continued lines joined."""
    lines = code_of(page).replace("\\\n", " ").splitlines()
    return {" ".join(re.sub(r"(^|\s)(#|//) .*", "", line).split()) for line in lines}


@pytest.mark.parametrize("page", sorted(CHINESE.glob("*.md")), ids=name_of)
def test_every_line_of_code_of_a_chinese_page_stands_in_an_english_page(page):
    english = set().union(*(lines_of_code(other) for other in PAGES if CHINESE not in other.parents))
    assert sorted(lines_of_code(page) - english) == []
