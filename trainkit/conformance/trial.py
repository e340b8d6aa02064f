"""What a part is tried with: small data, a model that takes them, and a loss of both.

Where a plugin has all three, nothing need be said: they are found among its own components. A part that works with data
of another package is tried with a component of that package which can be opened without settings, or with `samples`.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from trainkit import registry
from trainkit.contracts import AUTO, Component, Context, Data, Inference, Loss, Model
from trainkit.errors import ComponentError, TrainkitError
from trainkit.processes.exchange import Exchange
from trainkit.randomness import generators_kept, seed_everything

Samples = Mapping[str, Mapping[str, Any]]
"""``group/name`` -> settings to test with, for components that have settings without a default."""

SEED = 5
_CPU = torch.device("cpu")


@attrs.frozen(eq=False)
class Trial:
    """What a part is tried with.

    Attributes:
        data: Small data.
        model: A model that takes them; None: there is none.
        loss: A loss that takes both; None: there is none.
        inference: How held-out outputs are computed; None: by the model itself.
    """

    data: Data
    model: Model | None = None
    loss: Loss | None = None
    inference: Inference | None = None
    _kept: dict[str, Any] = attrs.field(factory=dict, init=False, repr=False)

    def live_data(self) -> Any:
        """Return the opened data, the same object each time."""
        if "data" not in self._kept:
            with generators_kept():
                self._kept["data"] = open_data(self.data, _folder())
        return self._kept["data"]

    def network(self, seed: int = 1) -> nn.Module:
        """Return a new network, whose first weights depend on a seed, in training mode."""
        assert self.model is not None
        with generators_kept():
            seed_everything(seed)
            return self.model.build(self.live_data()).train()

    def network_drawn(self) -> nn.Module:
        """Return a new network, whose first weights are drawn from the global random numbers as they are."""
        assert self.model is not None
        return self.model.build(self.live_data()).train()

    def batches(self) -> list[Mapping[str, Any]]:
        """Return the batches of the first epoch."""
        if "batches" not in self._kept:
            self._kept["batches"] = list(self.live_data().train(0, 0))
        batches: list[Mapping[str, Any]] = self._kept["batches"]
        return batches

    def held_out(self) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Return held-out batches with outputs of a network; without a held-out split, those that are trained on."""
        if "held_out" not in self._kept:
            network = self.network().eval()
            infer = (
                (lambda model, batch: model(batch))
                if self.inference is None
                else self.inference.build(self.live_data())
            )
            batches = [batch for split in self.data.splits()[1:] for batch in self.live_data().evaluate(split)]
            with generators_kept(), torch.no_grad():
                self._kept["held_out"] = [(batch, infer(network, batch)) for batch in batches or self.batches()]
        found: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = self._kept["held_out"]
        return found


def open_data(data: Data, folder: Path, exchange: Exchange | None = None) -> Any:
    """Open data in this process, or as one of several parts."""
    return data.build(Context(SEED, _CPU, folder, exchange or Exchange()))


def parts_of_batch(values: Mapping[str, Any], sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Divide what has the items of a batch on its first axis, a batch or outputs, into parts of these sizes."""
    total, found = sum(sizes), []
    start = 0
    for size in sizes:
        found.append({name: _items(value, slice(start, start + size), total) for name, value in values.items()})
        start += size
    return found


def _items(value: Any, part: slice, total: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value[part] if value.ndim and len(value) == total else value
    if isinstance(value, Mapping):
        return {name: _items(each, part, total) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return value[part] if len(value) == total else type(value)(_items(each, part, total) for each in value)
    return value


# ---- finding it -----------------------------------------------------------------------------------------------------


def trials(part: Component, package: str | None, samples: Samples) -> Iterator[Trial]:
    """Yield what a part can be tried with, the best first.

    Args:
        part: The settings of the part.
        package: The distribution that it belongs to.
        samples: Settings of components.
    """
    for data in [part] if isinstance(part, Data) else _data_for(part, package, samples):
        for model in [part] if isinstance(part, Model) else [*_fitting(Model, data, package, samples), None]:
            trial = Trial(data, model, inference=next(iter(_fitting(Inference, data, None, samples)), None))
            if model is not None and model is not part and not _works(trial):
                continue
            for loss in [part] if isinstance(part, Loss) else [*_fitting(Loss, data, package, samples), None]:
                whole = attrs.evolve(trial, loss=loss)
                whole._kept.update(trial._kept)
                if loss is None or isinstance(part, Loss) or (model is not None and _has_a_loss(whole)):
                    yield whole
                    break
            if not isinstance(part, Model | Loss):
                break


def _data_for(part: Component, package: str | None, samples: Samples) -> Iterator[Data]:
    """Yield data that a part accepts: of its own package, of `samples`, or of the package that has the kind of data."""
    accepts = type(part).accepts
    home = accepts.__module__.partition(".")[0]
    for found, settings in _components(Data, package, samples):
        own = package is not None and found.package == package
        near = accepts is not Data and found.value.partition(":")[0].partition(".")[0] == home
        if (
            (own or near or f"{Data.entry_points}/{found.name}" in samples)
            and isinstance(settings, accepts)
            and _opens(settings)
        ):
            yield settings


def _fitting(kind: Any, data: Data, package: str | None, samples: Samples) -> Iterator[Any]:
    """Yield components of a kind that accept data of this kind: those that accept any only from the same package."""
    for found, settings in _components(kind, package, samples):
        accepts = type(settings).accepts
        if isinstance(data, accepts) and (accepts is not Data or found.package == package):
            yield settings


def _components(kind: Any, package: str | None, samples: Samples) -> Iterator[tuple[registry.RegisteredComponent, Any]]:
    """Yield the components of a kind that can be made, those of the package and of `samples` first."""
    group = kind.entry_points
    order = {name: place for place, name in enumerate(samples)}

    def rank(found: registry.RegisteredComponent) -> tuple[Any, ...]:
        return found.package != package, order.get(f"{group}/{found.name}", len(order)), found.name

    for found in sorted(registry.registered(group), key=rank):
        try:
            settings = found.load()(**samples.get(f"{group}/{found.name}", {}))
        except (ComponentError, TypeError, ValueError):
            continue
        if isinstance(settings, kind) and all(map(find_spec, settings.requires)):
            yield found, settings


_OPENED: dict[str, bool] = {}


def _opens(data: Data) -> bool:
    """Return whether data can be opened here; others are not: files are missing, for example."""
    key = f"{type(data).__module__}.{data!r}"
    if key not in _OPENED:
        try:
            with generators_kept():
                _OPENED[key] = next(iter(open_data(data, _folder()).train(0, 0)), None) is not None
        except Exception:  # what is wrong with it, the checks of data say
            _OPENED[key] = False
    return _OPENED[key]


def _works(trial: Trial) -> bool:
    """Return whether a model takes the data; what is wrong with it, the checks of models say."""
    try:
        with generators_kept(), torch.no_grad():
            trial.network()(trial.batches()[0])
    except Exception:
        return False
    return True


def _has_a_loss(trial: Trial) -> bool:
    assert trial.loss is not None
    if trial.loss.weight == AUTO or not trial.loss.on_validation:
        return False
    try:
        with generators_kept(), torch.no_grad():
            network, batch = trial.network(), trial.batches()[0]
            trial.loss.build(trial.live_data())(network(batch), batch, network)
    except (TrainkitError, LookupError, TypeError, ValueError, RuntimeError):
        return False
    return True


def _folder() -> Path:
    """Return a new folder that is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="trainkit-testing-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
