"""What ``trainkit inspect`` says about checkpoints and run folders, good ones and others."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from clients import toy_run

from trainkit.checkpoint import file as checkpoint
from trainkit.cli.inspect import command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that reads an environment variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        patch.setenv("RUN_SEED", "0")
        return toy_run.run("run.seed=${env.RUN_SEED}").run.state.folder.absolute()


def inspected(path: Path | str, *options: str) -> Result:
    return CliRunner().invoke(command, [str(path), *options])


def newest(folder: Path) -> Path:
    return folder / "checkpoints" / "epoch-0002.safetensors"


def test_a_run_is_summed_up_from_its_newest_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parents[2])
    result = inspected("toy")
    assert result.exit_code == 0
    said = result.output
    assert f"epoch-0002.safetensors ({newest(folder).stat().st_size / 1024:.3g} KiB, the newest good one of 2)" in said
    assert "digest:      verified" in said
    assert f"({folder.name}), finished" in said
    assert "finished:    2 epochs" in said
    assert "reads:       the environment variable RUN_SEED, for run.seed" in said
    assert "only with --allow-code" in said
    assert "train/loss" in said


def test_as_json_it_holds_what_the_checkpoint_holds(folder: Path) -> None:
    found = json.loads(inspected(newest(folder), "--json").output)
    content = checkpoint.read(newest(folder))
    assert (found["epoch"], found["step"], found["digest"]) == (2, content["step"], "verified")
    assert found["metrics"] == content["metrics"]
    assert found["run"] == content["run"]
    assert found["variables"] == {"RUN_SEED": "run.seed"}
    values = sum(tensor.numel() for tensor in content["model"].values())
    assert sum(group["num_values"] for group in found["groups"].values()) == values


def copy(folder: Path, to: Path) -> Path:
    """The newest checkpoint alone."""
    path = to / "x.safetensors"
    path.write_bytes(newest(folder).read_bytes())
    return path


def test_one_flipped_bit_is_found(folder: Path, tmp_path: Path) -> None:
    path = copy(folder, tmp_path)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    result = inspected(path)
    assert result.exit_code == 1
    assert "digest:      damaged" in result.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": "3"}, "epoch: must be a whole number"),
        ({"recipe": "run = ["}, "not the one that the run had"),
        ({"recipe": "[run]\nname = 'x'\n"}, "not the one that the run had"),
    ],
)
def test_a_whole_file_that_no_run_wrote_is_not_good(
    change: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    path = copy(folder, tmp_path)
    checkpoint.write(path, checkpoint.read(path) | change)
    result = inspected(path)
    assert result.exit_code == 1
    assert message in result.output


def test_damaged_checkpoints_of_a_folder_are_named_and_an_older_one_is_shown(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for file in (folder / "checkpoints").glob("*.safetensors"):
        (tmp_path / "checkpoints" / file.name).write_bytes(file.read_bytes())
    newest(tmp_path).write_bytes(b"{")
    (tmp_path / "run.json").write_bytes((folder / "run.json").read_bytes())
    result = inspected(tmp_path)
    assert result.exit_code == 1
    assert "epoch-0001.safetensors" in result.output.splitlines()[0]
    assert "epoch-0002.safetensors is not a checkpoint" in result.output
    (tmp_path / "checkpoints" / "epoch-0001.safetensors").unlink()
    result = inspected(tmp_path)
    assert result.exit_code == 1
    assert "digest:      missing" in result.output


def test_neither_torch_nor_a_component_is_imported(folder: Path) -> None:
    code = (
        "import sys; from trainkit.cli import main; import atexit; "
        "atexit.register(lambda: print([name for name in ('torch', 'numpy', 'clients') if name in sys.modules])); "
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(newest(folder))],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": ""},
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_name_stands_for_the_same_run_as_for_resume(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, Path("toy", folder.name))
    shutil.copytree(folder, Path("runs", "toy"))
    assert (
        json.loads(inspected("toy", "--json").output)["file"] == f"toy/{folder.name}/checkpoints/{newest(folder).name}"
    )
