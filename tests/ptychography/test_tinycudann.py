"""The hash encoding by tinycudann: when it is taken, that it is the same function, and what is exchanged with torch.

What is said of both runs on a double of the package here, and on the package itself where it and a GPU are.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

from trainkit import RecipeError
from trainkit.checkpoint import file as checkpoint
from trainkit.cli import main
from trainkit.console import Console
from trainkit.engine.resume import resume
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.objects.encoding import tinycudann
from trainkit_ptychography.objects.encoding.levels import Level
from trainkit_ptychography.objects.encoding.tinycudann import flat_from_tables, why_not
from trainkit_ptychography.objects.encoding.tinycudann_installed import version
from trainkit_ptychography.objects.hash_encoding import FineFrom, HashEncoding
from trainkit_ptychography.objects.hash_encoding_live import HashObject
from trainkit_ptychography.objects.kind import ObjectGeometry

RECIPE = Path(__file__).parents[2] / "recipes" / "ptycho_hash.toml"
HERE = torch.cuda.is_available() and importlib.util.find_spec("tinycudann") is not None
GET_IT = "pip install --no-build-isolation git+https://github.com/NVlabs/tiny-cuda-nn"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ---- a double of the package ----------------------------------------------------------------------------------------


class Strict(torch.autograd.Function):
    """Refuses a gradient that is transposed, as the package does where the number of positions is a multiple of 256."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        assert gradients[0].is_contiguous()
        return gradients[0]


class Double(torch.nn.Module):
    """Stands for `tinycudann.Encoding`: the same arguments, parameters and results, in two dimensions, by plain torch.

    Its rows follow the rules of tiny-cuda-nn, not our code. Several numbers at once are one row's features.
    """

    made: list[int]
    finer = 0  # by so many vertices the level before the last is finer than it should be

    def __init__(self, n_input_dims: int, encoding_config: dict[str, Any], seed: int = 1337, dtype: Any = None) -> None:
        super().__init__()
        assert n_input_dims == 2
        assert dtype == torch.float32
        assert encoding_config["otype"] == "HashGrid"
        self.config = encoding_config
        type(self).made.append(encoding_config["n_levels"])
        self.levels = [self._level(number) for number in range(encoding_config["n_levels"])]
        size = sum(entries for *_, entries in self.levels) * encoding_config["n_features_per_level"]
        self.params = torch.nn.Parameter((torch.rand(size, generator=torch.Generator().manual_seed(seed)) - 0.5) * 2e-4)

    def _level(self, number: int) -> tuple[float, int, int]:
        config = self.config
        power = torch.exp2(number * torch.tensor(config["per_level_scale"]).log2())
        scale = float(power * config["base_resolution"] - 1)
        side = math.ceil(scale) + 1
        entries = min((side**2 + 7) // 8 * 8, 2 ** config["log2_hashmap_size"])
        return scale, side + (self.finer if number == config["n_levels"] - 2 else 0), entries

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        config = self.config
        features, found, begin = config["n_features_per_level"], [], 0
        for scale, side, entries in self.levels:
            place = (positions.double() * scale + 0.5).float()
            low = place.floor().long()
            rest = place - low
            if config["interpolation"] == "Smoothstep":
                rest = rest**2 * (3 - 2 * rest)
            if config["interpolation"] == "Nearest":
                rest = torch.zeros_like(rest)
            table = self.params[begin * features : (begin + entries) * features].reshape(entries, features)
            begin += entries
            value = torch.zeros(len(positions), features)
            for right, down in product((0, 1), repeat=2):
                x, y = low[:, 0] + right, low[:, 1] + down
                row = x + y * side if side**2 <= entries else x ^ (y * 2654435761 % 2**32)
                share = rest if right else 1 - rest, rest if down else 1 - rest
                value = value + (share[0][:, :1] * share[1][:, 1:]) * table[row % entries]
            found.append(value)
        result: torch.Tensor = Strict.apply(torch.cat(found, dim=1))
        return result


def install(monkeypatch: pytest.MonkeyPatch, encoding: Any) -> None:
    """Let ``import tinycudann`` find an encoding, and let it be used on a CPU."""
    module = ModuleType("tinycudann")
    module.__spec__ = ModuleSpec("tinycudann", None)
    module.__dict__["Encoding"] = encoding
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    monkeypatch.setattr(tinycudann, "_DEVICES", ("cuda", "cpu"))
    monkeypatch.setattr("trainkit_ptychography.objects.encoding.backend.version", lambda: "2.0-double")


class Place(NamedTuple):
    """Where tinycudann is, for a test.

    Attributes:
        device: What to compute on.
        within: How far values of order 1 may be apart. The kernels' exponential is a fast one: a position is off by
            some 1e-5 of a cell.
    """

    device: str
    within: float


@pytest.fixture(
    params=[
        "double",
        pytest.param(
            "real", marks=pytest.mark.skipif(not HERE, reason=f"needs a CUDA device, and tinycudann: {GET_IT}")
        ),
    ]
)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "real":
        return Place("cuda", 1e-4)
    install(monkeypatch, type("Encoding", (Double,), {"made": []}))
    return Place("cpu", 1e-6)


def made(device: str, dtype: torch.dtype = torch.float32, **changes: Any) -> HashObject:
    small = {"levels": 5, "base_resolution": 4, "log2_hashmap_size": 8, "neurons": 8}
    geometry = ObjectGeometry((64, 48), (12, 10), dtype, torch.device(device), 0)
    live = HashEncoding(**{**small, **changes}).build(geometry)
    assert isinstance(live, HashObject)
    return live.to(device)


def filled(live: HashObject) -> HashObject:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in live.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 2 - 1)
    return live


def features(live: HashObject) -> torch.Tensor:
    return live._encode(list(live.tables), None)


# ---- the same function ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_features", [1, 2, 8])
@pytest.mark.parametrize("how", ["nearest", "linear", "smoothstep"])
def test_features_and_gradients_are_those_of_torch(place: Place, how: Any, num_features: int) -> None:
    changes = {"interpolation": how, "features": num_features}
    theirs = filled(made(place.device, backend="tinycudann", **changes))
    ours = filled(made(place.device, backend="torch", **changes))
    assert (theirs.get_extra_state()["backend"], ours.get_extra_state()["backend"]) == (theirs._encode.name, "torch")
    one, other = features(theirs), features(ours)
    assert one.shape == other.shape == (5 * num_features, 3072)
    torch.testing.assert_close(one, other, rtol=0, atol=place.within)
    back = torch.rand(one.shape, generator=torch.Generator().manual_seed(0)).to(place.device)
    for mine, its in zip(
        torch.autograd.grad(one, list(theirs.tables), back),
        torch.autograd.grad(other, list(ours.tables), back),
        strict=True,
    ):
        scale = float(its.abs().max())
        torch.testing.assert_close(mine, its, rtol=0, atol=10 * place.within * scale)


def test_the_object_is_the_same_with_gradients_of_all_parameters(place: Place) -> None:
    corners = torch.tensor([[0, 0], [30, 20], [52, 38]], device=place.device)
    found = []
    for backend in ("tinycudann", "torch"):
        live = filled(made(place.device, backend=backend))
        patches = live(corners)
        found.append((patches, *torch.autograd.grad(patches.abs().square().sum(), list(live.parameters()))))
        with torch.no_grad():
            torch.testing.assert_close(live(corners), patches, rtol=0, atol=1e-5)
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(
            mine, its, rtol=0, atol=20 * place.within * max(1.0, float(its.detach().abs().max()))
        )


def test_levels_that_have_not_joined_are_left_out(place: Place) -> None:
    fine = FineFrom(start_epoch=1, stop_epoch=3, coarse_levels=2)
    theirs = filled(made(place.device, backend="tinycudann", fine_from=fine))
    ours = filled(made(place.device, backend="torch", fine_from=fine))
    for num in (2, 4, 2, 5):
        theirs.enable(num)
        ours.enable(num)
        phase = theirs.phase()
        torch.testing.assert_close(phase, ours.phase(), rtol=0, atol=100 * place.within)
        theirs.zero_grad()
        phase.sum().backward()
        assert [table.grad is not None for table in theirs.tables] == [True] * num + [False] * (5 - num)


def test_an_encoding_is_made_once_for_each_number_of_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = type("Encoding", (Double,), {"made": []})
    install(monkeypatch, encoding)
    live = made("cpu", fine_from=FineFrom(start_epoch=1, stop_epoch=3, coarse_levels=2))
    for num in (2, 2, 4, 5, 4):
        live.enable(num)
        live.phase()
    assert encoding.made == [5, 2, 4]


# ---- exchange -------------------------------------------------------------------------------------------------------


def test_an_objects_state_goes_from_either_backend_to_the_other(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    trained = filled(made(place.device, backend="tinycudann"))
    in_torch = made(place.device, backend="torch")
    in_torch.load_state_dict(trained.state_dict())
    back = made(place.device, backend="tinycudann")
    back.load_state_dict(in_torch.state_dict())
    for one, two, three in zip(trained.parameters(), in_torch.parameters(), back.parameters(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    torch.testing.assert_close(features(in_torch), features(trained), rtol=0, atol=place.within)
    assert [text.split("hash encoding: ")[1] for text in caplog.messages if " was " in text] == [
        f"backend is torch, was {trained._encode.name}: the run will not be the same bit for bit",
        f"backend is {trained._encode.name}, was torch: the run will not be the same bit for bit",
    ]


def tables_from_flat(flat: torch.Tensor, grids: Sequence[Level], num_features: int) -> list[torch.Tensor]:
    """As tiny-cuda-nn's own layout has it: level after level and row after row."""
    parts = flat.split([grid.entries * num_features for grid in grids])
    return [part.view(-1, num_features) for part in parts]


def test_parameters_that_were_trained_with_tinycudann_alone_can_be_taken_over_and_given_back(place: Place) -> None:
    settings = HashEncoding(levels=4, base_resolution=5, log2_hashmap_size=8, per_level_scale=1.7, features=4)
    grids = settings.grids(1.7)
    config = {
        "otype": "HashGrid",
        "n_levels": 4,
        "n_features_per_level": 4,
        "log2_hashmap_size": 8,
        "base_resolution": 5,
        "per_level_scale": 1.7,
        "interpolation": "Linear",
    }
    theirs = importlib.import_module("tinycudann").Encoding(2, config, dtype=torch.float32).to(place.device)
    tables = tables_from_flat(theirs.params.detach(), grids, 4)
    assert [tuple(table.shape) for table in tables] == [(grid.entries, 4) for grid in grids]
    live = made(place.device, backend="torch", levels=4, base_resolution=5, per_level_scale=1.7, features=4)
    with torch.no_grad():
        for table, value in zip(live.tables, tables, strict=True):
            table.copy_(value)
    rows, columns = torch.meshgrid((torch.arange(64) + 0.5) / 64, (torch.arange(48) + 0.5) / 64, indexing="ij")
    positions = torch.stack((columns.flatten(), rows.flatten()), dim=1).to(place.device)
    torch.testing.assert_close(features(live).T, theirs(positions), rtol=0, atol=1e-4 * place.within + 1e-9)
    assert torch.equal(flat_from_tables(list(live.tables)), theirs.params)


def test_flat_parameters_are_level_after_level_and_row_after_row() -> None:
    grids = HashEncoding(levels=3, base_resolution=2, log2_hashmap_size=4).grids(2.0)
    assert [grid.entries for grid in grids] == [8, 16, 16]
    flat = torch.arange(80.0)
    tables = tables_from_flat(flat, grids, 2)
    assert tables[1][3].tolist() == [8 * 2 + 3 * 2, 8 * 2 + 3 * 2 + 1]
    assert torch.equal(flat_from_tables(tables), flat)


# ---- which is taken -------------------------------------------------------------------------------------------------


def test_without_cuda_auto_takes_torch_and_says_its_version_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="trainkit"):
        made("cpu", torch.float64)
    (line,) = caplog.messages
    reason = "not tinycudann: it needs CUDA, and the run is on cpu"
    assert line.startswith(f"hash encoding: backend torch {torch.__version__} ({reason}), float64, 5 levels")


def test_where_it_is_auto_takes_tinycudann_and_says_its_version_and_what_that_means(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="trainkit"):
        live = made(place.device)
    assert live.get_extra_state()["backend"].startswith("tinycudann ")
    first, second = caplog.messages
    assert first.startswith(f"hash encoding: backend {live.get_extra_state()['backend']}, float32, 5 levels of 4 to 64")
    assert "repeated or resumed will not be the same bit for bit" in second
    assert caplog.records[1].levelname == "WARNING"


CUDA = torch.device("cuda")


def test_each_thing_that_keeps_tinycudann_away_has_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert why_not(torch.device("mps"), torch.float32) == "it needs CUDA, and the run is on mps"
    assert why_not(CUDA, torch.float64) == "it is used in float32, and the run is in float64"
    torch.use_deterministic_algorithms(True)
    try:
        assert "the run is to be deterministic" in str(why_not(CUDA, torch.float32))
    finally:
        torch.use_deterministic_algorithms(False)
    monkeypatch.setattr(tinycudann, "is_installed", lambda: False)
    assert GET_IT in str(why_not(CUDA, torch.float32))
    monkeypatch.setattr(tinycudann, "is_installed", lambda: True)
    monkeypatch.syspath_prepend(tmp_path)
    for error in ("OSError('Unknown compute capability')", "ImportError('undefined symbol')"):
        monkeypatch.delitem(sys.modules, "tinycudann", raising=False)
        (tmp_path / "tinycudann").mkdir(exist_ok=True)
        (tmp_path / "tinycudann" / "__init__.py").write_text(f"raise {error}")
        reason = str(why_not(CUDA, torch.float32))
        assert f"its import fails ({error[error.index('(') + 2 : -2]})" in reason
        assert GET_IT in reason


def wrong_number(*arguments: Any, **options: Any) -> Any:
    made = Double(*arguments, **options)
    made.params = torch.nn.Parameter(torch.zeros(8))
    return made


def failing(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError("no kernel image is available")


@pytest.mark.parametrize(
    ("encoding", "reason"),
    [
        (type("Finer", (Double,), {"finer": 1}), r"its level 3 \(32 vertices a side here\) gives values that differ"),
        (wrong_number, r"it fails: 5 levels have 8 parameters in tinycudann, \d+ here"),
        (failing, "it fails: no kernel image is available"),
    ],
)
@pytest.mark.parametrize("how", ["nearest", "linear", "smoothstep"])
def test_one_that_computes_something_else_is_found_out_before_the_run(
    encoding: Any, reason: str, how: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Double.made = []
    install(monkeypatch, encoding)
    dense = {"log2_hashmap_size": 12, "interpolation": how}  # a hash does not see how many vertices there are
    with pytest.raises(RecipeError, match=rf'"auto" takes torch instead\): {reason}'):
        made("cpu", backend="tinycudann", **dense)
    with caplog.at_level(logging.INFO, logger="trainkit"):
        assert made("cpu", **dense).get_extra_state()["backend"] == "torch"
    assert f"backend torch {torch.__version__} (not tinycudann: it" in caplog.messages[-1]


def test_its_version_is_that_of_its_distribution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tinycudann-7.8.dist-info").mkdir()
    (tmp_path / "tinycudann-7.8.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tinycudann\nVersion: 7.8"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert version() == "7.8"
    monkeypatch.setattr(sys, "path", [])
    assert version() == "of unknown version"


def test_asked_for_where_it_cannot_be_it_is_an_error_that_says_what_would_be_taken() -> None:
    with pytest.raises(RecipeError, match=r'"auto" takes torch instead\): it needs CUDA, and the run is on cpu'):
        made("cpu", backend="tinycudann")


@pytest.mark.parametrize("command", ["check", "run"])
def test_asked_for_and_not_installed_the_command_says_how_to_get_it(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainkit.cli.ignore_from_now_on", lambda: None)  # signals of the tests themselves
    monkeypatch.setattr("trainkit_ptychography.objects.hash_encoding.is_installed", lambda: False)
    monkeypatch.setattr(sys, "argv", ["trainkit", command, str(RECIPE), "--set", "model.object.backend=tinycudann"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = "".join(capsys.readouterr())
    assert 'error: model.object.backend: tinycudann is not installed ("auto" takes torch instead)' in said
    assert GET_IT in said


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("run.device=cpu", 'tinycudann needs CUDA, and run.device is "cpu"'),
        ("run.device=mps", 'tinycudann needs CUDA, and run.device is "mps"'),
        ("run.deterministic=true", "in no fixed order, and run.deterministic is true"),
    ],
)
def test_a_recipe_that_rules_it_out_is_told_so(setting: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit_ptychography.objects.hash_encoding.is_installed", lambda: True)
    resolve(RECIPE, ("model.object.backend=tinycudann",))
    with pytest.raises(RecipeError, match=message):
        resolve(RECIPE, ("model.object.backend=tinycudann", setting))
    resolve(RECIPE, (setting,))


# ---- a run ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_keeps_its_backend_in_the_checkpoint_and_goes_on_with_the_other_saying_so(place: Place) -> None:
    small = ("data.scan_shape=[5, 5]", "data.detector_size=24", "run.epochs=4", f"run.device={place.device}")
    stages = (
        "model.object.fine_from={ start_epoch = 1, stop_epoch = 2, coarse_levels = 4 }",
        "groups.dr.start_epoch=2",
        "groups.probe.start_epoch=2",
        "checkpoint.keep_last=9",
    )
    run = start(resolve(RECIPE, (*small, *stages)), Console(quiet=True)).run
    folder = run.state.folder
    assert ": backend tinycudann " in (folder / "log.txt").read_text()
    saved = checkpoint.read_header(folder / "checkpoints" / "epoch-0002.safetensors")["model"]["object._extra_state"]
    assert saved == {"backend": run.state.model.object._encode.name, "dtype": "float32"}
    ending = resume(folder, Console(quiet=True), epoch=2, sets=("model.object.backend=torch",))
    assert ending is not None
    log = (ending.run.state.folder / "log.txt").read_text()
    assert f"backend is torch, was {saved['backend']}: the run will not be the same bit for bit" in log
    torch.testing.assert_close(
        torch.tensor(ending.run.state.metrics["train/loss"]),
        torch.tensor(run.state.metrics["train/loss"]),
        rtol=1e-3,
        atol=0,
    )
    again = resume(ending.run.state.folder, Console(quiet=True), epoch=3, sets=("model.object.backend=auto",))
    assert again is not None
    assert f"backend is {saved['backend']}, was torch" in (again.run.state.folder / "log.txt").read_text()
