"""Computes the weighted sum of a recipe's losses, over one batch or over the parts of a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import torch
from torch import Tensor

from trainkit.contracts import Combine
from trainkit.errors import PartError, RecipeError, blame

if TYPE_CHECKING:
    from torch import nn

    from trainkit.contracts import Batch, Loss, Outputs


class Term(NamedTuple):
    """A built loss of a recipe.

    Attributes:
        name: The loss's key below ``[losses]``.
        weight: Factor of its value in the total.
        function: (outputs, batch, model) -> scalar, or a `SummedLoss`.
        on_validation: Whether it is evaluated on held-out data.
        combine: How the losses of a step's parts are combined.
    """

    name: str
    weight: float
    function: Any
    on_validation: bool
    combine: Combine

    def value(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return the loss's value for one batch.

        Raises:
            PartError: The loss fails, or returns something other than a scalar tensor.
        """
        try:
            value = self.function(outputs, batch, model)
        except Exception as error:
            blame(error, f"losses.{self.name}")
        return value if type(value) is Tensor and value.ndim == 0 else self.checked(value)

    def sums(self, outputs: Outputs, batch: Batch, model: nn.Module) -> Tensor:
        """Return what a loss of sums adds up over the parts of a step, for one of them.

        Raises:
            PartError: The loss fails.
        """
        try:
            sums: Tensor = self.function.sums(outputs, batch, model)
        except Exception as error:
            blame(error, f"losses.{self.name}")
        return sums

    def of_sums(self, total: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value of a loss of sums that were added up over all parts, and its gradient for the sums.

        Raises:
            PartError: The loss fails, or returns something other than a scalar tensor.
        """
        total = total.detach().requires_grad_()
        try:
            value = self.function.value(total)
        except Exception as error:
            blame(error, f"losses.{self.name}")
        self.checked(value)
        (slope,) = torch.autograd.grad(value, total)
        return value.detach(), slope

    def checked(self, value: Any) -> Tensor:
        """Return a value after checking that it is a scalar tensor.

        Raises:
            PartError: The value is something else.
        """
        if isinstance(value, Tensor) and value.ndim == 0:
            return value
        given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise PartError(f"losses.{self.name} must return a scalar tensor, the mean over the batch; it returned {given}")


class SumsOfStep(NamedTuple):
    """A loss of sums in a step.

    Attributes:
        value: Its value.
        slope: Its gradient for the sums.
    """

    value: Tensor
    slope: Tensor


class Losses:
    """The weighted sum of a recipe's losses.

    Attributes:
        terms: The losses.
    """

    def __init__(self, terms: Iterable[Term]) -> None:
        self.terms = tuple(terms)
        self.needs_all_parts = any(term.combine == "sums" for term in self.terms)

    @classmethod
    def build(cls, settings: Mapping[str, Loss], data: Any) -> Losses:
        """Build the losses of a recipe for the opened data."""
        terms = []
        for name, loss in settings.items():
            if isinstance(loss.weight, str):
                raise RecipeError(
                    f'losses.{name}.weight = "{loss.weight}", which trainkit run chooses; here it must be a number'
                )
            try:
                function, combine = loss.build(data), loss.combine()
            except Exception as error:
                blame(error, f"losses.{name}, in build")
            _check_built(name, function, combine)
            terms.append(Term(name, loss.weight, function, loss.on_validation, combine))
        return cls(terms)

    def of_batch(self, outputs: Outputs, batch: Batch, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total loss for a step of one batch, and the value of each term if there are several."""
        if len(self.terms) == 1:
            (term,) = self.terms
            value = term.value(outputs, batch, model)
            return (value if term.weight == 1.0 else term.weight * value), {}
        values = {term.name: term.value(outputs, batch, model) for term in self.terms}
        return self._total(values), values

    def sums(self, outputs: Outputs, batch: Batch, model: nn.Module) -> dict[str, Tensor]:
        """Return what the losses of sums add up, for one of the parts of a step."""
        return {term.name: term.sums(outputs, batch, model) for term in self.terms if term.combine == "sums"}

    def of_sums(self, totals: Mapping[str, Tensor]) -> dict[str, SumsOfStep]:
        """Return the losses of sums, from what `sums` returned, added up over all parts of a step."""
        return {term.name: SumsOfStep(*term.of_sums(totals[term.name])) for term in self.terms if term.name in totals}

    def of_part(
        self,
        outputs: Outputs,
        batch: Batch,
        model: nn.Module,
        share: float,
        first: bool,
        sums: Mapping[str, Tensor],
        of_step: Mapping[str, SumsOfStep],
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return what one of several parts contributes to a step.

        Args:
            outputs: The model's outputs.
            batch: The batch.
            model: The model.
            share: Its share of the step's items, 0 … 1.
            first: Whether it is the step's first part, which includes what counts once per step.
            sums: What `sums` returned for it.
            of_step: What `of_sums` returned for the step.

        Returns:
            What is differentiated: the sum over all parts has the gradient of the step's loss; None: nothing. And what
            it contributes to the value of each loss.
        """
        pieces: list[Tensor] = []
        values: dict[str, Tensor] = {}
        for term in self.terms:
            if term.combine == "sums":
                pieces.append(term.weight * (sums[term.name] * of_step[term.name].slope).sum())
                if first:
                    values[term.name] = of_step[term.name].value
            elif first or term.combine != "once":
                value = term.value(outputs, batch, model) * (1.0 if term.combine == "once" else share)
                pieces.append(term.weight * value)
                values[term.name] = value.detach()
        return (torch.stack(pieces).sum() if len(pieces) > 1 else pieces[0]) if pieces else None, values

    def total(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the values of all losses."""
        return torch.as_tensor(self._total(values))

    def on_validation(self, outputs: Outputs, batch: Batch, model: nn.Module) -> dict[str, Tensor]:
        """Return the total ("loss") of the terms for held-out data, and the value of each if there are several."""
        values = {term.name: term.value(outputs, batch, model) for term in self.terms if term.on_validation}
        return {"loss": self.total(values)} | (values if len(self.terms) > 1 else {})

    def _total(self, values: Mapping[str, Tensor]) -> Any:
        """Return the weighted sum of the values that there are."""
        return sum((term.weight * values[term.name] for term in self.terms if term.name in values), start=0.0)


def _check_built(name: str, function: Any, combine: str) -> None:
    """Make sure that what a loss built can be called, and combines as the loss says.

    Raises:
        PartError: It cannot; or the loss says something that is not known.
    """
    if not callable(function):
        raise PartError(f"losses.{name} must build a function (outputs, batch, model) -> scalar; it built {function!r}")
    if combine not in get_args(Combine):
        raise PartError(f"losses.{name}: combine() must be one of {', '.join(get_args(Combine))}; it is {combine!r}")
    if combine == "sums" and not (hasattr(function, "sums") and hasattr(function, "value")):
        raise PartError(f'losses.{name}: combine() is "sums", so what it builds must have the methods sums and value')
