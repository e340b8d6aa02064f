"""The JSON Schema refuses what check refuses for reasons of form, and nothing that check takes; editors use it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli_w
from attrs.validators import and_, ge, gt, in_, le, lt, optional
from clients import language_server
from jsonschema import Draft7Validator, ValidationError
from recipe_toys import toys

from recipe import schema_trials
from trainkit import registry
from trainkit.recipe.ranges import Range, choices_of, range_of
from trainkit.recipe.resolve import resolve
from trainkit.recipe.root import seconds_of
from trainkit.recipe.schema import DIRECTIVE, FILE, recipe_schema
from trainkit.recipe.shipped import shipped

ROOT = Path(__file__).parents[2]
CHILD = 'extends = ["base.toml"]\n'
LINT = (str(language_server.tombi()), "lint", "--offline")
needs_tombi = pytest.mark.skipif(language_server.tombi() is None, reason="tombi is not installed (pip install tombi)")


def mistakes(text: str) -> list[str]:
    """Return all that the schema says against a recipe, the reasons why none of several forms fits included."""

    def said(error: ValidationError) -> Iterator[str]:
        yield error.message
        for each in error.context or ():
            yield from said(each)

    return [each for error in schema_trials.validator().iter_errors(tomllib.loads(text)) for each in said(error)]


# ---- the recipes that come with trainkit ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shipped recipes, whole, and the schema."""
    folder = tmp_path_factory.mktemp("recipes")
    schema_trials.written(folder)
    (folder / FILE).write_text(json.dumps(recipe_schema()[0]), encoding="utf-8")
    return folder


@pytest.mark.measured_every(10)
@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_passes_as_it_is_written_and_with_every_setting_written_out(name: str, recipes: Path) -> None:
    path = recipes / f"{name}.toml"
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"{DIRECTIVE}\n")
    assert not mistakes(text)
    assert not mistakes(tomli_w.dumps(resolve(path).tree))


@pytest.mark.no_cover  # others reach these lines sooner
def test_what_check_takes_the_schema_takes_and_a_slip_of_form_both_refuse(recipes: Path) -> None:
    paths = sorted(recipes.glob("*.toml"))
    for seed in range(0, 4000, 101):
        assert schema_trials.disagreement(paths[seed % len(paths)], seed) is None


@needs_tombi
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ptycho_staged", "ptycho_mos2_hash", "fine_tune"])
def test_tombi_finds_nothing_in_a_shipped_recipe(name: str, recipes: Path) -> None:
    done = subprocess.run([*LINT, str(recipes / f"{name}.toml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@needs_tombi
@pytest.mark.parametrize(
    ("slip", "said"),
    [
        ("[run]\nepoch = 40\n", '"epoch" is not allowed'),
        ("[run]\nepochs = 40.0\n", "expected a value of type Integer, but found Float"),
        ("[run]\nseed = -7\n", "the value must be ≥ 0, but found -7"),
        ('[run]\nprecision = "fp8"\n', '"fp8" does not match the pattern `^fp32$|^bf16$|^fp16$'),
        ('[scheduler]\nuse = "cosin"\n', '"cosine"'),
        ("", None),
    ],
)
def test_tombi_points_out_a_slip(slip: str, said: str | None, recipes: Path) -> None:
    path = recipes / "slip.toml"
    path.write_text(f"{DIRECTIVE}\n{CHILD}{slip}", encoding="utf-8")
    done = subprocess.run([*LINT, str(path)], capture_output=True, text=True, check=False)
    path.unlink()
    assert done.returncode == (0 if said is None else 1), done.stderr
    assert said is None or said in done.stderr


# ---- what a recipe may say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[optimizer]\nuse = "my_module:Mine"\nanything = 1\n[groups.probe]\nalso = 2\n',
        '[model]\nuse = "my_module:Mine"\n[model.object]\nuse = "other:One"\nx = [1]\n',
        '[groups.probe]\noptimizer = { use = "my:Own" }\nits_own = 1\n',
        '[scheduler]\nuse = "trainkit/cosine"\n',
        '[run]\nepochs = "${env.EPOCHS}"\nname = "${model.use}"\nprecision = "${env.PRECISION}"\n',
        '[groups.probe]\nscheduler = "${scheduler}"\n',
        "[optimizer]\nlr = 1\n",
        '[sweep]\noptimizer.lr = [1e-2, 1e-3]\n"run.seed" = [1, 2]\n',
        "[search]\ntrials = 3\n[search.keys]\noptimizer.lr = { low = 1e-4, high = 1e-1, log = true }\n",
        '[losses.tv]\nuse = "tv"\nweight = "auto"\n',
        'drop = ["hooks.overlays"]\n',
        "[run]\nsteps = 5\n",
    ],
)
def test_what_a_recipe_may_say_that_extends_another_one(text: str) -> None:
    assert not mistakes(CHILD + text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[scheduler]\nuse = "cosine"\nwarmpu = 1\n', "'warmpu' was unexpected"),
        ('[scheduler]\nuse = "cosine"\nwarmup = -1\n', "-1 is less than the minimum of 0"),
        ('[scheduler]\nuse = "cosine"\nby = "steps"\n', "'steps' does not match '^epoch$|^step$"),
        ("[optimizer]\nlrr = 1\n", "'lrr' was unexpected"),
        ('[optimizer]\nuse = "adam"\n[groups.probe]\nmomentum = 0.5\n', "'momentum' was unexpected"),
        (
            '[optimizer]\nuse = "sgd"\n[groups.probe]\nmomentum = 1.5\n',
            "1.5 is greater than or equal to the maximum",
        ),
        ("[groups.probe]\nstart_epohc = 1\n", "'start_epohc' was unexpected"),
        ("[groups.probe]\nlr = 1.0\nlr_factor = 1.0\n", "should not be valid under"),
        ("[run]\nepochs = 3\nsteps = 3\n", "should not be valid under"),
        ('[run]\ndeterministic = "yes"\n', "'yes' does not match"),
        ("[hooks.clip]\nuse = { a = 1 }\n", "is not of type 'string'"),
        ('extend = ["base.toml"]\n', "'extend' was unexpected"),
        ("[monitor]\nmode = 3\n", "3 is not one of ['min', 'max']"),
    ],
)
def test_what_is_refused_in_any_recipe(text: str, said: str) -> None:
    assert any(said in each for each in mistakes(CHILD + text)), mistakes(CHILD + text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'losses' is a required property"),
        ("[data]\nbatch_size = 4\n", "'use' is a required property"),
        ('[data]\nuse = "msd"\n', "'path' is a required property"),
        ("[run]\nseed = 3\n", "'epochs' is a required property"),
        ("[optimizer]\nmomentum = 0.5\n", "'momentum' was unexpected"),
        ("[losses.data]\nweight = 2.0\n", "'use' is a required property"),
    ],
)
def test_a_recipe_that_extends_none_must_have_what_check_asks_for(text: str, said: str) -> None:
    assert any(said in each for each in mistakes("trainkit = 1\n" + text)), mistakes(text)
    assert not any(said in each for each in mistakes(CHILD + text) if "required" in said)


def test_every_setting_has_its_meaning_and_every_component_too() -> None:
    definitions = recipe_schema()[0]["definitions"]
    assert len(definitions) > 100
    for name, schema in definitions.items():
        if "/" in name and not name.startswith("whole:"):
            assert schema["description"], name
            for key, each in schema["properties"].items():
                assert each.get("description"), f"{name} {key}"
    patience = definitions["trainkit.schedulers/reduce_on_plateau"]["properties"]["patience"]
    assert (patience["minimum"], patience["default"]) == (0, 10)


def test_it_imports_neither_torch_nor_numpy() -> None:
    code = "import sys; from trainkit.recipe.schema import recipe_schema; recipe_schema()\n"
    code += "print(*({'torch', 'numpy', 'monai', 'h5py'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# ---- a third party --------------------------------------------------------------------------------------------------


def test_a_third_partys_components_are_in_it_and_a_broken_one_is_told_and_left_alone(tmp_path: Path) -> None:
    with toys(tmp_path):
        schema, broken = recipe_schema()
        judge = Draft7Validator(schema)
        names = [each.name for each in registry.registered("trainkit.losses")]
    assert "square" in names
    child: dict[str, Any] = {"extends": ["base.toml"]}
    assert not list(judge.iter_errors(child | {"losses": {"a": {"use": "square"}}}))
    assert list(judge.iter_errors(child | {"losses": {"a": {"use": "square", "wieght": 2.0}}}))
    assert any("toy_broken" in each for each in broken)
    assert not list(judge.iter_errors(child | {"losses": {"a": {"use": "broken", "any_key": 1}}}))


# ---- ranges ---------------------------------------------------------------------------------------------------------


def _even(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value % 2 or value < 4:
        raise ValueError("must be even")


def _below_other(instance: Any, attribute: attrs.Attribute[float], value: float) -> None:
    if value > instance.other:
        raise ValueError("must be below other")


def _duration(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not seconds_of(value):
        raise ValueError("no duration")


@pytest.mark.parametrize(
    ("validator", "whole", "found"),
    [
        (ge(1), True, Range(least=1)),
        (gt(0), False, Range(above=0.0)),
        ([ge(0), lt(1)], False, Range(least=0.0, below=1.0)),
        (and_(gt(0.0), le(0.3)), False, Range(above=0.0, most=0.3)),
        (optional([ge(-3), le(17)]), True, Range(least=-3, most=17)),
        (optional(gt(2.7)), False, Range(above=2.7)),
        (in_((1, 2, 4, 8)), True, Range(least=1, most=8)),
        (_even, True, Range(least=4)),
        (_below_other, False, Range()),
        (_duration, True, Range()),
        (None, True, Range()),
    ],
)
def test_a_range_is_what_the_validator_takes(validator: Any, whole: bool, found: Range) -> None:
    field = attrs.fields(attrs.make_class("C", {"x": attrs.field(validator=validator)})).x
    assert range_of(field, whole) == found


def test_a_range_in_words_and_the_choices_of_a_validator() -> None:
    assert Range(above=0.0, most=1.0).in_words == "> 0 and ≤ 1"
    assert Range().in_words == ""
    field = attrs.fields(attrs.make_class("C", {"x": attrs.field(validator=optional(in_(("a", "b"))))})).x
    assert choices_of(field) == ("a", "b")


# ---- the command and the page ---------------------------------------------------------------------------------------


def trainkit(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainkit", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_prints_or_writes_it_and_replaces_no_other_file(tmp_path: Path) -> None:
    printed = trainkit("schema", folder=tmp_path)
    assert printed.returncode == 0
    assert json.loads(printed.stdout)["definitions"]
    for _ in range(2):  # a schema that was written before is replaced
        done = trainkit("schema", "--out", FILE, folder=tmp_path)
        assert done.returncode == 0
        assert DIRECTIVE in done.stdout
    assert (tmp_path / FILE).read_text(encoding="utf-8") == printed.stdout
    (tmp_path / "mine.json").write_text('{"title": "mine"}', encoding="utf-8")
    done = trainkit("schema", "--out", "mine.json", folder=tmp_path)
    assert done.returncode == 2
    assert "is there already, and is no schema" in done.stderr
    assert (tmp_path / "mine.json").read_text(encoding="utf-8") == '{"title": "mine"}'
    assert trainkit("schema", "--out", "no/such/x.json", folder=tmp_path).returncode == 2


@needs_tombi
@pytest.mark.slow
def test_what_the_page_about_editors_shows_is_what_the_language_server_offers(recipes: Path) -> None:
    page = (ROOT / "docs" / "editors.md").read_text(encoding="utf-8")
    with language_server.language_server(recipes) as server:
        for text in language_server.EXAMPLES:
            assert language_server.example(server, text, DIRECTIVE) in page
        shown = server.hover(f"{DIRECTIVE}\ntrainkit = 1\n{language_server.HOVER}")
    assert [line for line in shown.split("\n\n") if line and "Schema:" not in line and line not in page] == []
