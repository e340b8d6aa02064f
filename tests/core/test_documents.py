"""Links in the documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomli

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])


def anchors(document: Path) -> set[str]:
    """Return what a link can say after `#`, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_to_something(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"\w+://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_index_of_decisions_lists_each_of_them_in_order() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    assert re.findall(r"^- \[(.*)\]\(#", text, re.M) == re.findall(r"^### (.*)$", text, re.M)


def test_every_floor_of_the_core_is_in_the_table_for_contributors() -> None:
    settings = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    floors = next(each for each in settings["contracts"] if each.get("containers") == ["trainkit"])["layers"]
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("| floor of")[2].partition("| plugin |")[0]
    for name in re.split(r" \| ", " | ".join(floors)):
        assert name == "__main__" or f"`{name}`" in table, name


def test_every_page_is_in_the_index_and_in_the_navigation_of_the_site() -> None:
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").glob("**/*.md")}
    navigation = tomli.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert sorted(in_navigation(navigation)) == sorted(pages)
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[.*?\]\((.*?)\)", index, re.M)
    assert sorted([*listed, "README.md"]) == sorted(page for page in pages if "/" not in page)


def in_navigation(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in in_navigation(each)]


def test_pictures_are_small() -> None:
    for page in DOCUMENTS:
        for target in re.findall(r"!\[[^\]]+\]\((\S+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).stat().st_size < 400_000, target
