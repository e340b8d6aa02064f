"""What the benchmarks of epochs of ptychography share: the engine and other programs take turns."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from trainkit import State
from trainkit.engine.build import build
from trainkit.engine.every_run.saving import Saver
from trainkit.engine.live_run import LiveRun
from trainkit.engine.loop import train
from trainkit.engine.run_folder import created

Look = Callable[[State, float], None]


class Turns:
    """Times an epoch of the engine with its checkpoint, and then one of each other; called after all other parts."""

    def __init__(self, others: Mapping[str, Iterator[float]], look: Look | None = None) -> None:
        self.others, self._look = others, look
        self.seconds: dict[str, list[float]] = {name: [] for name in ("engine", *others)}

    def on_epoch_start(self, state: State) -> None:
        self.began = time.process_time()

    def on_checkpoint(self, state: State) -> None:
        self.seconds["engine"].append(time.process_time() - self.began)
        if self._look is not None:
            self._look(state, self.seconds["engine"][-1])
        with torch.enable_grad():
            for name, epochs in self.others.items():
                self.seconds[name].append(next(epochs))


def in_turns(
    resolved: Any, others: Mapping[str, Callable[[LiveRun], Iterator[float]]], look: Look | None = None
) -> dict[str, list[float]]:
    """Return the CPU seconds of all epochs of a run ("engine"), and of as many of each other program.

    Args:
        resolved: The recipe of the run.
        others: Name -> what yields the CPU seconds of each epoch, for example of a plain loop from the same state.
        look: Is called with the state and the seconds after each epoch of the engine, off the clock.
    """
    with contextlib.ExitStack() as stack:
        run = build(resolved, stack.enter_context(created(resolved)))
        turns = Turns({name: epochs(run) for name, epochs in others.items()}, look)
        run.add("saver", Saver(run))
        run.add("turns", turns)
        train(run)
        run.emit("run_end")
    return turns.seconds


def shown(seconds: Mapping[str, list[float]], digits: int) -> str:
    """Return the minimum and the median of each program's epochs."""
    each = (f"{name} {min(s):.{digits}f} ({statistics.median(s):.{digits}f})" for name, s in seconds.items())
    return "  ".join(each)


class ByHand:
    """Patterns, probe and positions of a run as a loop written by hand has them: plain tensors and autograd."""

    def __init__(self, run: LiveRun) -> None:
        model: Any = run.state.model
        data: Any = run.state.data
        batches = list(data.evaluate("train"))
        self.amplitudes_NYX = torch.cat([batch["amplitudes"] for batch in batches])
        index_N = torch.cat([batch["index"] for batch in batches])
        self._corner_N2, self._remainder_N2 = model.motion.corner_N2[index_N], model.motion.remainder_N2[index_N]
        self.probe = torch.view_as_real(torch.from_numpy(model.reconstruction().probe_MYX)).clone().requires_grad_()
        self.peak = float(self.probe.detach().norm(dim=-1).max())
        self.probe.data /= self.peak
        self.dr_N2 = torch.zeros(len(index_N), 2, requires_grad=True)
        size = self.amplitudes_NYX.shape[1]
        self._frequency, self._along = torch.fft.fftfreq(size), torch.arange(size)

    def wave(self, place: Tensor) -> Tensor:
        """Return the probe where it meets the specimen (M, B, Y, X)."""
        shift, frequency = self._remainder_N2[place] + self.dr_N2[place], self._frequency
        turns = frequency[None, :, None] * shift[:, 0, None, None] + frequency[None, None, :] * shift[:, 1, None, None]
        ramp = torch.exp(-2j * torch.pi * turns)
        return torch.fft.ifft2(torch.fft.fft2(torch.view_as_complex(self.probe) * self.peak)[:, None] * ramp)

    def patches(self, maps: Tensor, place: Tensor) -> Tensor:
        """Return the part of each map that each pattern shows (maps, B, Y, X)."""
        rows = self._corner_N2[place, 0, None, None] + self._along[None, :, None]
        columns = self._corner_N2[place, 1, None, None] + self._along[None, None, :]
        return maps[:, rows, columns]

    def misfit(self, exit_wave: Tensor, place: Tensor) -> Tensor:
        """Return the mean over patterns of the squared differences of amplitudes."""
        far = torch.fft.fft2(exit_wave, norm="ortho")
        intensity = (far.real**2 + far.imag**2).sum(0)
        return ((intensity + 1e-9).sqrt() - self.amplitudes_NYX[place]).pow(2).sum() / len(place)
