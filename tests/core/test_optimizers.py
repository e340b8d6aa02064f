"""The built-in optimizers against torch's own."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

from trainkit import Optimizer, Problem, RecipeError, set_curvature
from trainkit.optimizers.adam import Adam
from trainkit.optimizers.adamw import AdamW
from trainkit.optimizers.scaled_steps import ScaledSteps
from trainkit.optimizers.sgd import SGD
from trainkit.optimizers.torch import TorchOptimizer
from trainkit.recipe.resolve import resolve
from trainkit.recipe.shipped import shipped

PAIRS = [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW), (SGD, torch.optim.SGD)]
CHOSEN: list[tuple[Optimizer, dict[str, Any]]] = [
    (Adam(lr=0.02), {"betas": (0.5, 0.9), "weight_decay": 0.1}),
    (Adam(lr=0.02, amsgrad=True, eps=1e-4), {"eps": 1e-2}),
    (AdamW(lr=0.02), {"weight_decay": 0.3}),
    (AdamW(lr=0.02, betas=(0.8, 0.95)), {"amsgrad": True}),
    (SGD(lr=0.02), {"momentum": 0.9}),
    (SGD(lr=0.02, momentum=0.9, nesterov=True), {"nesterov": False, "dampening": 0.5}),
    (SGD(lr=0.02, weight_decay=0.1), {"weight_decay": 0.0}),
]
TORCHS = dict(PAIRS)


def two_parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    real = torch.randn(4, 3, generator=generator)
    return [torch.nn.Parameter(real), torch.nn.Parameter(torch.complex(real[0], real[1]))]


def train(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    for _ in range(20):
        optimizer.zero_grad()
        sum((each.abs() ** 2 - each.abs()).sum() for each in parameters).backward()
        optimizer.step()
    return [each.detach().clone() for each in parameters]


@pytest.mark.parametrize(("ours", "overrides"), CHOSEN, ids=lambda each: repr(each))
def test_results_are_torchs_bit_for_bit_with_a_groups_overrides(ours, overrides):
    a, b = two_parameters()
    built = ours.build([{"name": "a", "params": [a], "lr": 0.1}, {"name": "b", "params": [b], "lr": 0.01, **overrides}])
    settings = attrs.asdict(ours)
    c, d = two_parameters()
    theirs = TORCHS[type(ours)]([{"params": [c], "lr": 0.1}, {"params": [d], "lr": 0.01, **overrides}], **settings)
    for x, y in zip(train(built, [a, b]), train(theirs, [c, d]), strict=True):
        assert torch.equal(x, y)
    assert not torch.equal(a, two_parameters()[0])


@pytest.mark.parametrize(("ours", "overrides"), CHOSEN, ids=lambda each: repr(each))
def test_real_parameters_are_updated_by_torchs_fused_kernel_to_its_bits(ours, overrides):
    trained = []
    for fused in (None, True, False):  # ours, and torch's own either way
        real, other = (torch.nn.Parameter(each.detach().abs()) for each in two_parameters())
        if fused is None:
            groups = [{"name": "a", "params": [real], "lr": 0.1}, {"name": "b", "params": [other], "lr": 0.01}]
            built = ours.build([groups[0], {**groups[1], **overrides}])
            assert all(group["fused"] for group in built.param_groups)
        else:
            settings = attrs.asdict(ours)
            both = [{"params": [real], "lr": 0.1}, {"params": [other], "lr": 0.01, **overrides}]
            built = TORCHS[type(ours)](both, fused=fused, foreach=False, **settings)
        trained.append(train(built, [real, other]))
    for mine, fused, single in zip(*trained, strict=True):
        assert torch.equal(mine, fused)
        torch.testing.assert_close(mine, single, rtol=1e-4, atol=1e-5)


def test_parameters_without_a_fused_kernel_are_updated_without_one():
    built = Adam().build([{"name": "a", "params": two_parameters(), "lr": 0.1}])  # one of them is complex
    assert not built.param_groups[0]["fused"]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_settings_have_torchs_names_and_defaults(ours, theirs):
    arguments = inspect.signature(theirs).parameters
    for field in attrs.fields(ours):
        assert field.name in arguments
        assert field.default == arguments[field.name].default


def test_the_groups_keep_their_names_and_are_not_written_to():
    a, b = two_parameters()
    groups = [{"name": "a", "params": [a], "lr": 0.1}, {"name": "b", "params": [b], "lr": 0.2}]
    built = Adam().build(groups)
    assert [group["name"] for group in built.param_groups] == ["a", "b"]
    assert [set(group) for group in groups] == [{"name", "params", "lr"}] * 2


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (Adam, {"betas": (0.9, 1.0)}),
        (Adam, {"eps": -1e-8}),
        (AdamW, {"weight_decay": float("inf")}),
        (AdamW, {"lr": 0.0}),
        (SGD, {"momentum": 1.5}),
        (SGD, {"lr": float("nan")}),
    ],
)
def test_settings_outside_their_range_are_refused_by_name(made, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        made(**wrong)


@pytest.mark.parametrize("settings", [{"nesterov": True}, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}])
def test_nesterov_that_torch_would_refuse_is_a_problem_beforehand(settings):
    recipe: Any = SimpleNamespace()
    with pytest.raises(ValueError, match="Nesterov"):
        torch.optim.SGD(two_parameters(), **settings)
    (problem,) = SGD(**settings).problems(recipe)
    assert problem.key == "nesterov"
    assert list(SGD(nesterov=True, momentum=0.9).problems(recipe)) == []


# ---- any optimizer of torch -----------------------------------------------------------------------------------------

TORCH_CHOICES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ASGD": ({"lambd": 1e-3}, {"alpha": 0.5}),
    "Adadelta": ({"rho": 0.8}, {"eps": 1e-5}),
    "Adafactor": ({"d": 2.0}, {"weight_decay": 0.1}),
    "Adagrad": ({"lr_decay": 0.1}, {"weight_decay": 0.1}),
    "Adam": ({"betas": [0.5, 0.9]}, {"betas": [0.8, 0.95]}),
    "AdamW": ({"weight_decay": 0.3}, {"amsgrad": True}),
    "Adamax": ({"eps": 1e-4}, {"weight_decay": 0.1}),
    "Muon": ({"momentum": 0.9}, {"nesterov": False}),
    "NAdam": ({"momentum_decay": 1e-3}, {"decoupled_weight_decay": True}),
    "RAdam": ({"betas": [0.8, 0.9]}, {"weight_decay": 0.1}),
    "RMSprop": ({"alpha": 0.9, "centered": True}, {"momentum": 0.5}),
    "Rprop": ({"etas": [0.4, 1.3]}, {"step_sizes": [1e-5, 10]}),
    "SGD": ({"momentum": 0.9}, {"momentum": 0.5, "nesterov": True}),
}
REFUSED = {"LBFGS", "SparseAdam"}
HERE = {name for name, cls in vars(torch.optim).items() if isinstance(cls, type)} - {"Optimizer"}


def problems(settings: TorchOptimizer, groups: dict[str, dict[str, Any]] | None = None) -> list[tuple[str, str]]:
    """Return (key, message) of all that is wrong with an optimizer and the settings that groups override."""
    overrides = {name: SimpleNamespace(options=options) for name, options in (groups or {}).items()}
    recipe: Any = SimpleNamespace(optimizer=settings, groups=overrides)
    found = [Problem(each) if isinstance(each, str) else each for each in settings.problems(recipe)]
    return [(each.key, each.message) for each in found]


def test_every_optimizer_of_torch_is_either_tried_here_or_refused():
    assert TORCH_CHOICES.keys() | REFUSED >= HERE
    for name in HERE:
        assert bool(problems(TorchOptimizer(name=name))) == (name in REFUSED), name


def two_matrices(complex_too: bool) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(4, 3, generator=generator), torch.randn(3, 5, generator=generator)
    return [torch.nn.Parameter(torch.complex(first, first.sin()) if complex_too else first), torch.nn.Parameter(second)]


@pytest.mark.parametrize("name", sorted(TORCH_CHOICES.keys() & HERE))
def test_each_step_is_that_of_torchs_class_bit_for_bit_with_a_groups_overrides(name):
    arguments, overrides = TORCH_CHOICES[name]
    assert problems(TorchOptimizer(name=name, arguments=arguments), {"b": {"arguments": overrides}}) == []
    tupled = [{key: tuple(v) if isinstance(v, list) else v for key, v in each.items()} for each in TORCH_CHOICES[name]]
    settings = TorchOptimizer(name=name, lr=0.01, arguments=arguments)
    for complex_too in (False, True):
        (a, b), (c, d) = two_matrices(complex_too), two_matrices(complex_too)
        groups = [
            {"name": "a", "params": [a], "lr": 0.1},
            {"name": "b", "params": [b], "lr": 0.01, "arguments": overrides},
        ]
        if complex_too and name in ("Adafactor", "Muon"):
            with pytest.raises(RecipeError, match="refuses complex parameters"):
                settings.build(groups)
            continue
        theirs = [{"params": [c], "lr": 0.1}, {"params": [d], **tupled[1]}]
        theirs = getattr(torch.optim, name)(theirs, lr=0.01, **tupled[0])
        ours = settings.build(groups)
        assert [group["name"] for group in ours.param_groups] == ["a", "b"]
        for _ in range(5):
            for optimizer, parameters in ((ours, (a, b)), (theirs, (c, d))):
                optimizer.zero_grad()
                sum((each.abs() ** 2 - each.abs()).sum() for each in parameters).backward()
                optimizer.step()
            assert torch.equal(a, c)
            assert torch.equal(b, d)
        assert not torch.equal(b, two_matrices(complex_too)[1])


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"name": "RMSProp"}, "name", 'no optimizer "RMSProp"; did you mean "RMSprop"?'),
        ({"name": "Optimizer"}, "name", "no optimizer"),
        ({"name": "lr_scheduler"}, "name", "no optimizer"),
        ({"name": "LBFGS"}, "name", "needs a closure"),
        ({"name": "SparseAdam"}, "name", "sparse gradients"),
        ({"name": "RMSprop", "arguments": {"alhpa": 0.9}}, "arguments.alhpa", 'did you mean "alpha"?'),
        ({"name": "RMSprop", "arguments": {"alpha": "high"}}, "arguments.alpha", "must be a number, got 'high'"),
        ({"name": "RMSprop", "arguments": {"centered": 1}}, "arguments.centered", "must be true or false"),
        ({"name": "Adam", "arguments": {"betas": [0.9]}}, "arguments.betas", "must be a list of 2: a number, a number"),
        ({"name": "Adam", "arguments": {"betas": [0.9, True]}}, "arguments.betas", "must be a list of 2"),
        ({"name": "Adam", "arguments": {"foreach": 3}}, "arguments.foreach", "must be true or false"),
        ({"name": "SGD", "arguments": {"lr": 0.1}}, "arguments.lr", "beside arguments; leave it out"),
        ({"name": "SGD", "arguments": {"params": []}}, "arguments.params", "set by trainkit; leave it out"),
    ],
)
def test_what_torch_would_not_take_is_a_problem_with_its_key(settings, key, message):
    ((found, text),) = problems(TorchOptimizer(**settings))
    assert found == key
    assert message in text


def test_what_a_group_may_not_override_is_a_problem_that_names_the_group():
    settings = TorchOptimizer(name="SGD")
    ((_, other_class),) = problems(settings, {"probe": {"name": "Adam"}})
    assert other_class.startswith('[groups.probe] cannot override "name"')
    assert 'optimizer = { use = "torch", name = "Adam" }' in other_class
    ((_, unknown),) = problems(settings, {"probe": {"arguments": {"momentun": 0.9}}})
    assert unknown == '[groups.probe] SGD has no argument "momentun"; did you mean "momentum"?'


@pytest.mark.parametrize(
    "settings",
    [{"name": "Nonsense"}, {"name": "SGD", "arguments": {"nesterov": True}}, {"name": "SGD", "arguments": {"x": 1}}],
)
def test_what_only_torch_finds_wrong_is_one_message_when_it_is_built(settings):
    with pytest.raises(RecipeError, match=r"torch"):
        TorchOptimizer(**settings).build([{"name": "a", "params": two_parameters(), "lr": 0.1}])


def test_torch_is_read_and_not_imported_to_check_a_recipe():
    code = (
        "import sys; from types import SimpleNamespace; from trainkit.optimizers.torch import TorchOptimizer;"
        "made = TorchOptimizer(name='RMSprop', arguments={'alpha': 0.9});"
        "assert list(made.problems(SimpleNamespace(optimizer=made, groups={}))) == [];"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- steps that are scaled by the curvature --------------------------------------------------------------------------


def test_a_scaled_step_is_newtons_where_the_curvature_is_that_of_a_quadratic():
    """½ c (x − 1)² has its minimum one Newton step away, whatever c is; damping shortens the step."""
    curvature = torch.tensor([1e-3, 1.0, 1e6])
    x = torch.nn.Parameter(torch.tensor([3.0, 0.0, -5.0]))
    set_curvature(x, lambda: curvature)
    for damping in (1e-12, 0.25):
        built = ScaledSteps(lr=1.0, damping=damping).build([{"name": "x", "params": [x], "lr": 1.0}])
        with torch.no_grad():
            x.copy_(torch.tensor([3.0, 0.0, -5.0]))
        before = x.detach().clone()
        (0.5 * curvature * (x - 1) ** 2).sum().backward()
        built.step()
        built.zero_grad()
        expected = before - curvature * (before - 1) / (curvature + damping * 1e6)
        torch.testing.assert_close(x.detach(), expected)


def test_a_scaled_step_does_not_depend_on_the_unit_of_the_loss():
    ends = []
    for unit in (1e-4, 1e4):
        x = torch.nn.Parameter(torch.linspace(-1.0, 2.0, 5))
        set_curvature(x, lambda unit=unit: torch.tensor(2.0 * unit))
        built = ScaledSteps(momentum=0.5).build([{"name": "x", "params": [x], "lr": 0.3}])
        for _ in range(10):
            built.zero_grad()
            (unit * (x - 1) ** 2).sum().backward()
            built.step()
        ends.append(x.detach())
    torch.testing.assert_close(*ends)


def test_what_is_not_measured_does_not_move_and_a_gradient_that_is_not_finite_is_not_hidden():
    x = torch.nn.Parameter(torch.ones(2))
    for curvature in (torch.zeros(2), torch.tensor([1.0, float("nan")])):
        set_curvature(x, lambda curvature=curvature: curvature)
        built = ScaledSteps().build([{"name": "x", "params": [x], "lr": 0.5}])
        x.grad = torch.tensor([0.0, 3.0])
        built.step()
        assert torch.equal(x.detach(), torch.ones(2)) == (not curvature.isnan().any())
    assert x.isnan().any()


def test_a_parameter_without_a_curvature_is_refused_by_scaled_steps():
    x = torch.nn.Parameter(torch.ones(2))
    built = ScaledSteps().build([{"name": "x", "params": [x], "lr": 0.5}])
    x.grad = torch.ones(2)
    with pytest.raises(RecipeError, match="does not tell the curvature"):
        built.step()


@pytest.mark.parametrize(
    ("sets", "refused"),
    [
        ((), ()),
        (('model.object={ use = "hash_encoding" }',), ("object",)),
        (('model.object={ use = "hash_encoding" }', 'groups.object={ optimizer = { use = "adam" } }'), ()),
        (('groups.object={ then.finish = { start_epoch = 1, optimizer = { use = "adam" } } }',), ()),
        (('groups.object={ parameters = ["object.*"] }', 'groups.rest={ parameters = "rest" }'), ()),
    ],
)
def test_check_names_the_groups_whose_curvature_the_model_does_not_tell(tmp_path, sets, refused):
    (tmp_path / "recipe.toml").write_text(
        'trainkit = 1\nrun = { name = "x", epochs = 2 }\ndata.use = "diffraction_simulated"\n'
        'model = { use = "single_slice_ptychography", probe.use = "aperture" }\nlosses.data.use = "amplitude"\n'
        'optimizer.use = "scaled_steps"\nscheduler.use = "none"\n'
    )
    if refused:
        message = f"does not tell the curvature for group {', '.join(refused)}: give it another optimizer"
        with pytest.raises(RecipeError, match=message):
            resolve(tmp_path / "recipe.toml", sets)
    else:
        resolve(tmp_path / "recipe.toml", sets)


def test_a_group_that_the_model_does_not_have_is_one_mistake():
    with pytest.raises(RecipeError, match="has no such group") as found:
        resolve(shipped()["ptycho_staged"], ("groups.prob.lr=1",))
    assert "curvature" not in str(found.value)


def test_a_curvature_that_is_no_number_does_not_stop_steps_in_silence():
    x = torch.nn.Parameter(torch.ones(3))
    set_curvature(x, lambda: torch.tensor([1.0, float("nan"), 2.0]))
    x.grad = torch.ones(3)
    ScaledSteps().build([{"params": [x]}]).step()
    assert x.isnan().all()
