"""What several processes make of a recipe, and what of it cannot work, before anything is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from recipe_toys import GOOD, toys

from trainkit.cli.check import command as check
from trainkit.cli.plan import command as plan
from trainkit.contracts import EpochSize, StepMemory
from trainkit.errors import RecipeError
from trainkit.processes.cuda_devices import num_cuda_devices
from trainkit.recipe.problems import Finding
from trainkit.recipe.resolve import resolve_text
from trainkit.recipe.root import Recipe
from trainkit.recipe.sharing import (
    Sharing,
    memory_size,
    recorded,
    rules_of_data,
    rules_of_devices,
    rules_of_memory,
    rules_of_single_items,
    sharing,
    sharing_rules,
)
from trainkit.recipe.sharing_inspection import inspect_sharing


@pytest.fixture(scope="module", autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with toys(tmp_path_factory.mktemp("toys")):
        yield


def recipe(batch_size: int, **run: Any) -> Recipe:
    sets = [f"data.batch_size={batch_size}", *(f"run.{key}={value}" for key, value in run.items())]
    return resolve_text(GOOD, Path.cwd(), sets).recipe


def said(found: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(each.severity, each.message) for each in found]


@pytest.mark.parametrize("size", [4, 7, 10, 64])
@pytest.mark.parametrize(("processes", "parts"), [(1, 1), (3, 3), (4, 4), (2, 4), (1, 8)])
def test_shares_are_those_of_dealing_out_one_item_after_the_other(size: int, processes: int, parts: int) -> None:
    dealt: dict[int, list[int]] = {part: [] for part in range(parts)}
    for item in range(size):
        dealt[item % parts].append(item)
    per_process = parts // processes
    found = Sharing(processes, size, parts)
    assert list(found.shares) == [
        sum(len(dealt[part]) for part in range(rank * per_process, (rank + 1) * per_process))
        for rank in range(processes)
    ]
    assert found.at_once == max(map(len, dealt.values()))


def test_a_batch_that_is_too_small_for_the_processes_is_refused() -> None:
    ((severity, message),) = said(sharing_rules(recipe(4), 8))
    assert severity == "error"
    assert "a batch of 4 cannot be divided among 8 processes" in message
    assert "at most 4 processes" in message
    assert said(sharing_rules(recipe(1), 2))[0][1].endswith("a multiple of 2, or run one process")


@pytest.mark.parametrize(("batch", "fewer"), [(3, 2), (1, 0)])
def test_check_refuses_more_shards_than_items_whatever_the_number_of_processes(batch: int, fewer: int) -> None:
    with pytest.raises(RecipeError, match=rf"among 4 shards.*a multiple of 4, or set run\.shards = {fewer}"):
        recipe(batch, shards=4)


def test_a_batch_that_is_divided_unevenly_is_noted_with_sizes_that_are_not() -> None:
    (found,) = sharing_rules(recipe(10), 4)
    assert (found.severity, found.hint) == ("note", "batch_size = 8 and 12 are divided evenly")
    assert "the 2 with 3 items make the others, with 2, wait" in found.message
    assert not list(sharing_rules(recipe(12), 4))


def test_data_that_do_not_divide_batches_and_shards_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ((_, message),) = said(sharing_rules(recipe(12, shards=4), 3))
    assert message == "4 shards cannot be divided among 3 processes; possible are 1, 2, 4"
    assert not list(sharing_rules(recipe(12, shards=4), 2))
    monkeypatch.setattr(type(recipe(12).data), "divides_batches", False)
    ((_, message),) = said(sharing_rules(recipe(12), 2))
    assert "does not divide batches among processes" in message
    assert not list(sharing_rules(recipe(12), 1))


def test_each_process_needs_a_device_of_its_own_and_check_says_where_it_has_none() -> None:
    def found(device: str, processes: int, num_devices: int) -> list[str]:
        return [s for s, _ in said(rules_of_devices(recipe(12, device=device), processes, num_devices))]

    assert found("cuda:1", 2, 8) == ["error"]
    assert (found("cuda", 4, 2), found("auto", 4, 2)) == (["warning"], ["warning"])
    assert (found("cuda", 4, 0), found("auto", 4, 0)) == (["note"], [])
    for device in ("auto", "cuda", "cpu"):
        assert found(device, 2, 2) == found(device, 1, 0) == []
    assert found("cpu", 4, 2) == []


@pytest.mark.parametrize(
    ("visible", "number"),
    [(None, 3), ("", 0), ("-1", 0), ("0,2", 2), ("2,7,1", 2), ("1,-1,0", 1), ("GPU-8932f937", 1), ("MIG-a, MIG-b", 2)],
)
def test_devices_are_counted_as_cuda_shows_them(tmp_path: Path, visible: str | None, number: int) -> None:
    for bus in range(3):
        (tmp_path / f"0000:{bus:02}:00.0").mkdir()
    assert num_cuda_devices({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, tmp_path) == number
    assert num_cuda_devices({}, tmp_path / "no driver") == 0


def test_shards_of_one_item_are_noted_where_the_device_is_known_to_be_a_cpu() -> None:
    (found,) = rules_of_single_items(recipe(4, shards=4, device="cpu"), 2)
    assert (found.severity, found.hint) == ("note", "batch_size = 8 gives each two; so does shards = 2")
    for size, shards, processes, device in ((8, 4, 2, "cpu"), (4, 4, 4, "cpu"), (4, 4, 2, "auto"), (4, 0, 4, "cpu")):
        assert not list(rules_of_single_items(recipe(size, shards=shards, device=device), processes))


def test_fewer_items_than_a_batch_has_parts_are_refused() -> None:
    eight = recipe(8)
    assert said(rules_of_data(eight, 4, EpochSize(1, 3, "scan points")))[0][0] == "error"
    assert not list(rules_of_data(eight, 4, EpochSize(2, 9, "scan points")))
    assert not list(rules_of_data(eight, 4, EpochSize(250, 3, "cases")))  # of which many patches are drawn


def memory(at_once: int) -> StepMemory:
    return StepMemory(1000, 0, 2000, 0, 500 * at_once, "counting")


def takes(items: int) -> int:
    return memory(items).total + 1000  # and the sums of gradients


@pytest.mark.parametrize(("limit", "fits"), [(7000, 4), (6000, 2), (5100, 1)])
def test_what_does_not_fit_is_doubted_with_the_batch_that_does(limit: int, fits: int) -> None:
    (found,) = rules_of_memory(recipe(64), 8, memory(8), limit, memory)
    assert found.severity == "warning"
    assert takes(fits) <= 0.9 * limit < takes(2 * fits)
    assert f"batch_size = {fits * 8} in [data] fits; accumulate = {8 // fits} in [run]" in found.hint
    assert f"{64 // fits} processes fit with the batch as it is" in found.hint


def test_what_fits_is_not_doubted_and_what_never_fits_is_said() -> None:
    assert not list(rules_of_memory(recipe(64), 8, memory(8), 8889, memory))
    (found,) = rules_of_memory(recipe(64), 8, memory(8), 4900, memory)
    assert "not even one item at once fits" in found.hint
    (found,) = rules_of_memory(recipe(64), 8, memory(8), 4400, memory)
    assert "what is there all the time does not fit" in found.hint
    assert not list(rules_of_memory(recipe(64), 8, None, 1, memory))


def test_each_kind_of_recorded_steps_keeps_the_memory_of_a_step() -> None:
    usual, recording = recipe(64), attrs.evolve(recipe(64), run=attrs.evolve(recipe(64).run, cuda_graph=True))
    one = memory(64)._replace(batch=100)
    assert recorded(usual, one) == 0
    assert recorded(recording, one) == 100  # the next batch, beside the one that was recorded
    assert recorded(recording, one._replace(kinds=3)) == 2 * one.step + 100
    # Eight are recorded. A step of a further kind, with its batch, is made as usual beside them.
    assert recorded(recording, one._replace(kinds=9)) == recorded(recording, one._replace(kinds=99)) == 8 * one.step


def test_recordings_that_do_not_fit_are_doubted_with_what_does() -> None:
    recording = attrs.evolve(recipe(8), run=attrs.evolve(recipe(8).run, cuda_graph=True))

    def three(items: int) -> StepMemory:
        return memory(items)._replace(kinds=3, batch=50 * items)

    (found,) = rules_of_memory(recording, 1, three(8), 9000, three)
    assert "takes about 15 KiB in each process" in found.message  # 3000 + 3 * 4000 + 400 bytes
    ways = [each.strip() for each in (found.hint or "").splitlines()]
    assert ways[0] == "cuda_graph = false in [run] fits: recorded steps keep 8.2 KiB more"
    assert ways[1] == "batch_size = 2 in [data] fits"  # 3000 + 3 * 1000 + 100 bytes
    assert not [each for each in ways if "accumulate" in each or "processes" in each or "checkpointing" in each]
    assert not list(rules_of_memory(recording, 1, three(8), 15400 / 0.9 + 1, three))


def test_statistics_of_a_batch_are_doubted_only_where_shares_are_small() -> None:
    statistics = memory(2)._replace(batch_statistics=True)
    (found,) = rules_of_memory(recipe(16), 8, statistics, None, memory)
    assert "BatchNorm, whose statistics are those of the 2 items" in found.message
    assert not list(rules_of_memory(recipe(256), 8, statistics, None, memory))
    assert not list(rules_of_memory(recipe(2), 1, statistics, None, memory))


def test_sizes_of_memory_are_read_in_both_kinds_of_units() -> None:
    assert [memory_size(text) for text in ("24GB", "24gib", "80 G", "512M", "1e9", "GB", "0GB")] == [
        24e9,
        24 * 2**30,
        80e9,
        512e6,
        None,
        None,
        None,
    ]


def test_check_refuses_and_plan_shows_the_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text(GOOD)
    refused = CliRunner().invoke(check, ["x.toml", "--processes", "8"], catch_exceptions=False)
    assert refused.exit_code == 2
    assert "data.batch_size: a batch of 4 cannot be divided among 8 processes" in refused.output
    one = CliRunner().invoke(
        check, ["x.toml", "--processes", "2", "--set", "run.device=cuda:1"], catch_exceptions=False
    )
    assert one.exit_code == 2
    assert 'run.device: "cuda:1" names one device for 2 processes' in one.output
    lines = CliRunner().invoke(plan, ["x.toml", "--processes", "2"], catch_exceptions=False).output.splitlines()
    assert lines[0].split(maxsplit=1) == ["batch", "4 items of the whole run: 2 for each process"]
    assert "known only when it runs" in lines[2]
    assert sharing(resolve_text(GOOD, tmp_path).recipe, 2) == Sharing(2, 4, 2)


def test_plan_counts_the_second_process_that_evaluates_beside_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    mib = 2**20
    needs = StepMemory(weights=100 * mib, average=10 * mib, optimizer=200 * mib, data=5 * mib, step=mib, how="hand")
    monkeypatch.setattr(type(recipe(4).model), "step_memory", lambda *_: needs)

    def told(*sets: str, processes: int = 1) -> str:
        sets = ("data.batch_size=4", "run.device='cpu'", *sets)
        return "\n".join(inspect_sharing(resolve_text(GOOD, Path.cwd(), sets), processes, None).lines)

    assert "validation.beside" not in told()
    beside = "validation.beside=true"
    text = told(beside)
    assert "620 MiB for two copies of a checkpoint, while an epoch is evaluated beside the training" in text
    assert "115 MiB in a second process" in text
    assert "validation.beside" not in told(beside, processes=2), "which evaluates in line"
    assert "validation.beside" not in told(beside, "run.device='cuda'")
