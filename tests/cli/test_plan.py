"""``trainkit plan`` of groups with optimizers and phases of their own, held against rates worked out by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from recipe_toys import GOOD, toys

from trainkit.cli.plan import command as plan
from trainkit.errors import RecipeError


@pytest.fixture(scope="module", autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with toys(tmp_path_factory.mktemp("toys")):
        yield


def planned(folder: Path, text: str, *options: str) -> list[str]:
    path = folder / "x.toml"
    path.write_text(text)
    result = CliRunner().invoke(plan, [str(path), *options], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output.splitlines()


PHASES = """
[groups.body]
lr_factor = 0.5
optimizer = { use = "hasty", lr = 0.4 }
[groups.body.then.finish]
start_epoch = 3
optimizer = { use = "steep", lr = 0.003 }
[groups.body.then.end]
start_epoch = 5
lr_factor = 0.1
scheduler = { use = "none", warmup = 2 }
"""


def test_the_phases_of_a_group_are_shown_with_what_they_change(tmp_path: Path) -> None:
    assert planned(tmp_path, GOOD + PHASES) == [
        "finished        body        head",
        "       0         0.2           -",  # half of 0.4
        "       3       0.003           -",
        "       5      0.0001           -",  # a third of a tenth of 0.003: warm-up over two epochs
        "       6      0.0002           -",
        "       7      0.0003           -",
        "       9      0.0003           -",
        "head: optimizer steep",
        "body: its own optimizer hasty",
        "after 3 epochs: body: then finish: optimizer steep, lr 0.003",
        "after 5 epochs: body: then end: lr 0.0003, scheduler none",
        "frozen for the whole run: head (set groups.<name>.start_epoch to train one of them)",
    ]


def test_a_group_that_is_meant_to_stay_frozen_is_shown_without_advice(tmp_path: Path) -> None:
    lines = planned(tmp_path, GOOD + "[groups.head]\nstart_epoch = 0\n[groups.body]\nstop_epoch = 0\n")
    assert lines[1].split() == ["0", "-", "0.001"]
    assert lines[-1] == "frozen for the whole run: body"


def test_a_run_in_steps_is_shown_in_epochs_of_so_many_steps_as_are_assumed(tmp_path: Path) -> None:
    in_steps = GOOD.replace("epochs = 10", "steps = 450")
    lines = planned(tmp_path, in_steps)
    assert [line.split()[0] for line in lines[1:3]] == ["0", "4"]
    assert "the run lasts 450 steps, shown as 5 epochs of 100 steps" in lines
    assert "the run lasts 450 steps, shown as 3 epochs of 200 steps" in planned(
        tmp_path, in_steps, "--steps-per-epoch", "200"
    )


def test_an_epoch_without_a_group_in_the_assumed_length_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no parameter group trains in epoch 2"):
        planned(tmp_path, GOOD.replace("epochs = 10", "steps = 450") + "[groups.body]\nstop_epoch = 2\n")
