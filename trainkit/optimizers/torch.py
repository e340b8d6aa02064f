"""Any optimizer of ``torch.optim``, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from trainkit.contracts import Optimizer, Problem, component
from trainkit.errors import RecipeError, did_you_mean
from trainkit.signatures import argument_problems, derives_from, read_arguments, read_classes

if TYPE_CHECKING:
    from torch import optim

    from trainkit.recipe.root import Recipe

_ELSEWHERE = {"params": "is set by trainkit", "lr": "is a setting of the optimizer itself, beside arguments"}
_REAL_ONLY = ("Adafactor", "Muon")  # for complex parameters, torch raises only at the first step
_REFUSED = {"SparseAdam": "works only with sparse gradients, which no model here has; use Adam"}


@component
class TorchOptimizer(Optimizer):
    """Any class of ``torch.optim``, by name. For optimizers that have no component of their own.

    A parameter group may override single arguments (``[groups.NAME] arguments = { momentum = 0.5 }``); it takes the
    others from [optimizer]. Classes that call the model several times per step or need sparse gradients are refused.

    Attributes:
        name: The class, for example "RMSprop".
        arguments: Its arguments by name, without the parameters and ``lr``.
    """

    steps_can_be_tried: ClassVar[bool] = True

    name: str
    arguments: dict[str, Any] = attrs.field(factory=dict)

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what torch would refuse: the class, an argument, or its type. Torch's source is read, not imported."""
        if reason := _refusal(self.name):
            yield Problem(reason, "name")
            return
        known = read_arguments(self.name, read_classes("torch.optim"))
        yield from argument_problems(self.name, self.arguments, known, _ELSEWHERE)
        if recipe.optimizer is not self:
            return
        optional = {key: argument._replace(required=False) for key, argument in known.items()}
        for group, settings in recipe.groups.items():
            overrides = settings.options
            if "name" in overrides:
                own = f'optimizer = {{ use = "torch", name = "{overrides["name"]}" }}'
                yield f'[groups.{group}] cannot override "name"; give the group an optimizer of its own: {own}'
            for problem in argument_problems(self.name, overrides.get("arguments", {}), optional, _ELSEWHERE):
                yield f"[groups.{group}] {problem.message}"

    def build(self, groups: list[dict[str, Any]]) -> optim.Optimizer:
        """Make torch's optimizer.

        Raises:
            RecipeError: The class does not exist, or torch refuses the arguments or the parameters.
        """
        if reason := _refusal(self.name):
            raise RecipeError(reason)
        from torch import optim

        if self.name in _REAL_ONLY and any(each.is_complex() for group in groups for each in group["params"]):
            raise RecipeError(f"{self.name} refuses complex parameters, which this model has; use another optimizer")
        overridden = [
            {key: value for key, value in group.items() if key != "arguments"} | _as_torchs(group.get("arguments", {}))
            for group in groups
        ]
        try:
            made: optim.Optimizer = getattr(optim, self.name)(overridden, lr=self.lr, **_as_torchs(self.arguments))
        except Exception as error:  # whatever torch raises for the recipe's arguments
            reason = f"{type(error).__name__}: {error}"
            raise RecipeError(f"torch's {self.name} cannot be made with {self.arguments}: {reason}") from error
        return made


def _refusal(name: str) -> str | None:
    """Return why a class cannot be used, and what to do instead; None: it can."""
    classes = read_classes("torch.optim")
    usable = {each for each in classes if derives_from(each, "Optimizer", classes)}
    if name not in usable:
        return f'torch.optim has no optimizer "{name}"; {did_you_mean(name, usable)}'
    if read_arguments(name, classes, "step")["closure"].required:
        return f"{name} calls the model several times per step (it needs a closure), which trainkit does not support"
    return f"{name} {_REFUSED[name]}" if name in _REFUSED else None


def _as_torchs(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
