"""How a recipe is put together, and that the complete one is the same recipe."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipe_toys import GOOD

from trainkit.contracts import Problem
from trainkit.recipe.fields import field_types
from trainkit.recipe.group_epochs import ActiveEpochs, active_epochs, declared_groups, idle_stretches
from trainkit.recipe.problems import Finding, InvalidRecipe
from trainkit.recipe.resolve import resolve, resolve_each, resolve_text, write
from trainkit.recipe.root import Recipe
from trainkit.recipe.shipped import shipped

pytestmark = pytest.mark.usefixtures("toys_installed", "in_own_folder")


def put(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tree(text: str, *sets: str) -> dict[str, Any]:
    return resolve(put("x.toml", text), sets).tree


# ---- the complete recipe --------------------------------------------------------------------------------------------


def test_what_is_not_said_is_a_default_and_the_name_is_that_of_the_file() -> None:
    found = resolve(put("first_try.toml", GOOD))
    run = found.recipe.run
    assert (run.name, run.epochs, run.seed, run.device, run.precision) == ("first_try", 10, 0, "auto", "fp32")
    assert run.dir == Path.cwd() / "runs"
    assert found.tree["monitor"] == {"metric": "val/loss", "mode": "min"}
    assert found.tree["data"] == {"use": "points", "batch_size": 4, "noise": 0.5, "validated": True, "extra": {}}
    assert str(found.origin(("run", "epochs"))) == "first_try.toml:3"
    assert str(found.origin(("run", "seed"))) == "default"


def test_a_component_that_is_a_default_of_another_gets_its_use() -> None:
    found = resolve(put("x.toml", GOOD))
    assert found.tree["model"]["shape"] == {"use": "round", "radius_metres": 1.0, "centre": [0.0, 0.0]}
    assert ("model.shape", "trainkit.toy.shapes", "round", "toy", "1.0") in {attrs.astuple(used) for used in found.used}


def test_a_class_of_any_module_can_be_used_and_is_refused_where_code_is_not_allowed() -> None:
    text = GOOD.replace('"square"', '"toy:Square"')
    found = resolve(put("x.toml", text))
    assert [(used.use, used.package) for used in found.used if used.where == "losses.data"] == [("toy:Square", "")]
    with pytest.raises(InvalidRecipe, match="Add --allow-code to import it"):
        resolve_text(text, Path.cwd(), allow_code=False)


def test_whole_numbers_become_floats_where_floats_are_wanted_and_nothing_else_is_coerced() -> None:
    text = GOOD.replace('use = "points"', 'use = "points"\nnoise = 2\nextra = { deep = [1, { a = "b" }] }')
    data = tree(text)["data"]
    assert (data["noise"], type(data["noise"])) == (2.0, float)
    assert data["extra"] == {"deep": [1, {"a": "b"}]}
    assert type(data["extra"]["deep"][1]["a"]) is str


def test_a_groups_own_optimizer_settings_stand_beside_its_others() -> None:
    text = (
        GOOD
        + '[groups.head]\nlr = 1\nweight_decay = 1\nbetas = [0.5, 0.9]\nstart_epoch = 0\nscheduler.use = "falling"\n'
    )
    found = resolve(put("x.toml", text))
    group = found.recipe.groups["head"]
    assert group.options == {"weight_decay": 1.0, "betas": (0.5, 0.9)}
    assert (group.lr, group.start_epoch, type(group.scheduler).__name__) == (1.0, 0, "Falling")
    assert found.tree["groups"]["head"]["weight_decay"] == 1.0


def test_a_group_with_everything_it_can_have_is_written_out_and_read_again() -> None:
    text = (
        GOOD
        + """
[groups.encoder]
parameters = ["encoder.*", "!*.bias"]
lr_factor = 0.1
optimizer = { use = "hasty", lr = 0.5 }
haste = 7
[groups.encoder.then.finish]
start_epoch = 4
optimizer = { use = "steep", weight_decay = 1 }
[groups.encoder.then.end]
start_epoch = 6
lr_factor = 0.5
scheduler = { use = "falling" }
[groups.others]
parameters = "rest"
weight_decay = 0
"""
    )
    found = resolve(put("x.toml", text))
    encoder, others = found.recipe.groups["encoder"], found.recipe.groups["others"]
    assert (encoder.parameters, others.parameters) == (("encoder.*", "!*.bias"), "rest")
    assert (encoder.options, others.options) == ({"haste": 7}, {"weight_decay": 0.0})
    assert [type(each).__name__ for each in (encoder.optimizer, encoder.then["finish"].optimizer)] == ["Hasty", "Steep"]
    assert {"groups.encoder.optimizer", "groups.encoder.then.finish.optimizer"} <= {each.where for each in found.used}
    assert found.tree["groups"]["others"] == {"parameters": "rest", "weight_decay": 0.0}
    again = resolve_text(write(found.tree), Path("/elsewhere"))
    assert again.recipe == found.recipe
    assert again.tree == found.tree


SHAPES: Any = st.deferred(
    lambda: st.one_of(
        st.fixed_dictionaries({"use": st.just("round"), "radius_metres": st.floats(allow_nan=False)}),
        st.fixed_dictionaries({"use": st.just("pair"), "first": SHAPES}, optional={"second": SHAPES}),
    )
)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="${}"), max_size=5)
RECIPES: Any = st.fixed_dictionaries(
    {
        "trainkit": st.just(1),
        "run": st.fixed_dictionaries({"epochs": st.integers(1, 9)}, optional={"seed": st.integers(0, 2**60)}),
        "data": st.fixed_dictionaries(
            {"use": st.just("points")}, optional={"path": st.from_regex(r"[a-z./]{1,9}", fullmatch=True)}
        ),
        "model": st.fixed_dictionaries(
            {"use": st.sampled_from(["line", "toy/line", "toy:Line"])},
            optional={
                "shape": SHAPES,
                "named": st.dictionaries(NAMES, SHAPES, max_size=2),
                "layers": st.lists(st.integers(-(2**63), 2**63 - 1)),
            },
        ),
        "losses": st.dictionaries(
            NAMES.filter(lambda name: name.strip() and "/" not in name and name != "loss"),
            st.just({"use": "square"}),
            min_size=1,
            max_size=3,
        ),
        "inference": st.just({"use": "direct"}),
        "optimizer": st.fixed_dictionaries({"use": st.just("steep")}, optional={"lr": st.floats(1e-9, 1)}),
        "scheduler": st.just({"use": "falling", "factor": 1}),
    },
    optional={
        "groups": st.fixed_dictionaries(
            {},
            optional={
                "head": st.fixed_dictionaries(
                    {"start_epoch": st.just(0)},
                    optional={"weight_decay": st.floats(0, 1), "scheduler": st.just({"use": "flat"})},
                ),
                "body": st.fixed_dictionaries({}, optional={"lr": st.floats(1e-9, 1)}),
            },
        )
    },
)


@pytest.mark.no_cover  # others reach these lines sooner
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(RECIPES)
def test_the_complete_recipe_written_out_resolves_to_an_equal_one(recipe: dict[str, Any]) -> None:
    first = resolve_text(write(recipe), Path("somewhere").absolute(), name="x")
    again = resolve_text(write(first.tree), Path("/elsewhere"))
    assert again.recipe == first.recipe
    assert again.tree == first.tree
    assert again.used == first.used


def test_every_field_of_the_recipe_is_written_in_the_classes_own_order() -> None:
    keys = [field.alias for field in attrs.fields(Recipe)]
    optional = {field.alias for field in attrs.fields(Recipe) if field.default is None}
    assert list(tree(GOOD)) == [key for key in keys if key not in optional]
    assert set(field_types(Recipe)) == set(keys)


RICH = write(
    {
        **tomli.loads(GOOD),
        "model": {"use": "line", "layers": [1, 2], "named": {"a": {"use": "pair", "first": {"use": "round"}}}},
        "metrics": {"m": {"use": "hits"}},
        "groups": {
            "head": {
                "lr": 0.1,
                "start_epoch": 3,
                "stop_epoch": 5,
                "betas": [0.1, 0.2],
                "then": {"a": {"lr_factor": 0.1, "start_epoch": 4}},
            }
        },
        "hooks": {"w": {"use": "watch", "metric": "val/hits"}},
        "loggers": {"d": {"use": "diary"}},
    }
)
ANYTHING: Any = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=3),
        st.dates(),
        st.sampled_from(
            ["line", "square", "broken", "toy:Round", "${run.epochs}", "${run}", "val/loss", ":", "a/b", "x:y"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(["use", "lr", "a", "", "parameters", "start_epoch", "then", "optimizer", "extends"]),
            inner,
            max_size=2,
        ),
    ),
    max_leaves=4,
)


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_whatever_stands_in_a_recipe_the_answer_is_a_recipe_or_findings_each_with_a_place(data: st.DataObject) -> None:
    recipe = tomli.loads(RICH)
    for _ in range(data.draw(st.integers(1, 3))):
        table: Any = recipe
        key = data.draw(st.sampled_from(sorted(table)))
        while isinstance(table[key], dict) and table[key] and data.draw(st.integers(0, 3)):
            table = table[key]
            key = data.draw(st.sampled_from(sorted(table)))
        table[data.draw(st.sampled_from([key, key + "x", "extends", "drop"]))] = data.draw(ANYTHING)
    findings: list[Finding] = []
    try:
        resolve_text(write(recipe), Path("somewhere").absolute(), ["run.seed=3"], source="it")
    except InvalidRecipe as error:
        findings = error.findings
    assert all(finding.origin and str(finding).startswith(("it:", "--set")) for finding in findings)


# ---- layers ---------------------------------------------------------------------------------------------------------


def test_parents_merge_from_left_to_right_then_the_file_then_set() -> None:
    put("base/a.toml", GOOD + '[hooks.w]\nuse = "watch"\n')
    put("base/b.toml", "run.epochs = 20\nrun.seed = 20\nrun.threads = 2\nmodel.layers = [1, 2, 3]\n")
    path = put(
        "x.toml", 'extends = ["base/a.toml", "base/b.toml"]\nrun.seed = 30\nrun.threads = 3\nmodel.layers = [4]\n'
    )
    found = resolve(path, ["run.threads=4", "run.name = a name "])
    run = found.recipe.run
    assert (run.epochs, run.seed, run.threads, run.name) == (20, 30, 4, "a name")
    assert found.tree["model"]["layers"] == [4]
    assert [str(found.origin(("run", key))) for key in ("epochs", "seed", "threads")] == [
        "base/b.toml:1",
        "x.toml:2",
        "--set run.threads=4",
    ]
    assert str(found.origin(("hooks", "w", "use"))) == "base/a.toml:17"


def test_a_mistake_in_a_parent_is_shown_there() -> None:
    put("base/a.toml", GOOD.replace("epochs = 10", "epochs = 0"))
    with pytest.raises(InvalidRecipe, match=r"^base/a.toml:3:10: error: run.epochs: must be at least 1"):
        resolve(put("x.toml", 'extends = ["base/a.toml"]\n'))


def test_another_use_drops_the_inherited_keys_beside_it_and_the_same_one_keeps_them() -> None:
    put("base.toml", GOOD + "warmup = 3\n[optimizer.extra]\n".replace("[optimizer.extra]\n", ""))
    kept = resolve(put("x.toml", 'extends = ["base.toml"]\n[scheduler]\nuse = "flat"\nby = "step"\n'))
    assert kept.tree["scheduler"] == {"use": "flat", "by": "step", "warmup": 3}
    other = resolve(put("x.toml", 'extends = ["base.toml"]\n[scheduler]\nuse = "falling"\nby = "step"\n'))
    assert other.tree["scheduler"] == {"use": "falling", "by": "step", "warmup": 0, "factor": 0.5}
    both = resolve(Path("base.toml"), ["scheduler.factor=0.1", "scheduler.use=falling"])
    assert both.tree["scheduler"] == {"use": "falling", "by": "epoch", "warmup": 0, "factor": 0.1}


def test_one_of_two_settings_that_exclude_each_other_drops_the_inherited_other() -> None:
    phase = "then = { finish = { start_epoch = 5, lr = 1e-4 } }"
    put("base.toml", GOOD + f"[groups.body]\nlr = 0.1\n{phase}\n")
    finish = "groups.body.then.finish.lr_factor=0.5"
    found = resolve(put("x.toml", 'extends = ["base.toml"]\nrun.steps = 70\ngroups.body.lr_factor = 2\n'), [finish])
    body = found.recipe.groups["body"]
    assert (found.recipe.run.epochs, found.recipe.run.steps) == (None, 70)
    assert (body.lr, body.lr_factor) == (None, 2.0)
    assert (body.then["finish"].lr, body.then["finish"].lr_factor) == (None, 0.5)
    assert "epochs" not in found.tree["run"]
    assert str(found.origin(("run", "epochs"))) == "default"
    again = resolve_text(write(found.tree), Path("/elsewhere"), ["run.epochs=9", "groups.body.lr=1"]).recipe
    assert (again.run.epochs, again.run.steps, again.groups["body"].lr_factor) == (9, None, None)


def test_an_inherited_key_can_be_dropped_and_one_that_is_not_there_cannot() -> None:
    put("base.toml", GOOD + '[hooks.watching]\nuse = "watch"\n[hooks."a b"]\nuse = "watch"\n')
    found = resolve(put("x.toml", 'extends = ["base.toml"]\ndrop = ["hooks.watching"]\n'), ["drop=['hooks.\"a b\"']"])
    assert found.tree["hooks"] == {}
    with pytest.raises(InvalidRecipe) as caught:
        resolve(put("x.toml", 'extends = ["base.toml"]\ndrop = ["hooks.watchin"]\n'))
    assert str(caught.value) == (
        """\
x.toml:2:9: error: drop[0]: "hooks.watchin" is not inherited, so it cannot be dropped
    drop = ["hooks.watchin"]
            ^^^^^^^^^^^^^^^
    did you mean "hooks.watching"?"""
    )


def test_recipes_that_extend_each_other_and_missing_ones_are_mistakes_at_their_line() -> None:
    put("a.toml", 'extends = ["b.toml"]\n')
    put("b.toml", '# b\nextends = ["a.toml"]\n')
    with pytest.raises(InvalidRecipe) as caught:
        resolve("a.toml")
    assert str(caught.value).splitlines()[0] == (
        "b.toml:2:12: error: extends[0]: recipes extend each other: a.toml extends b.toml extends a.toml"
    )
    with pytest.raises(
        InvalidRecipe, match=r'x.toml:1:12: error: extends\[0\]: there is no file aa.toml(?s:.*)"a.toml"'
    ):
        resolve(put("x.toml", 'extends = ["aa.toml"]\n'))
    with pytest.raises(InvalidRecipe, match="extends: must be a list of strings"):
        resolve(put("x.toml", 'extends = "a.toml"\n'))


def test_a_recipe_extends_one_that_comes_with_trainkit_by_its_name_unless_there_is_such_a_file() -> None:
    found = resolve(put("x.toml", 'extends = ["ptycho_staged"]\n[run]\nepochs = 35\n'))
    assert found.tree["groups"]["probe"]["start_epoch"] == 10
    assert found.tree["run"]["epochs"] == 35
    with pytest.raises(InvalidRecipe, match=r'there is no file ptycho_stagd(?s:.*)"ptycho_staged"'):
        resolve(put("x.toml", 'extends = ["ptycho_stagd"]\n'))
    put("ptycho_staged", GOOD)
    assert resolve(put("x.toml", 'extends = ["ptycho_staged"]\n')).tree["model"]["use"] == "line"


def test_references_take_the_value_with_its_type_or_are_written_out() -> None:
    text = GOOD.replace("epochs = 10", 'epochs = 10\nname = "seed ${run.seed}, ${model.layers}"').replace(
        'use = "line"', 'use = "line"\nhidden = "${data.batch_size}"\nlayers = ["${run.epochs}", 3]'
    )
    with pytest.raises(InvalidRecipe, match="a reference to a table or a list must be the whole"):
        tree(text, "data.batch_size=2")
    found = tree(text.replace(", ${model.layers}", ""), "data.batch_size=2", "run.seed=5")
    assert found["run"]["name"] == "seed 5"
    assert (found["model"]["hidden"], found["model"]["layers"]) == (2, [10, 3])


def test_unknown_references_and_circles_are_mistakes_and_no_code_is_run() -> None:
    text = GOOD.replace("epochs = 10", 'epochs = 10\nname = "${run.dir}"\ndir = "${run.name}"')
    with pytest.raises(InvalidRecipe) as caught:
        tree(text)
    assert [str(each).splitlines()[0] for each in caught.value.findings] == [
        "x.toml:4:8: error: run.name: refers to itself: run.name -> run.dir -> run.name",
        "x.toml:5:7: error: run.dir: refers to itself: run.dir -> run.name -> run.dir",
    ]
    with pytest.raises(InvalidRecipe) as caught:
        tree(GOOD, "run.name=${run.sed}")
    assert str(caught.value) == (
        '--set run.name=${run.sed}: error: run.name: "${run.sed}" is not set in this recipe\n'
        '    did you mean "run.seed"?'
    )
    with pytest.raises(InvalidRecipe, match="is not set in this recipe"):
        tree(GOOD, "run.name=${__import__('os')}")


def test_relative_paths_start_at_the_recipe_that_holds_them_and_those_of_set_where_one_is() -> None:
    put("base/a.toml", GOOD.replace('use = "points"', 'use = "points"\npath = "../scans/scan.h5"'))
    here = Path.cwd()
    assert Path(resolve("base/a.toml").tree["data"]["path"]) == here / "scans" / "scan.h5"
    path = put("x.toml", 'extends = ["base/a.toml"]\nrun.dir = "out"\n')
    found = resolve(path)
    assert (found.recipe.run.dir, Path(found.tree["data"]["path"])) == (here / "out", here / "scans/scan.h5")
    assert resolve(path, ["data.path=s.h5"]).tree["data"]["path"] == str(here / "s.h5")
    assert resolve(path, ["data.path=/s.h5"]).tree["data"]["path"] == "/s.h5"
    assert resolve(path, ["run.dir=${data.path}"]).recipe.run.dir == here / "scans/scan.h5"


@pytest.mark.parametrize(
    ("value", "read"),
    [("3", 3), ("-1e-3", -0.001), ("true", True), ('"3"', "3"), ("a b", "a b"), ("", ""), ("1.2.3", "1.2.3")],
)
def test_the_value_of_set_is_toml_else_a_bare_string(value: str, read: Any) -> None:
    found = tree(GOOD, f"data.extra.x={value}")["data"]["extra"]["x"]
    assert (found, type(found)) == (read, type(read))


def test_set_takes_tables_and_lists_too() -> None:
    sets = ('model.shape={ use = "round", radius_metres = 3 }', "model.layers=[1]", 'model.named."a.b".use=round')
    model = tree(GOOD, *sets)["model"]
    assert model["shape"]["radius_metres"] == 3.0
    assert model["layers"] == [1]
    assert list(model["named"]) == ["a.b"]


# ---- rules seen from inside -----------------------------------------------------------------------------------------


def test_active_epochs_say_when_each_group_trains() -> None:
    text = GOOD + "[groups.head]\nstart_epoch = 0\nstop_epoch = 3\n"
    for recipe, head in ((text, ActiveEpochs(0, 3)), (GOOD, ActiveEpochs(None, 10))):
        found = resolve(put("x.toml", recipe)).recipe
        assert active_epochs(found, declared_groups(found) or {}, 10) == {"body": ActiveEpochs(0, 10), "head": head}
    assert declared_groups(resolve(put("x.toml", GOOD), ["model.known=false"]).recipe) is None


@given(
    st.lists(st.builds(ActiveEpochs, st.none() | st.integers(0, 12), st.integers(0, 12)), max_size=5),
    st.integers(1, 12),
)
def test_idle_stretches_are_the_epochs_in_which_no_group_trains(known: list[ActiveEpochs], epochs: int) -> None:
    known = [
        ActiveEpochs(start, min(stop, epochs)) for start, stop in known if start is None or start < min(stop, epochs)
    ]
    idle = [epoch for first, stop in idle_stretches(known, epochs) for epoch in range(first, stop)]
    assert idle == [epoch for epoch in range(epochs) if not any(epoch in each for each in known)]


def test_a_foreign_check_that_breaks_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import toy

    def breaks(self: Any, recipe: Any) -> Iterator[Problem]:
        yield Problem("first", "layers")
        raise RuntimeError("oh")

    monkeypatch.setattr(toy.Line, "problems", breaks)

    def splits(self: Any) -> tuple[str, ...]:
        raise AttributeError("no splits")

    monkeypatch.setattr(toy.Points, "splits", splits)
    with pytest.raises(InvalidRecipe) as caught:
        tree(GOOD)
    first, second, third = (finding.message for finding in caught.value.findings)
    assert first == "first"
    assert second.startswith("raised an error while it was checked: RuntimeError: oh (")
    assert third.startswith("a component raised an error while it was checked: AttributeError: no splits (")
    assert third.endswith("in splits)")


@pytest.mark.no_cover  # others reach these lines sooner
@given(st.dictionaries(st.text(max_size=3), st.lists(st.text() | st.integers() | st.lists(st.text())) | st.text()))
def test_written_recipes_are_toml_of_the_same_values(values: dict[str, Any]) -> None:
    assert tomli.loads(write(values)) == values


def test_short_lists_are_written_on_one_line() -> None:
    assert write({"a": [1, 2], "b": ["x, y"], "c": []}) == 'a = [1, 2]\nb = ["x, y"]\nc = []\n'


def test_a_bare_name_is_a_file_of_the_working_directory_else_a_recipe_that_comes_with_trainkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = ("run.name=mine",)
    (tmp_path / "ptycho_staged").mkdir()  # a folder is no recipe
    coming = resolve("ptycho_staged", sets)
    assert coming.source == str(shipped()["ptycho_staged"])
    assert [str(note) for note in coming.notes if "is taken for" in str(note)] == [
        f'{coming.source}: note: "ptycho_staged" is taken for this recipe, which comes with trainkit'
    ]
    Path("ptycho_staged.toml").write_text('extends = ["more.toml"]')
    Path("more.toml").write_bytes(shipped()["ptycho_staged"].read_bytes())
    for own in (resolve("ptycho_staged", sets), *resolve_each("ptycho_staged", sets)):
        assert own.source == "ptycho_staged.toml"
        (said,) = (str(note) for note in own.notes if "is taken for" in str(note))
        assert said.endswith(f"of the working directory; the one that comes with trainkit is {coming.source}")
    assert not [note for note in resolve("ptycho_staged.toml", sets).notes if "is taken for" in str(note)]
    with pytest.raises(InvalidRecipe, match='there is no such file\n    did you mean "ptycho_siemens"'):
        resolve("ptycho_simens")
