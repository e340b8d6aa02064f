"""Says at the beginning of a run what it runs on: device, threads, data, parameters, and when groups train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from trainkit.engine.every_run.epoch_line import BEST
from trainkit.words import after_epochs, number_of

if TYPE_CHECKING:
    from trainkit.engine.live_run import LiveRun
    from trainkit.state import Group


def introduction(run: LiveRun) -> dict[str, Any]:
    """Return what a run runs on, as values of JSON."""
    state, recipe = run.state, run.recipe
    device = state.context.device
    summary = getattr(state.data, "summary", None)
    return {
        "run_folder": state.folder,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "processes": state.context.world,
        "precision": recipe.run.precision,
        "data": str(run.resolved.tree["data"]["use"]),
        "data_summary": None if summary is None else str(summary()),
        "model": str(run.resolved.tree["model"]["use"]),
        "parameters": sum(_size(group) for group in state.groups.values()),
        "groups": {
            name: {
                "parameters": _size(group),
                "start_epoch": group.start_epoch if group.start_epoch != group.stop_epoch else None,
                "stop_epoch": group.stop_epoch if group.stop_epoch < state.epochs else None,
            }
            for name, group in state.groups.items()
            if group.parameters
        },
        "epoch": state.epoch,
        "step": state.step,
        "epochs": state.epochs,
        "steps": state.steps,
        "steps_per_epoch": state.steps_per_epoch,
        "monitor": state.monitor.metric,
        "mode": state.monitor.mode,
    }


def in_words(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that say it to people."""
    threads, processes = facts["threads"], facts["processes"]
    device = facts["device"] + (f" ({facts['device_name']})" if facts["device_name"] else "")
    each = " each" if processes > 1 else ""
    several = f", {processes} processes" if processes > 1 else ""
    yield f"device:     {device}{several}, {number_of(threads, 'thread')}{each}, {facts['precision']}"
    yield f"data:       {facts['data']}" + (f", {facts['data_summary']}" if facts["data_summary"] else "")
    yield f"model:      {facts['model']}, {number_of(facts['parameters'], 'parameter')}"
    width = max((len(name) for name in facts["groups"]), default=0)
    sizes = [f"{group['parameters']:,}" for group in facts["groups"].values()]
    for number, (name, group) in enumerate(facts["groups"].items()):
        title = "groups:" if not number else ""
        yield f"{title:<12}{name:<{width}}  {sizes[number]:>{max(map(len, sizes))}}  {_when(group)}"
    per_epoch = number_of(facts["steps_per_epoch"], "step")
    length = number_of(facts["epochs"], "epoch") + f" of {per_epoch}"
    yield f"length:     {length if facts['steps'] is None else number_of(facts['steps'], 'step') + f', {length}'}"
    better = "lower" if facts["mode"] == "min" else "higher"
    yield f"monitor:    {facts['monitor']}, {better} is better: {BEST} marks it"
    if facts["step"]:
        yield f"continues:  after {number_of(facts['epoch'], 'epoch')}, {number_of(facts['step'], 'step')}"


def _when(group: Mapping[str, Any]) -> str:
    start, stop = group["start_epoch"], group["stop_epoch"]
    if start is None:
        return "does not train"
    begins = f"trains {after_epochs(start)}" if start else "trains from the start"
    return begins if stop is None else f"{begins}, until {number_of(stop, 'epoch')} are over"


def _size(group: Group) -> int:
    return sum(each.numel() for each in group.parameters.values())
