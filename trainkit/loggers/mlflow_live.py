"""A run of MLflow."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from trainkit.loggers.sink import Sink, Start

if TYPE_CHECKING:
    from trainkit.loggers.mlflow import MLflow
    from trainkit.loggers.recorder import Place

_RUN, _PARENT = "trainkit.run", "trainkit.parent"
_AT_ONCE = 100  # parameters, the most that a server takes
_LONGEST = 500  # characters of a parameter


class MLflowRun(Sink):
    """A run of MLflow, which is continued if the run is.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: MLflow) -> None:
        self.name = "MLflow" if settings.tracking_uri is None else f"MLflow at {settings.tracking_uri}"
        self._settings = settings
        self._run = ""
        self._last: dict[str, int] = {}  # value -> the last step at which an earlier start wrote it

    def open(self, start: Start) -> None:
        """Find the run of MLflow, or make it."""
        self._client = MlflowClient(self._settings.tracking_uri)
        about = start.about
        experiment = self._experiment(self._settings.experiment or start.name)
        found = self._client.search_runs([experiment], f"tags.`{_RUN}` = '{about.id}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            for name in found[0].data.metrics:
                self._last[name] = max(each.step for each in self._client.get_metric_history(self._run, name))
            return
        tags = {_RUN: about.id} | ({_PARENT: about.parent} if about.parent else {})
        self._run = self._client.create_run(experiment, tags=tags, run_name=start.folder.name).info.run_id
        params = [Param(_allowed(name), str(value)[:_LONGEST]) for name, value in about.settings.items()]
        for begin in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self._run, params=params[begin : begin + _AT_ONCE])

    def _experiment(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:  # another run made it just now
            known = self._client.get_experiment_by_name(name)
            if known is None:
                raise
            return str(known.experiment_id)

    def write(self, values: Mapping[str, float], place: Place) -> None:
        """Write the values that are not there yet. One that is not finite is left out: not every store takes it."""
        now = int(1000 * time.time())
        prefix = "step/" if place.by == "step" else ""
        named = {_allowed(prefix + name): value for name, value in values.items() if math.isfinite(value)}
        new = [
            Metric(name, value, now, place.at) for name, value in named.items() if place.at > self._last.get(name, -1)
        ]
        if new:
            self._client.log_batch(self._run, metrics=new)

    def write_text(self, name: str, markdown: str, place: Place) -> None:
        """Upload a text."""
        self._client.log_text(self._run, markdown, f"{name}-step-{place.step:08d}.md")

    def write_picture(self, name: str, image_HWC: np.ndarray[Any, Any], place: Place) -> None:
        """Upload a picture."""
        if self._settings.pictures:
            when = f"step-{place.at:08d}" if place.by == "step" else f"{place.at:04d}"
            self._client.log_image(self._run, image_HWC, f"pictures/{_allowed(name)}-{when}.png")

    def close(self, ended: str) -> None:
        """Say how the run ended."""
        status = "FAILED" if ended.startswith("failed") else "FINISHED" if ended == "finished" else "KILLED"
        self._client.log_batch(self._run, tags=[RunTag("trainkit.ended", ended[:_LONGEST])])
        self._client.set_terminated(self._run, status)


def _allowed(name: str) -> str:
    """Return a name with the characters that MLflow allows.

    Example:
        >>> _allowed('model."my key".layers[0]')
        'model._my key_.layers_0_'
    """
    return "".join(each if each.isalnum() or each in "_-. /:" else "_" for each in name)
