"""Order, hold-out, shares and batches; and the processes that prepare batches."""

from __future__ import annotations

import itertools
import os
import signal
from itertools import chain
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit import DataError, RecipeError, Workers, hold_out, in_batches, part_of, random_seed, shuffled
from trainkit.loading.kept_memory import PIECES, ArrivedBatch, KeptMemory


@given(num=st.integers(0, 300), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_an_order_is_torchs_permutation_of_a_seed_made_of_the_place(num, seed, epoch):
    torchs = torch.randperm(num, generator=torch.Generator().manual_seed(random_seed(seed, epoch)))
    assert torch.equal(shuffled(num, seed, epoch), torchs)


def test_an_order_does_not_touch_the_global_generator():
    before = torch.get_rng_state()
    shuffled(10, 3)
    hold_out(10, 0.2, 3)
    assert torch.equal(torch.get_rng_state(), before)


@given(num=st.integers(1, 200), fraction=st.floats(0, 0.9), seed=st.integers(0, 100))
def test_what_is_held_out_and_the_rest_are_everything_once_in_ascending_order(num, fraction, seed):
    train, held_out = hold_out(num, fraction, seed)
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(num))
    assert train.tolist() == sorted(train.tolist())
    assert held_out.tolist() == sorted(held_out.tolist())
    assert len(held_out) == (max(1, round(num * fraction)) if fraction else 0)


@given(num=st.integers(0, 100), world=st.integers(1, 9))
def test_shares_are_disjoint_complete_and_differ_by_at_most_one(num, world):
    shares = [part_of(torch.arange(num), rank, world).tolist() for rank in range(world)]
    assert sorted(chain(*shares)) == list(range(num))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert part_of(list(range(num)), world - 1, world) == shares[-1]


@given(num=st.integers(0, 100), size=st.integers(1, 20))
def test_batches_keep_the_order_are_few_and_differ_by_at_most_one(num, size):
    index = shuffled(num, size)
    batches = in_batches(index, size)
    assert [item for batch in batches for item in batch.tolist()] == index.tolist()
    assert len(batches) == -(-num // size)
    sizes = [len(batch) for batch in batches]
    assert max(sizes, default=0) <= size
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


class Squares:
    def __getitem__(self, place: int, /) -> dict[str, Any]:
        if place == 13:
            raise RecipeError("13 is refused")
        if place == 99:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": torch.tensor(place**2), "pid": os.getpid()}


@pytest.fixture
def workers():
    made = Workers(Squares(), 2, pin=False, advice="take fewer squares")
    yield made
    made.end()


def test_workers_give_the_batches_of_any_places_in_their_order_from_processes_that_stay(workers):
    first = list(workers([3, 1, 2, 5]))
    assert [int(batch["square"]) for batch in first] == [9, 1, 4, 25]
    second = list(workers([7, 8]))
    assert [int(batch["square"]) for batch in second] == [49, 64]
    assert {batch["pid"] for batch in second} <= {batch["pid"] for batch in first}
    assert os.getpid() not in {batch["pid"] for batch in first}


def test_places_may_have_no_end(workers):
    some = itertools.islice(workers(itertools.count(20)), 5)
    assert [int(batch["square"]) for batch in some] == [400, 441, 484, 529, 576]
    assert [int(batch["square"]) for batch in workers([1, 2])] == [1, 4]


def test_an_error_of_a_worker_is_the_same_error_here(workers):
    with pytest.raises(RecipeError, match=r"^13 is refused$"):
        list(workers([1, 13]))


class Pair(NamedTuple):
    one: torch.Tensor
    other: torch.Tensor | None


class Volumes:
    """Batches of growing size, of tensors of many kinds."""

    def __getitem__(self, place: int, /) -> dict[str, Any]:
        values = torch.arange(500 * (1 + place // 8)) + place
        transposed = values[:500].reshape(20, 25).mT
        return {
            "index": values[:2],
            "wide": values.double(),
            "half": values.to(torch.bfloat16),
            "complex": torch.complex(values.float(), -values.float()),
            "bool": values % 3 == 0,
            "empty": torch.empty(0, 3),
            "scalar": torch.tensor(place),
            "transposed": transposed,
            "expanded": values[:1].expand(4),
            "nested": [Pair(values.int(), None), {"name": str(place), "numpy": values.numpy()}],
            "twice": (values, values),
        }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        strides_are_kept = one.stride() == other.stride() or 0 in (*one.stride(), *other.stride())  # if expanded
        return one.dtype == other.dtype and strides_are_kept and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(same(*each) for each in zip(one, other, strict=True))
    return bool(one == other)


def test_batches_of_workers_are_kept_by_who_has_them_although_their_memory_is_used_again():
    made = Workers(Volumes(), 2, pin=False)
    try:
        for _ in range(6):  # what was begun and dropped
            next(made(itertools.count()))
        batches = list(made(range(40)))
        assert all(same(batch, Volumes()[place]) for place, batch in enumerate(batches))
        twice = batches[0]["twice"]
        assert twice[0] is twice[1]
        memory = made._sender._memory
        assert 2 <= len(memory._pieces) <= 2 * PIECES
        assert all(lock.acquire(block=False) for of_worker in memory._taken for lock in of_worker)
    finally:
        made.end()


def test_a_batch_has_memory_of_its_own_where_all_that_is_kept_is_in_use():
    memory = KeptMemory(1)

    def arrived(place: int) -> ArrivedBatch:
        return ForkingPickler.loads(ForkingPickler.dumps(memory.sent(Volumes()[place], 0)))

    waiting = [arrived(place) for place in range(PIECES + 2)]
    assert [each._piece for each in waiting] == [*range(PIECES), None, None]
    assert all(same(each.opened(), Volumes()[place]) for place, each in enumerate(waiting))
    dropped = arrived(7)
    assert (dropped._piece, dropped._memory.data_ptr()) == (0, memory._pieces[0, 0].data_ptr())
    del dropped
    later = arrived(30)  # larger than what is kept
    assert later._piece == 0
    assert same(later.opened(), Volumes()[30])


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_message_with_the_advice_of_the_data(workers, monkeypatch):
    looks = torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(looks, "__defaults__", (0.1,))  # torch looks every five seconds whether workers live
    with pytest.raises(DataError, match=r"process that prepares batches died .*if memory is short, take fewer squares"):
        list(workers([1, 99, 2, 3]))
