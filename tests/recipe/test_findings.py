"""What a person reads: bad recipes, and exactly what is said about them."""

from pathlib import Path

import pytest
from recipe_toys import GOOD, distribution

from trainkit import registry
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import Resolved, resolve

pytestmark = pytest.mark.usefixtures("toys_installed", "in_own_folder")


def resolved(text: str, *sets: str) -> Resolved:
    Path("x.toml").write_text(text)
    return resolve("x.toml", sets)


def said(text: str, *sets: str) -> str:
    """What is said about a bad recipe."""
    with pytest.raises(InvalidRecipe) as caught:
        resolved(text, *sets)
    assert caught.value.exit_code == 2
    return str(caught.value) + "\n"


def noted(text: str, *sets: str) -> list[str]:
    """The first lines of what is said about a recipe that can run."""
    return [str(note).splitlines()[0] for note in resolved(text, *sets).notes]


def test_all_mistakes_of_all_sorts_are_said_at_once_each_under_its_place() -> None:
    text = """\
trainkit = 1
[run]
epochs = 10
seed = 3.7
deterministic = "false"
precisoin = "bf16"
[data]
use = "points"
batch_size = 0
[model]
use = "lin"
[losses.data]
use = "square"
weight = true
[losses.smooth]
weight = 1.0
[inference]
use = "direct"
[optimizer]
use = "steep"
lr = -1e-3
betas = [0.9]
[scheduler]
use = "flat"
warmup = 2.0
[groups.head]
start_epoch = 10
weight_decay = -1
"""
    assert said(text, "run.threads=many") == (
        """\
x.toml:4:8: error: run.seed: must be a whole number, got 3.7
    seed = 3.7
           ^^^
x.toml:5:17: error: run.deterministic: must be true or false, got "false"
    deterministic = "false"
                    ^^^^^^^
x.toml:6:1: error: run.precisoin: unknown key
    precisoin = "bf16"
    ^^^^^^^^^
    did you mean "precision"?
x.toml:9:14: error: data.batch_size: must be at least 1, got 0
    batch_size = 0
                 ^
x.toml:11:7: error: model.use: no component "lin" is registered in trainkit.models
    use = "lin"
          ^^^^^
    did you mean "line"?
x.toml:14:10: error: losses.data.weight: must be a number or "auto", got true
    weight = true
             ^^^^
x.toml:15:9: error: losses.smooth: has no "use", which names the component
    [losses.smooth]
            ^^^^^^
    """
        + _components("trainkit.losses")
        + """\
x.toml:21:6: error: optimizer.lr: must be a positive number, got -0.001
    lr = -1e-3
         ^^^^^
x.toml:22:9: error: optimizer.betas: must have 2 items, got 1
    betas = [0.9]
            ^^^^^
x.toml:25:10: error: scheduler.warmup: must be a whole number, got 2.0
    warmup = 2.0
             ^^^
x.toml:27:15: error: groups.head.start_epoch: the run ends before: it has 10 epochs
    start_epoch = 10
                  ^^
x.toml:28:16: error: groups.head.weight_decay: must be at least 0, got -1.0
    weight_decay = -1
                   ^^
--set run.threads=many: error: run.threads: must be a whole number, got "many"
"""
    )


def _components(group: str) -> str:
    return f"known here: {', '.join(sorted(found.name for found in registry.registered(group)))}\n"


def test_what_is_missing_is_said_where_it_should_stand() -> None:
    text = GOOD.replace("epochs = 10\n", "").replace('[data]\nuse = "points"\n', "")
    assert said(text) == (
        """\
x.toml:2:2: error: run: "epochs" or "steps" is missing: how long the run lasts
    [run]
     ^^^
x.toml: error: "data" is missing
    """
        + _components("trainkit.data")
    )


def test_an_empty_recipe_is_told_all_that_it_needs() -> None:
    text = said("")
    assert '"epochs" or "steps" is missing' in text
    for key in ("trainkit", "data", "model", "losses"):
        assert f'"{key}" is missing' in text


def test_a_text_that_is_no_toml_is_shown_with_its_place() -> None:
    assert said("trainkit = 1\n[run\nepochs = 3\n") == (
        """\
x.toml:2:5: error: this is not TOML: Expected ']' at the end of a table declaration
    [run
        ^
"""
    )


def test_columns_count_characters_and_the_caret_line_keeps_tabs() -> None:
    text = GOOD.replace('[model]\nuse = "line"', '[model]\nuse = "line"\n\tshape = { use = "räund", "größe" = 1 }')
    assert said(text) == (
        """\
x.toml:8:18: error: model.shape.use: no component "räund" is registered in trainkit.toy.shapes
    \tshape = { use = "räund", "größe" = 1 }
    \t                ^^^^^^^
    did you mean "round"?
"""
    )


def test_keys_in_inline_tables_and_lists_have_their_own_place() -> None:
    pair = '{ use = "pair", first = { use = "round", radius = 2 }, second = { use = "round", centre = [0, "x"] } }'
    text = GOOD.replace('use = "line"', f'use = "line"\nnamed.a = {pair}')

    def column(word: str) -> int:
        return f"named.a = {pair}".index(word) + 1

    assert [line for line in said(text).splitlines() if line.startswith("x.toml")] == [
        f"x.toml:8:{column('radius')}: error: model.named.a.first.radius: unknown key",
        f'x.toml:8:{column(chr(34) + "x")}: error: model.named.a.second.centre[1]: must be a number, got "x"',
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('[losses]\ndata = "square"', 'must be a table with "use", got "square"'),
        ("[losses.data]\nuse = 3", "must be a string, got 3"),
        ('[losses.data]\nuse = "broken"', "cannot be imported: RuntimeError: no licence"),
        ('[losses.data]\nuse = "absent"', "cannot be imported: AttributeError"),
        ('[losses.data]\nuse = "mere"', '"mere" is not a Loss (of trainkit.losses): toy:Plain'),
        ('[losses.data]\nuse = "misplaced"', '"misplaced" is not a Loss (of trainkit.losses): toy:Round'),
        ('[losses.data]\nuse = "unfinished"', '"unfinished" is unfinished: toy:Unfinished lacks build'),
        ('[losses.data]\nuse = "nowhere:Loss"', "cannot be imported: ModuleNotFoundError"),
        ('[losses.data]\nuse = "toy:Round"', '"toy:Round" is not a Loss'),
        ('[losses.data]\nuse = "falling"', '"falling" is registered in trainkit.schedulers'),
        ('[losses.data]\nuse = "square"\npower = 0.5', "losses.data.power: must not be below weight 1.0, got 0.5"),
        ("[losses]", 'at least one is needed: [losses.NAME] with "use"'),
    ],
)
def test_a_component_that_cannot_be_had_is_explained(change: str, message: str) -> None:
    assert message in said(GOOD.replace('[losses.data]\nuse = "square"', change))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("run.epochs=0", "run.epochs: must be at least 1, got 0"),
        ("run.epochs=true", "run.epochs: must be a whole number, got true"),
        ("run.name=[7]", "run.name: must be a string, got a list"),
        ("run.name=a/b", "run.name: must be a valid name of a folder, got 'a/b'"),
        ("run.device=gpu", 'run.device: must be "auto", "cpu", "cuda", "cuda:N" or "mps", got "gpu"'),
        ("run.precision=fp23", 'run.precision: must be one of "fp32", "bf16", "fp16", got "fp23"'),
        ("model.layers=8", "model.layers: must be a list, each item a whole number, got 8"),
        ("model.layers=[8, 2.5]", "model.layers[1]: must be a whole number, got 2.5"),
        ("model.shape=round", 'model.shape: must be a table with "use", got "round"'),
        ("data.noise=loud", 'data.noise: must be a number, got "loud"'),
        ("optimizer.betas=0.9", "optimizer.betas: must be a list of 2 items (a number, a number), got 0.9"),
        ("data.path=[3]", "data.path: must be a path, got a list"),
        ("data.extra=3", "data.extra: must be a table, got 3"),
        ("trainkit=2", "trainkit: this trainkit reads version 1 of the recipe language, the recipe says 2"),
        ("validation.every_epochs=-1", "validation.every_epochs: must be at least 0, got -1"),
        ("extends=[]", "extends can stand in a recipe file only"),
        ("groups.body.lr=-1e-3", "groups.body.lr: must be at least 0, got -0.001"),
        ("groups.body.use=steep", "groups.body.use: unknown key"),
        ("groups.body.rest=true", "groups.body.rest: unknown key"),
        ("groups.body.momentum=0.9", "groups.body.momentum: unknown key"),
        ("groups.body.betas=[0.9, true]", "groups.body.betas[1]: must be a number, got true"),
        ("groups.body=3", "groups.body: must be a table, got 3"),
        (
            "groups.body.scheduler.use=fallin",
            'groups.body.scheduler.use: no component "fallin" is registered in trainkit.schedulers',
        ),
        ("run.seed", "write it as --set some.key=value"),
        ("=3", "write it as --set some.key=value"),
    ],
)
def test_a_wrong_setting_is_shown_as_it_was_given(setting: str, message: str) -> None:
    text = said(GOOD, setting)
    assert text.startswith(f"--set {setting}: error: {message}")
    assert text.count("error") == 1


def test_a_broken_component_is_no_mistake_where_no_recipe_names_it() -> None:
    assert noted(GOOD) == []


def test_two_packages_with_one_name_are_told_apart_by_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "rival", "2.0", "[trainkit.losses]\nsquare = toy:Penalty\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.forget()
    try:
        assert (
            '"square" is registered in trainkit.losses by 2 packages; '
            'say which: use = "rival/square" or use = "toy/square"' in said(GOOD)
        )
        chosen = resolved(GOOD, "losses.data.use=rival/square", "monitor.metric=train/loss")
        assert type(chosen.recipe.losses["data"]).__name__ == "Penalty"
        assert [(used.package, used.version) for used in chosen.used if used.where == "losses.data"] == [
            ("rival", "2.0")
        ]
    finally:
        monkeypatch.undo()
        registry.forget()


def test_a_module_that_a_component_needs_is_named_with_what_installs_it() -> None:
    text = said(GOOD, "losses.data.use=needy")
    assert "losses.data.use: needs the module surely_not_installed, which is not installed" in text
    assert "pip install 'toy[needs]'" in text


def test_a_missing_recipe_names_the_nearest_one() -> None:
    with pytest.raises(InvalidRecipe, match="there is no recipe in"):
        resolve("ptych.toml")
    Path("pyproject.toml").write_text("")
    Path("ptycho.toml").write_text(GOOD)
    with pytest.raises(InvalidRecipe) as caught:
        resolve("ptych.toml")
    assert str(caught.value) == 'ptych.toml: error: there is no such file\n    did you mean "ptycho.toml"?'
    Path("recipes").mkdir()
    Path("recipes/staged.toml").write_text(GOOD)
    with pytest.raises(InvalidRecipe, match=r'did you mean "recipes/staged.toml"'):
        resolve("staged.toml")
    with pytest.raises(InvalidRecipe, match="cannot be read: Is a directory"):
        resolve(".")


def test_a_file_that_is_no_text_and_one_nested_beyond_reason_get_a_message() -> None:
    Path("x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRecipe, match="this is not UTF-8 text"):
        resolve("x.toml")
    Path("x.toml").write_text("a = " + "[" * 100_000 + "]" * 100_000)
    with pytest.raises(InvalidRecipe, match=r"nested too|this is not TOML"):
        resolve("x.toml")


def test_windows_line_ends_and_a_byte_order_mark_move_no_place() -> None:
    Path("x.toml").write_bytes(("\ufeff" + GOOD.replace("epochs = 10", "epochs = 'x'")).replace("\n", "\r\n").encode())
    with pytest.raises(InvalidRecipe) as caught:
        resolve("x.toml")
    assert str(caught.value).splitlines()[0] == 'x.toml:3:10: error: run.epochs: must be a whole number, got "x"'


# ---- parameter groups -----------------------------------------------------------------------------------------------


def test_a_group_that_the_model_does_not_have_is_named_with_the_nearest() -> None:
    assert said(GOOD + "[groups.haed]\nlr = 1\n") == (
        """\
x.toml:16:9: error: groups.haed: the model has no such group
    [groups.haed]
            ^^^^
    did you mean "head"?
"""
    )


def test_groups_of_a_model_that_is_not_built_yet_are_not_judged() -> None:
    assert noted(GOOD, "model.known=false", "groups.anything.lr=1", "monitor.metric=lr/anything") == []


@pytest.mark.parametrize("key", ["lr", "lr_factor"])
def test_a_rate_of_0_is_noted(key: str) -> None:
    assert noted(GOOD, f"groups.body.{key}=0")[0].endswith(
        f"groups.body.{key}: the group stays as it is, although it trains"
    )


def test_a_group_with_settings_but_no_start_stays_frozen_and_a_note_says_so() -> None:
    frozen = "x.toml:16:9: note: groups.head: this group stays frozen, because it has no start_epoch"
    assert noted(GOOD + "[groups.head]\nlr = 1e-3\n") == [frozen]
    assert noted(GOOD + "[groups.head]\nlr = 1e-3\nstart_epoch = 0\n") == []
    assert noted(GOOD + "[groups.body]\nlr = 1e-3\n") == []
    assert noted(GOOD + "[groups.head]\nstart_epoch = 0\n[groups.body]\nstop_epoch = 0\n") == []


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("[groups.body]\nstop_epoch = 0", "groups: no parameter group trains in the first 10 epochs"),
        ("[groups.body]\nstart_epoch = 4\nstop_epoch = 0", "must come after the start: its start_epoch is 4"),
        ("[groups.body]\nstart_epoch = 4\nstop_epoch = 4", "must come after the start: its start_epoch is 4"),
        ("[groups.body]\nstart_epoch = -1", "groups.body.start_epoch: must be at least 0, got -1"),
        ("[groups.body]\nstart_epoch = 1", "groups.body.start_epoch: no parameter group trains in the first epoch"),
        (
            "[groups.body]\nstop_epoch = 7",
            "groups.body.stop_epoch: no parameter group trains from 7 to 10 finished epochs",
        ),
        (
            "[groups.body]\nstart_epoch = 2\nstop_epoch = 4\n[groups.head]\nstart_epoch = 5",
            "groups.body.start_epoch: no parameter group trains in the first 2 epochs, from 4 to 5 finished epochs",
        ),
        ('[groups.a]\nparameters = ["x.*"]\n[groups.b]\nlr = 1', "groups.b: has no parameters, but other groups have"),
    ],
)
def test_times_that_cannot_be_are_mistakes(groups: str, message: str) -> None:
    assert message in said(GOOD + groups)


def test_a_warm_up_that_leaves_its_group_nothing_is_a_mistake_where_it_is_written() -> None:
    late = "[groups.head]\nstart_epoch = 8\n"
    found = said(GOOD + "warmup = 2\n" + late)
    assert found.startswith("x.toml:16:10: error: scheduler.warmup: group head: a warm-up of 2 leaves nothing for the")
    assert "the group trains for 2 epochs; warmup must be below 2" in found
    own = late + 'scheduler = { use = "flat", warmup = 3 }\n'
    assert "x.toml:18:38: error: groups.head.scheduler.warmup: a warm-up of 3 leaves" in said(GOOD + own)
    assert noted(GOOD + "warmup = 1\n" + late) == []
    assert noted(GOOD + own, "groups.head.scheduler.by=step") == []  # how many steps there are, the data knows
    frozen = late.replace("start_epoch = 8", "stop_epoch = 2")
    assert [note.split(": ")[1] for note in noted(GOOD + "warmup = 9\n" + frozen)] == ["note"]


def test_groups_by_patterns_replace_those_of_the_model_and_train_at_once() -> None:
    assert noted(GOOD + '[groups.a]\nparameters = ["x.*"]\n[groups.b]\nparameters = ["y"]\nstart_epoch = 3\n') == []


def test_a_stop_after_the_end_is_only_noted() -> None:
    assert noted(GOOD + "[groups.body]\nstop_epoch = 11\n") == [
        "x.toml:17:14: note: groups.body.stop_epoch: the run ends before, after 10 epochs"
    ]


def test_a_phase_after_the_end_is_only_noted() -> None:
    assert noted(GOOD + "[groups.body.then.a]\nlr = 1\nstart_epoch = 10\n") == [
        "x.toml:18:15: note: groups.body.then.a.start_epoch: the run ends before: it has 10 epochs"
    ]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("[groups.body.then.a]\nlr = 1\nstart_epoch = 0", "groups.body.then.a.start_epoch: must be at least 1, got 0"),
        ("[groups.body.then.a]\nlr = 1", 'groups.body.then.a: "start_epoch" is missing'),
        (
            "[groups.body]\nstart_epoch = 3\nthen.a = { lr = 1, start_epoch = 3 }\n[groups.head]\nstart_epoch = 0",
            "groups.body.then.a.start_epoch: must come after the start of the group: its start_epoch is 3",
        ),
        (
            "[groups.body]\nstop_epoch = 5\nthen.a = { lr = 1, start_epoch = 5 }\n[groups.head]\nstart_epoch = 5",
            "groups.body.then.a.start_epoch: the group stops before: its stop_epoch is 5",
        ),
        (
            "[groups.body.then]\na = { lr = 1, start_epoch = 4 }\nb = { lr = 2, start_epoch = 4 }",
            "groups.body.then.b.start_epoch: the phase a starts at the same epoch",
        ),
        (
            "[groups.head.then.a]\nlr = 1\nstart_epoch = 4",
            "groups.head.then.a: groups.head never trains",
        ),
        ("[groups.body.then.a]\nstart_epoch = 4", "groups.body.then.a: changes nothing: give it lr, lr_factor, optim"),
        (
            "[groups.body.then.a]\nlr = 1\nlr_factor = 1\nstart_epoch = 4",
            "groups.body.then.a.lr_factor: lr is given too",
        ),
        (
            '[groups.body.then.a]\noptimizer.use = "stee"\nstart_epoch = 4',
            'groups.body.then.a.optimizer.use: no component "stee" is registered in trainkit.optimizers',
        ),
        (
            '[groups.body.then.a]\nstart_epoch = 8\nscheduler = { use = "flat", warmup = 2 }',
            "groups.body.then.a.scheduler.warmup: a warm-up of 2 leaves nothing",
        ),
        (
            '[groups.body]\nscheduler = { use = "flat", warmup = 2 }\n[groups.body.then.a]\nstart_epoch = 9\nlr = 1',
            "groups.body.scheduler.warmup: group body, phase a: a warm-up of 2 leaves nothing",
        ),
        (
            '[groups.body]\nscheduler = { use = "flat", warmup = 2 }\n[groups.body.then.a]\nstart_epoch = 2\nlr = 1',
            "groups.body.scheduler.warmup: a warm-up of 2 leaves nothing",
        ),
    ],
)
def test_a_phase_that_cannot_be_is_a_mistake(phases: str, message: str) -> None:
    text = said(GOOD + phases)
    assert message in text
    assert text.count("error") == 1


def test_a_group_with_an_optimizer_of_its_own_overrides_the_settings_of_that_one() -> None:
    own = GOOD + '[groups.body]\noptimizer = { use = "hasty" }\n'
    assert noted(own + "haste = 3\n") == []
    text = said(own + "betas = [0.9, 0.99]\nhaste = -3\n")
    assert "groups.body.betas: unknown key" in text
    assert "groups.body.haste: must be at least 0, got -3" in text
    wrong = said(own.replace("hasty", "hast") + "anything = 3\n")
    assert wrong.startswith('x.toml:17:21: error: groups.body.optimizer.use: no component "hast" is registered')
    assert wrong.count("error") == 1
    assert 'write optimizer = { use = "..." }' in said(GOOD + '[groups.body]\nuse = "hasty"\n')


def test_one_group_can_take_the_rest_of_the_parameters() -> None:
    some = GOOD + '[groups.a]\nparameters = ["x.*", "!x.y"]\n'
    for rest in ('"rest"', '["*"]', '["!*.bias"]', '["*", "!a", "!b"]'):
        assert noted(f"{some}[groups.b]\nparameters = {rest}\n") == []
    assert 'write parameters = "rest"' in said(f"{some}[groups.b]\nrest = true\n")
    two = said(some + '[groups.b]\nparameters = "rest"\n[groups.c]\nparameters = ["!x"]\n')
    assert "groups.c.parameters: takes the rest of the parameters, as groups.b does; only one group can" in two


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("[]", "must be patterns of parameter names, at least one"),
        ('["a", ""]', "must be patterns of parameter names, at least one"),
        ('"all"', 'must be "rest" or a list, each item a string, got "all"'),
        ("true", 'must be "rest" or a list, each item a string, got true'),
        ('["!a", "b"]', 'begins with "!a", so it takes all that no other group names, and only patterns that begin'),
    ],
)
def test_patterns_that_mean_nothing_are_mistakes(parameters: str, message: str) -> None:
    assert f"groups.a.parameters: {message}" in said(f"{GOOD}[groups.a]\nparameters = {parameters}\n")


# ---- lengths in epochs or steps --------------------------------------------------------------------------------------

IN_STEPS = GOOD.replace("epochs = 10", "steps = 500")


def test_epochs_and_steps_in_one_layer_are_a_mistake() -> None:
    assert said(GOOD.replace("epochs = 10", "epochs = 10\nsteps = 500")) == (
        """\
x.toml:4:1: error: run.steps: epochs is given too; only one of the two can be
    steps = 500
    ^^^^^
"""
    )
    text = said(GOOD, "groups.body.lr=1e-3", "groups.body.lr_factor=0.1")
    assert text == (
        "--set groups.body.lr_factor=0.1: error: groups.body.lr_factor: lr is given too; only one of the two can be\n"
    )


def test_nothing_that_hangs_on_the_number_of_steps_in_an_epoch_is_claimed_of_a_run_in_steps() -> None:
    assert noted(IN_STEPS, "groups.body.stop_epoch=600", "groups.head.start_epoch=499") == []
    assert noted(IN_STEPS, "scheduler.warmup=600") == []
    assert "a warm-up of 500 leaves nothing" in said(IN_STEPS, "scheduler.by=step", "scheduler.warmup=500")
    assert noted(IN_STEPS, "scheduler.by=step", "scheduler.warmup=499") == []
    late = "groups.head.start_epoch: the run ends before: it has at most 500 epochs, one a step"
    assert late in said(IN_STEPS, "groups.head.start_epoch=500")
    assert "no parameter group trains in the first epoch" in said(IN_STEPS, "groups.body.start_epoch=1")
    stop = "--set groups.body.stop_epoch=7: note: groups.body.stop_epoch: "
    idle = "no parameter group trains from 7 to 500 finished epochs, if the run lasts that long"
    assert noted(IN_STEPS, "groups.body.stop_epoch=7") == [stop + idle]
    short = ("groups.head.start_epoch=2", "groups.head.stop_epoch=4", "groups.head.scheduler.use=flat")
    assert "a warm-up of 3 leaves nothing" in said(IN_STEPS, *short, "groups.head.scheduler.warmup=3")


# ---- names of values ------------------------------------------------------------------------------------------------

VALUES = GOOD + '[losses.smooth]\nuse = "penalty"\n[metrics.m]\nuse = "hits"\n[hooks.w]\nuse = "watch"\n'


@pytest.mark.parametrize(
    "name",
    [
        "train/loss",
        "train/data",
        "train/smooth",
        "val/loss",
        "val/data",
        "val/hits",
        "lr/body",
        "lr/head",
        "train/watched",
    ],
)
def test_a_value_that_the_run_computes_can_be_watched(name: str) -> None:
    assert noted(VALUES, f"monitor.metric={name}", f"hooks.w.metric={name}") == []


@pytest.mark.parametrize("name", ["val/dice", "val/smooth", "test/loss", "lr/probe", "loss", "val/watched"])
def test_a_value_that_nobody_computes_is_a_mistake_wherever_a_setting_names_it(name: str) -> None:
    for setting in ("monitor.metric", "hooks.w.metric"):
        assert f'{setting}: no value "{name}" is computed' in said(VALUES, f"{setting}={name}")


def test_an_optional_name_of_a_value_is_checked_in_a_groups_scheduler_too() -> None:
    sets = ("groups.body.scheduler.use=falling", "groups.body.scheduler.metric=val/los")
    text = said(VALUES, *sets)
    assert 'groups.body.scheduler.metric: no value "val/los" is computed' in text
    assert 'did you mean "val/loss"?' in text


def test_names_are_not_judged_where_a_metric_keeps_its_own_to_itself() -> None:
    assert noted(VALUES, "metrics.s.use=secret", "monitor.metric=val/anything") == []
    assert "is computed" in said(VALUES, "metrics.s.use=secret", "monitor.metric=train/anything")


def test_the_default_monitor_is_a_mistake_where_nothing_is_validated() -> None:
    text = said(GOOD, "data.validated=false")
    assert text.startswith('x.toml: error: monitor.metric: no value "val/loss" is computed')
    assert noted(GOOD, "data.validated=false", "monitor.metric=train/loss") == []


def test_a_loss_cannot_be_called_as_the_sum_is_or_as_no_value_can_be() -> None:
    assert "[losses.loss]\n            ^^^^\n" in said(GOOD.replace("losses.data", "losses.loss"))
    for name in ('"a/b"', '" "'):
        assert "so the name cannot be empty or contain" in said(GOOD.replace("losses.data", f"losses.{name}"))


def test_two_values_of_one_name_are_a_mistake() -> None:
    assert 'metrics.m: its value "hits" has the same name as that of losses.hits' in said(
        VALUES.replace("losses.data", "losses.hits")
    )
    assert 'metrics.n: its value "hits" has the same name as that of metrics.m' in said(
        VALUES + '[metrics.n]\nuse = "hits"\n'
    )
    assert noted(VALUES.replace("losses.smooth", "losses.hits")) == []


def test_a_run_of_a_million_epochs_is_checked_as_fast_as_any() -> None:
    assert noted(GOOD, "run.epochs=1_000_000", "groups.body.stop_epoch=999_999", "groups.head.start_epoch=9") == []


# ---- components speak -----------------------------------------------------------------------------------------------


def test_every_component_that_does_not_accept_the_data_is_a_mistake_where_it_is_named() -> None:
    pictures = ("data.use=toy_pictures", "monitor.metric=train/loss")
    text = said(GOOD + "[losses.edges]\nuse = 'edges'\n", *pictures)
    assert text.startswith("x.toml:7:7: error: model.use: works with Points, but [data] is Pictures\n")
    assert text.count("error") == 1
    strict = """
[losses.edges]
use = "edges"
[metrics.sharpness]
use = "sharpness"
[hooks.hanging]
use = "hanging"
frame = { use = "frame" }
[groups.body.then.a]
start_epoch = 3
optimizer = { use = "retouch" }
[loggers.album]
use = "album"
"""
    text = said(GOOD + strict, "inference.use=tiles")
    places = [line.split(": ")[2] for line in text.splitlines() if "works with Pictures, but [data] is Points" in line]
    assert places == [
        "losses.edges.use",
        "metrics.sharpness.use",
        "hooks.hanging.use",
        "hooks.hanging.frame.use",
        "groups.body.then.a.optimizer.use",
        "loggers.album.use",
        "inference.use",
    ]
    assert text.count("error") == len(places)


def test_a_component_is_not_asked_about_data_that_it_does_not_accept_and_data_is_not_held_to_itself() -> None:
    text = said(GOOD.replace('"line"', '"line"\nhidden = 9'), "data.use=toy_pictures", "monitor.metric=train/loss")
    assert "raised an error" not in text  # it would look for data.batch_size
    assert noted(GOOD, "data.use=framed_points", "data.frame.use=frame") == []


def test_what_a_component_finds_itself_is_shown_at_its_key() -> None:
    text = GOOD.replace('use = "line"', 'use = "line"\nhidden = 9\nactivation = "tanh"')
    assert said(text) == (
        """\
x.toml:8:10: error: model.hidden: more than there are points in a batch
    hidden = 9
             ^
"""
    )
    assert noted(text, "data.batch_size=9") == ["x.toml:9:14: warning: model.activation: is slow"]
    assert "x.toml:6:2: error: model: a line without points" in said(text.replace("= 9", "= 0"))


def test_a_weight_that_is_not_finite_is_a_mistake() -> None:
    assert "losses.data.weight: must be a finite number, got nan" in said(GOOD, "losses.data.weight=nan")
