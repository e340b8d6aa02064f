"""The collection of garbage is paused where much is made that stays, and goes on afterwards."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from clients import recorder
from clients.toy_run import run

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


def test_it_is_paused_while_pictures_are_made_and_not_while_a_run_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found: dict[str, bool] = {}
    recorder.forget()
    for event in ("step_end", "picture", "epoch_end", "run_end"):
        recorder.ACTIONS[event] = lambda state, event=event: found.setdefault(event, gc.isenabled())  # type: ignore[misc]
    try:
        run()
    finally:
        recorder.forget()
    assert found == {"step_end": True, "picture": False, "epoch_end": True, "run_end": True}
    assert gc.isenabled()
