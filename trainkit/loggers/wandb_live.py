"""The files of a run of Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainkit.loggers.sink import Sink, Start

if TYPE_CHECKING:
    from trainkit.loggers.recorder import Place
    from trainkit.loggers.wandb import WandB

_AXES = {"epoch": "finished_epochs", "step": "finished_steps"}


class WandBRun(Sink):
    """A run of W&B in offline mode.

    Args:
        settings: The settings.
    """

    name = "W&B"

    def __init__(self, settings: WandB) -> None:
        self._settings = settings
        self._known: set[str] = set()  # names whose x-axis is set

    def open(self, start: Start) -> None:
        """Begin files for this start of the run."""
        import wandb  # in the thread: it starts a process of its own, and takes long

        self._wandb: Any = wandb
        about = start.about
        config = {name.replace(".", "/"): _plain(value) for name, value in about.settings.items()}
        config |= {"trainkit/run": about.id} | ({"trainkit/parent": about.parent} if about.parent else {})
        self._run: Any = wandb.init(
            project=self._settings.project or start.name,
            name=start.folder.name,
            id=about.id,
            resume="allow",  # said in the files, for the upload
            dir=str(start.folder),
            config=config,
            mode="offline",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_meta=True, x_disable_stats=True
            ),
        )

    def write(self, values: Mapping[str, float], place: Place) -> None:
        """Write values over their x-axis."""
        self._log(dict(values), place)

    def write_text(self, name: str, markdown: str, place: Place) -> None:
        """Write a text as a file of the run."""
        path = Path(self._run.dir, f"{name}-step-{place.step:08d}.md")
        path.write_text(markdown, encoding="utf-8")
        self._run.save(str(path), base_path=self._run.dir, policy="end")

    def write_picture(self, name: str, image_HWC: np.ndarray[Any, Any], place: Place) -> None:
        """Write a picture over its x-axis."""
        if self._settings.pictures:
            self._log({f"pictures/{name}": self._wandb.Image(image_HWC)}, place)

    def close(self, ended: str) -> None:
        """Say how the run ended, and complete the files."""
        self._run.summary["trainkit/ended"] = ended
        self._run.finish(exit_code=int(ended.startswith("failed")))

    def _log(self, values: Mapping[str, Any], place: Place) -> None:
        axis, prefix = _AXES[place.by], "step/" if place.by == "step" else ""
        named = {prefix + name: value for name, value in values.items()}
        for name in named.keys() - self._known:
            self._run.define_metric(name, step_metric=axis)
            self._known.add(name)
        self._run.log({**named, axis: place.at})


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value)
