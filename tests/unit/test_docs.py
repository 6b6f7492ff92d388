"""Every link between the pages of the repository resolves, and every page of docs/ is reachable from the README."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def links_of(page: Path) -> list[tuple[Path, str]]:
    """(page, anchor) of each relative link; a link to a heading of its own page names the page itself."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))
    relative = [target.partition("#") for target in targets if "://" not in target]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in relative]


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them: lower case, without punctuation, a hyphen for each space."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
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
