"""Components are found by metadata alone, and one broken package is in nobody's way."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from recipe_toys import distribution, toys

from trainkit import registry
from trainkit.errors import ComponentError


@pytest.fixture(autouse=True)
def toy_folder(tmp_path: Path) -> Iterator[Path]:
    with toys(tmp_path) as folder:
        yield folder


def test_what_is_registered_is_known_without_importing_it() -> None:
    for name in ("toy", "toy_broken"):
        sys.modules.pop(name, None)
    found = {each.name: each for each in registry.registered("trainkit.losses")}
    assert found["square"] == ("square", "toy:Square", "toy", "1.0")
    assert "trainkit.toy.shapes" in registry.entry_point_groups()
    assert not {"toy", "toy_broken"} & set(sys.modules)
    assert registry.find("trainkit.losses", "square").__name__ == "Square"
    assert "toy_broken" not in sys.modules


def test_a_component_is_found_by_name_by_package_and_name_or_as_any_class() -> None:
    classes = {registry.find("trainkit.losses", use) for use in ("square", "toy/square", "Toy/square", "toy:Square")}
    assert len(classes) == 1


def test_a_distribution_that_is_seen_twice_counts_once(toy_folder: Path) -> None:
    (toy_folder / "again").mkdir()
    distribution(toy_folder / "again", "Toy", "1.0", "[trainkit.losses]\nsquare = toy:Square\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(toy_folder / "again"))
        registry.forget()
        assert [each.name for each in registry.registered("trainkit.losses")].count("square") == 1


def test_a_distribution_with_damaged_metadata_takes_no_other_down(toy_folder: Path) -> None:
    for name, text in (
        ("a", "[trainkit.losses\nsquare"),
        ("b", "trainkit.losses = 3"),
        ("c", "[trainkit.losses]\nx = \n"),
    ):
        distribution(toy_folder, name, "1", text)
    (toy_folder / "d-1.dist-info").mkdir()
    (toy_folder / "d-1.dist-info" / "entry_points.txt").write_text("[trainkit.losses]\nnameless = toy:Square\n")
    (toy_folder / "e-1.dist-info").mkdir()
    registry.forget()
    assert registry.find("trainkit.losses", "square").__name__ == "Square"


@pytest.mark.parametrize("trouble", ["raise SystemExit(3)", "import no_such_module", "1 +", "raise KeyboardInterrupt"])
def test_a_module_that_cannot_be_imported_is_a_message_whatever_it_raises(toy_folder: Path, trouble: str) -> None:
    (toy_folder / "trouble.py").write_text(trouble)
    sys.modules.pop("trouble", None)
    if "Keyboard" in trouble:  # a person's Ctrl-C is no fault of the module
        with pytest.raises(KeyboardInterrupt):
            registry.find("trainkit.losses", "trouble:Loss")
        return
    with pytest.raises(ComponentError, match=r'"trouble:Loss" \(trouble:Loss\) cannot be imported'):
        registry.find("trainkit.losses", "trouble:Loss")


def test_a_module_beside_the_recipe_is_named_with_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "my_losses.py").write_text("")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ComponentError, match=r"my_losses.py is in the working directory; set PYTHONPATH=\."):
        registry.find("trainkit.losses", "my_losses:Mine")


def test_what_is_no_class_is_refused() -> None:
    with pytest.raises(ComponentError, match="is not a class"):
        registry.find("trainkit.losses", "os:getcwd")


def test_an_unknown_name_is_answered_with_the_nearest_or_all() -> None:
    with pytest.raises(
        ComponentError, match=r'no component "squares" is registered in trainkit.losses; did you mean "square"'
    ):
        registry.find("trainkit.losses", "squares")
    with pytest.raises(ComponentError, match="known here: pair, round"):
        registry.find("trainkit.toy.shapes", "x")
    with pytest.raises(ComponentError, match="nothing is known here"):
        registry.find("trainkit.nothing", "x")


def test_a_name_of_a_pyproject_that_was_not_installed_again_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[project.entry-points."trainkit.losses"]\nfresh = "toy:Square"\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(ComponentError, match=r'"fresh" is in .*pyproject.toml but not installed'):
        registry.find("trainkit.losses", "fresh")


def test_a_class_knows_its_name_in_the_registry() -> None:
    assert registry.name_of(registry.find("trainkit.losses", "square")) == "square"
    assert registry.name_of(registry.find("trainkit.losses", "toy:Unfinished")) == "unfinished"
    assert registry.name_of(ComponentError) == "trainkit.errors:ComponentError"


def test_a_class_whose_name_two_packages_have_is_named_with_its_package(toy_folder: Path) -> None:
    (toy_folder / "other_toy.py").write_text("class Square: entry_points = 'trainkit.losses'\n")
    distribution(toy_folder, "other-toy", "2.0", "[trainkit.losses]\nsquare = other_toy:Square\n")
    registry.forget()
    for package in ("toy", "other-toy"):
        cls = registry.find("trainkit.losses", f"{package}/square")
        assert registry.name_of(cls) == f"{package}/square"
        assert registry.find("trainkit.losses", registry.name_of(cls)) is cls
    assert registry.name_of(registry.find("trainkit.losses", "unfinished")) == "unfinished"
