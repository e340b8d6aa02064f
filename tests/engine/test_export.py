"""Which weights are exported, what stands beside them, and what is refused or never replaced."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from trainkit import CheckpointError, ComponentError, DataError, RecipeError
from trainkit.checkpoint.file import read, write
from trainkit.console import Console
from trainkit.engine.export import export
from trainkit.engine.trained_checkpoints import Choice
from trainkit.recipe.problems import InvalidRecipe


@pytest.fixture
def site(points: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run").symlink_to(points / "seed-0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def to(form: str, run: str = "run", **options: Any) -> None:
    export(Path(run), form, Console(), **({"allow_code": True} | options))


def content(epoch: int = 2) -> dict[str, Any]:  # epoch 2 is the best
    return read(Path("run", "checkpoints", f"epoch-{epoch:04d}.safetensors"))


def same(path: str, weights: dict[str, torch.Tensor]) -> bool:
    found = load_file(path)
    return found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def test_the_weights_and_what_they_were_trained_on_are_read_by_safetensors(site):
    to("safetensors")
    assert same("points.safetensors", content()["model"])
    with safe_open("points.safetensors", "pt") as file:
        about = file.metadata()
    assert about["run"] == "points"
    assert about["epochs"] == "2"
    assert json.loads(about["inputs"]) == {"ending": ".txt"}
    assert json.loads(about["recipe_model"])["use"] == "clients.toy:Perceptron"
    assert str(site) not in json.dumps(about)


def test_the_checkpoint_can_be_chosen_and_averaged_weights_come_first(site):
    to("safetensors", choice=Choice(epoch=1), out=Path("first.safetensors"))
    assert same("first.safetensors", content(1)["model"])
    average = {name: value / 2 for name, value in content()["model"].items()}
    write(Path("ema.safetensors"), content() | {"average": {"model": average, "updates": 3}})
    to("safetensors", "ema.safetensors", out=Path("averaged.safetensors"))
    assert same("averaged.safetensors", average)


def test_complex_and_shared_weights_are_written_as_real_tensors(site):
    wave = torch.randn(3, 4, dtype=torch.complex64)
    real = torch.arange(4.0)
    write(Path("scan.safetensors"), content() | {"model": {"probe": wave, "a": real, "b": real.clone()}})
    to("safetensors", "scan.safetensors", out=Path("out.safetensors"), allow_code=False)
    found = load_file("out.safetensors")
    assert torch.equal(torch.view_as_complex(found["probe"]), wave)
    with safe_open("out.safetensors", "pt") as file:
        assert json.loads(file.metadata()["complex"]) == ["probe"]


def test_nothing_is_replaced_unless_asked_for(site):
    Path("points.safetensors").write_text("mine")
    with pytest.raises(RecipeError, match=r"points\.safetensors is there already; --force"):
        to("safetensors")
    assert Path("points.safetensors").read_text() == "mine"
    to("safetensors", force=True)
    assert same("points.safetensors", content()["model"])
    Path("there").mkdir()
    to("safetensors", out=Path("there"))
    assert Path("there", "points.safetensors").is_file()


def test_nothing_is_left_of_an_export_that_failed(site):
    with pytest.raises(RecipeError, match="Perceptron gives no example of its inputs, which torch_export needs"):
        to("torch_export", out=Path("new", "a.pt2"))
    assert list(Path("new").iterdir()) == []


def test_a_folder_in_the_way_is_kept_even_if_it_is_to_be_replaced(site, capsys):
    Path("bundle").mkdir()
    Path("bundle", "precious").touch()
    with pytest.raises(RecipeError, match="bundle is there already"):
        to("clients.exporting:Folder", out=Path("bundle"))
    to("clients.exporting:Folder", out=Path("bundle"), force=True)
    assert Path("bundle", "inner", "note.txt").read_text() == "points"
    assert Path("bundle.set-aside", "precious").exists()
    assert "bundle.set-aside" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="holds the working directory"):
        to("clients.exporting:Folder", out=Path("."), force=True)
    with pytest.raises(DataError, match="no space"):
        to("clients.exporting:Folder", out=Path("full"))
    assert sorted(path.name for path in site.iterdir()) == ["bundle", "bundle.set-aside", "run"]


def test_what_cannot_be_exported_is_one_message(site):
    with pytest.raises(CheckpointError, match="there is no run at nowhere"):
        to("safetensors", "nowhere")
    with pytest.raises(ComponentError, match='did you mean "onnx"'):
        to("onx")
    Path("folds").mkdir()
    members = ["../run", "../run/checkpoints/epoch-0001.safetensors"]
    Path("folds", "ensemble.json").write_text(json.dumps({"members": members}))
    with pytest.raises(RecipeError, match=r"an ensemble of 2 models; export each by itself: .*epoch-0002.*epoch-0001"):
        to("safetensors", "folds")


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(site, monkeypatch):
    from trainkit.recipe import rules

    monkeypatch.setattr(rules, "_is_there", lambda module: module != "onnxruntime")
    with pytest.raises(InvalidRecipe, match=r"onnxruntime, which is not installed(.|\n)*trainkit\[onnx\]"):
        to("onnx")


@pytest.mark.slow
def test_the_command_says_where_the_file_is(site, warm):
    command = ("export", "run", "--to", "safetensors")
    done = warm.start(*command, folder=Path.cwd(), apart=True)
    assert (done.wait(), done.stderr) == (0, "")
    assert "exported: points.safetensors" in done.stdout
    done = warm.start(*command, folder=Path.cwd(), apart=True)
    assert done.wait() == 2
    assert "--force" in done.stderr


def test_a_model_that_computes_complex_numbers_is_refused_for_onnx_with_the_reason(tmp_path):
    pytest.importorskip("onnxruntime")
    from trainkit.export.onnx import ONNX
    from trainkit_ptychography.models.ptychography import Ptychography
    from trainkit_ptychography.probes.aperture import Aperture

    scan = SimpleNamespace(name="a scan", weights={}, about={}, settings=lambda: Ptychography(probe=Aperture()))
    with pytest.raises(RecipeError, match="Ptychography computes complex numbers, for which ONNX has no"):
        ONNX().export(scan, tmp_path / "a.onnx")
