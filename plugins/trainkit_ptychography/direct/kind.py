"""The kind "direct method": an object from the patterns in one go. Other packages add methods of their own."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from trainkit import Component, ComponentError, component, did_you_mean, registered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from trainkit_ptychography.direct.evidence import Evidence


class Blurred(NamedTuple):
    """A phase as a method sees it: each of its frequencies q is multiplied by ``power_YX``, that is real.

    Attributes:
        phase_HW: On the pixels of the object, in rad; 0 where no pattern was taken.
        power_YX: Zero frequency at [0, 0]; not negative. Its frequencies are those of an array as large as the probe's.
        weight_HW: How many patterns were taken at each place, per pixel, as the method sees it.
    """

    phase_HW: NDArray[np.float64]
    power_YX: NDArray[np.float64]
    weight_HW: NDArray[np.float64]


class LiveDirectMethod(Protocol):
    """What makes a blurred phase of patterns, in sums over the patterns."""

    def sums(self, points_N: Tensor) -> Tensor:
        """Return sums (C, H, W) over some scan points, whose numbers are on the CPU; sums of all add up."""
        ...

    def blurred(self, sums_CHW: NDArray[np.float64]) -> Blurred:
        """Return the phase that sums stand for."""
        ...


@component
class DirectMethod(Component):
    """How patterns become a phase in one go, to first order in it.

    A method says what it sums up over the patterns, and by what it has multiplied each frequency of the phase. The rest
    is done for all methods: that factor is divided out as a Wiener filter does, as far as a few patterns say that this
    fits better, and the phase is scaled so that it fits best.
    """

    entry_points: ClassVar[str] = "trainkit.ptychography.direct_methods"
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True
    title: ClassVar[str] = "a direct method"
    """What messages call it."""

    @abstractmethod
    def build(self, evidence: Evidence) -> LiveDirectMethod:
        """Make what looks at the patterns.

        Raises:
            DataError: The scan or the probe does not allow this method; says why.
        """


def as_method(given: Any) -> Any:
    """Return a method that is given by its name alone.

    Raises:
        ComponentError: There is none of that name.
    """
    if not isinstance(given, str):
        return given
    known = {each.name: each for each in registered(DirectMethod.entry_points)}
    if given not in known:
        raise ComponentError(f'method "{given}" is not known: {did_you_mean(given, known)}')
    return known[given].load()()
