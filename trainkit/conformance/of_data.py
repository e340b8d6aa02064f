"""Checks of opened data."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch

from trainkit.conformance.randomness import made_without_seeding, untouched_randomness
from trainkit.conformance.trial import open_data
from trainkit.contracts import Data
from trainkit.errors import TrainkitError
from trainkit.processes.exchange import Exchange
from trainkit.processes.place import Place
from trainkit.randomness import generators_kept, seed_everything

_INSTEAD = "use a generator of its own, seeded by trainkit.random_seed(context.seed, epoch, number)"


def yields_batches_by_seed_epoch_and_number(data: Data) -> None:
    """Check that batches depend on seed, epoch and number alone, hold ``index``, and are as many as announced.

    The data are opened twice, with other states of the global random numbers, which have to stay as they are.
    """
    with tempfile.TemporaryDirectory() as folder, generators_kept():
        first, second = (opened(data, Path(folder)) for _ in range(2))
        made = type(first).__name__
        seed_everything(1)
        with untouched_randomness(f"{made}.train", _INSTEAD):
            batches = list(first.train(0, 0))
        number = getattr(first, "batches_per_epoch", None)
        assert number == len(batches), f"{made} announces {number} batches an epoch, and train yields {len(batches)}"
        size = data.epoch_size()
        announced = size.batches if size is not None else number
        assert announced == len(batches), f"epoch_size() says {announced} batches, and train yields {len(batches)}"
        seed_everything(2)
        list(second.train(1, 0))  # another epoch before: what was drawn there must not matter
        again = list(second.train(0, 0))
        _are_the_same(batches, again, f"{made}.train(0, 0) yields other batches when the data are opened again")
        start = len(batches) // 2
        rest = list(first.train(0, start))
        _are_the_same(batches[start:], rest, f"{made}.train(0, {start}) is not the end of train(0, 0)")
        for split in data.splits()[1:]:
            with untouched_randomness(f"{made}.evaluate", _INSTEAD):
                evaluated = list(first.evaluate(split))
            _have_an_index(evaluated, f'evaluate("{split}")')
            items = [int(item) for batch in evaluated for item in batch["index"]]
            assert len(set(items)) == len(items), f'evaluate("{split}") yields items {sorted(items)}: one of them twice'
            said = f'evaluate("{split}") yields other batches the second time'
            _are_the_same(evaluated, list(second.evaluate(split)), said)
        _have_an_index(batches, "train")
        items = [int(item) for batch in batches for item in batch["index"]]
        if size is not None:
            assert len(set(items)) <= size.items, (
                f"epoch_size() says {size.items} items, and an epoch has {len(set(items))}"
            )


def opens_without_seeding(data: Data) -> None:
    """Check that opening data does not seed the global random numbers."""
    with tempfile.TemporaryDirectory() as folder:
        opened(data, Path(folder))
        made_without_seeding(lambda: opened(data, Path(folder)), f"{type(data).__name__}.build")


def divides_batches_among_processes(data: Data) -> None:
    """Check that the shares of two processes, and those of two shards, are together the whole batches and splits."""
    if not data.divides_batches:
        return
    with tempfile.TemporaryDirectory() as folder, generators_kept():
        whole = opened(data, Path(folder))
        shards = open_data(data, Path(folder), Exchange().with_shards(2))
        processes = [open_data(data, Path(folder), Exchange(Place(rank, 2))) for rank in range(2)]
        batches = list(whole.train(0, 0))
        _have_an_index(batches, "train")
        parts = [list(each.train(0, 0)) for each in processes]
        both = list(shards.train(0, 0))
        assert [len(each) for each in parts] == [len(batches)] * 2, (
            f"train yields {len(parts[0])} and {len(parts[1])} shares on two processes, not {len(batches)}"
        )
        in_turn = [part for pair in zip(*parts, strict=True) for part in pair]
        _are_the_same(in_turn, both, "train yields other shares to two shards of one process than to two processes")
        for number, batch in enumerate(batches):
            shares = [_items(each[number]) for each in parts]
            _are_shares(shares, _items(batch), f"batch {number} of train")
        for split in data.splits()[1:]:
            shares = [[item for batch in each.evaluate(split) for item in _items(batch)] for each in processes]
            _are_shares(
                shares, [item for batch in whole.evaluate(split) for item in _items(batch)], f'the split "{split}"'
            )


def opened(data: Data, folder: Path) -> Any:
    """Return the opened data.

    Raises:
        SkipTest: They are not here, or their modules are not installed.
    """
    name = f"{type(data).__module__}.{type(data).__qualname__}"
    if missing := [module for module in data.requires if find_spec(module) is None]:
        raise SkipTest(f"{name} needs {', '.join(missing)}, which is not installed")
    try:
        return open_data(data, folder)
    except (TrainkitError, OSError) as error:
        raise SkipTest(f"{name} cannot be opened here; give a sample of its settings ({error})") from error


def _items(batch: Mapping[str, Any]) -> list[int]:
    return [int(item) for item in batch["index"]]


def _are_shares(shares: Sequence[Sequence[int]], whole: Sequence[int], what: str) -> None:
    together = sorted(item for share in shares for item in share)
    assert together == sorted(whole), (
        f"the shares of two processes of {what} have the items {together}, not {sorted(whole)}"
    )
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1, f"the shares of two processes of {what} have {sizes[0]} and {sizes[1]} items"


def _are_the_same(one: list[Any], other: list[Any], said: str) -> None:
    """Check that batches have the same names and the same bits."""
    assert len(one) == len(other), f"{said}: {len(other)}, not {len(one)}"
    for number, (batch, twin) in enumerate(zip(one, other, strict=True)):
        assert batch.keys() == twin.keys(), f"{said}: batch {number} has {sorted(twin)}, not {sorted(batch)}"
        for name, value in batch.items():
            if isinstance(value, torch.Tensor):
                same = value.dtype == twin[name].dtype and torch.equal(value, twin[name])
                assert same, f'{said}: "{name}" of batch {number} differs'


def _have_an_index(batches: list[Any], what: str) -> None:
    """Check that each batch has the numbers of its items, one for each."""
    for batch in batches:
        assert isinstance(batch, Mapping), f"{what} yields {type(batch).__name__}, not a mapping"
        index = batch.get("index")
        sound = isinstance(index, torch.Tensor) and index.ndim == 1 and not index.is_floating_point()
        assert sound, f'a batch of {what} must have "index", a tensor (B,) of whole numbers; it has {sorted(batch)}'
