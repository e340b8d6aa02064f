"""Which process this is: from the environment that launchers make."""

from __future__ import annotations

import pytest

from trainkit import Exchange, RecipeError
from trainkit.processes.place import ALONE, Place, place_of_process

STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"},  # the batch script itself
        {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"},
    ],
)
def test_one_process_is_alone(environment: dict[str, str]) -> None:
    assert place_of_process(environment) == ALONE


def test_torchrun_says_all() -> None:
    given = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert place_of_process(given) == Place(3, 4, 1, "torchrun")


@pytest.mark.parametrize(
    ("machines", "first"),
    [("gpu[03-05,9],cpu1", "gpu03"), ("gpu[7,9]", "gpu7"), ("one,two", "one"), ("a[1-2].site", "a1.site")],
)
def test_processes_of_srun_meet_on_the_first_machine(machines: str, first: str) -> None:
    environment = {**STEP, "SLURM_STEP_NODELIST": machines}
    assert place_of_process(environment) == Place(5, 8, 1, "srun")
    assert environment["MASTER_ADDR"] == first
    assert 1024 < int(environment["MASTER_PORT"]) < 65536


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"WORLD_SIZE": "2"}, "RANK does not say which"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"}, "RANK does not say which"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "LOCAL_RANK"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, "MASTER_ADDR"),
    ],
)
def test_what_a_launcher_leaves_open_is_named(environment: dict[str, str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        place_of_process(environment)


def test_shards_are_divided_evenly() -> None:
    assert [list(Exchange(Place(rank, 2)).with_shards(8).parts) for rank in (0, 1)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(RecipeError, match="possible are 1, 2, 4, 8"):
        Exchange(Place(0, 3)).with_shards(8)
