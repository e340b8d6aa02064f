"""The collection of garbage is paused where much is made that stays, and goes on afterwards."""

from __future__ import annotations

import gc

import pytest

from trainkit.garbage import not_collected


def nested_and_failing() -> None:
    with not_collected():
        with not_collected():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise RuntimeError


@pytest.mark.parametrize("is_enabled", [True, False])
def test_garbage_is_collected_afterwards_if_it_was_before_whatever_happens(is_enabled: bool) -> None:
    if not is_enabled:
        gc.disable()
    try:
        with pytest.raises(RuntimeError):
            nested_and_failing()
        assert gc.isenabled() is is_enabled
    finally:
        gc.enable()
