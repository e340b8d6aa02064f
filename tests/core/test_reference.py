"""The pages of docs/reference are those that the settings make, and the pictures show what a run computes."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType

import pytest

from trainkit import registry
from trainkit.recipe.docstrings import first_sentence, meanings
from trainkit.recipe.fields import settings_fields

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The program that writes the pages."""
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_page_is_stale(reference: ModuleType) -> None:
    assert reference.stale() == []  # `make docs` writes them again


def test_every_component_and_each_of_its_settings_is_on_a_page(reference: ModuleType) -> None:
    count = 0
    for group in registry.entry_point_groups():
        for found in registry.registered(group):
            if found.package == "trainkit":
                text = (ROOT / "docs" / "reference" / reference.page_of(group)).read_text(encoding="utf-8")
                section = re.split(r"^## ", text, flags=re.M)
                (own,) = [each for each in section if each.startswith(f"{found.name}\n")]
                assert first_sentence(found.load()).split("``")[0].split("\n")[0][:30] in " ".join(own.split())
                for key, field in settings_fields(found.load()).items():
                    assert f"| `{key}` |" in own or not field.init
                count += 1
    assert count > 90


def test_a_page_that_is_changed_or_about_nothing_is_pointed_out(
    reference: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    monkeypatch.setattr(reference, "pages", lambda: {tmp_path / "a.md": "a", tmp_path / "b.md": "b"})
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "b.md").write_text("old")
    (tmp_path / "gone.md").write_text("")
    assert reference.stale() == ["b.md is stale", "gone.md is about nothing that there is"]


def test_a_schedule_is_drawn_as_it_trains(reference: ModuleType) -> None:
    cosine = registry.find("trainkit.schedulers", "cosine")()
    found = reference.rates(cosine)
    low = cosine.final_factor
    for epoch in (0, 25, 50, 99):
        assert found[epoch] == pytest.approx(low + (1 - low) * (1 + math.cos(math.pi * epoch / 100)) / 2)
    picture = reference.drawn(cosine)
    first = re.findall(r'points="([^"]*)"', picture)[0].split()
    heights = [float(each.split(",")[1]) for each in first]
    share = (heights[0] - heights[50]) / (heights[0] - heights[99])
    assert share == pytest.approx((found[0] - found[50]) / (found[0] - found[99]), abs=1e-3)


def test_texts_become_markdown(reference: ModuleType) -> None:
    assert reference.cell("a | b < c, ``d < e``") == "a \\| b &lt; c, `d < e`"
    text = "One ``x``:\n    a = b\n\nSource:\n    Somebody\n    (2020)."
    assert reference.markdown(text) == "One `x`:\n\n```text\na = b\n```\n\n*Source:* Somebody (2020)."


def test_the_meanings_of_a_class_and_its_parents_are_read_from_their_docstrings() -> None:
    cosine = meanings(registry.find("trainkit.schedulers", "cosine"))
    assert {"by", "warmup", "final_factor"} <= cosine.keys()
    assert cosine["by"] == 'Whether a tick is an "epoch" or an optimizer "step".'
