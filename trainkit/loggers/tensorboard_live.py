"""Writes what a run logs into TensorBoard's event files."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from torch.utils.tensorboard.summary import text

from trainkit.drawing.png import png
from trainkit.loggers import event_files
from trainkit.loggers.event_writers import EventWriters, Make
from trainkit.loggers.recorder import By, Place, Recorder

if TYPE_CHECKING:
    import numpy as np

    from trainkit.loggers.tensorboard import TensorBoard
    from trainkit.state import About, State

FOLDER = "tensorboard"
_TRAIN = "train"
_OF_STEPS = "steps"  # the writer of earlier versions for values of single steps
_OWN = ("lr", "grad_norm", "stages", "time", "best")
_HPARAMS, _AT_END = "_hparams_/", "pictures_at_end/"
_TEXTS = ("recipe/text_summary", "resume/text_summary")


class LiveTensorBoard(Recorder):
    """The open writers of a run, one for each split.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: TensorBoard) -> None:
        super().__init__(settings.every_steps, settings.gradient_norm_every_steps)
        self._writers: EventWriters | None = None  # before the run begins, or if it could not be cut back
        self._about: About

    def begin(self, state: State) -> None:
        """Keep of the event files what belongs to the steps that are finished, and write the hyperparameters."""
        self._about, folder = state.about, state.folder / FOLDER
        source = (state.about.continues or state.folder) / FOLDER

        def keeps(writer: str, tag: str, at: int) -> bool:
            return _keeps(writer, tag, at, state.epoch, state.step)

        event_files.carry_over(source, folder, keeps)
        names = dict.fromkeys([_TRAIN, *self._about.splits])
        for name in names:
            event_files.order_before_now(folder / name)
        self._writers = EventWriters(folder, names)
        self._put_to_train(_session_start(self._about, state), None)

    def write_values(self, values: Mapping[str, float], place: Place) -> None:
        """Write values into the charts of epochs or of steps."""
        numbers = {name: float(value) for name, value in values.items()}
        self._put(partial(_of_writers, numbers, place.by, self._about), place.at)

    def write_text(self, name: str, markdown: str, place: Place) -> None:
        """Write a text over the step."""
        self._put_to_train(text(name, markdown), place.step)  # type: ignore[no-untyped-call]

    def write_pictures(
        self,
        pictures: Mapping[str, np.ndarray[Any, Any]],
        ranks: Mapping[str, int],
        place: Place,
        *,
        of_end: bool = False,
    ) -> None:
        """Write pictures under names that sort by what they are worth."""
        above = _AT_END if of_end else "step/pictures/" if place.by == "step" else "pictures/"
        for name, image_HWC in pictures.items():
            tag = f"{above}{ranks.get(name, 50):02d} {name}"
            height, width, colours = image_HWC.shape
            shown = Summary.Image(height=height, width=width, colorspace=colours, encoded_image_string=png(image_HWC))
            self._put_to_train(Summary(value=[Summary.Value(tag=tag, image=shown)]), place.at)

    def flush(self, state: State) -> None:
        """Bring everything to the disk."""
        if self._writers is not None:
            self._writers.flush()

    def close(self, state: State) -> None:
        """Say how the run ended, and close the writers."""
        if self._writers is not None:
            self._put_to_train(_session_end(state), None)
            self._writers.close()
            self._writers = None

    def _put_to_train(self, summary: Summary, at: int | None) -> None:
        self._put(lambda: {_TRAIN: summary}, at)

    def _put(self, make: Make, at: int | None) -> None:
        if self._writers is not None:
            self._writers.put(make, at)


def _of_writers(values: Mapping[str, float], by: By, about: About) -> dict[str, Summary]:
    """Return writer -> values: one record for all of them."""
    found: dict[str, list[Summary.Value]] = {}
    for name, value in values.items():
        writer, tag = _place_of(name, values, about)
        tag = f"step/{tag}" if by == "step" else tag
        found.setdefault(writer, []).append(Summary.Value(tag=tag, simple_value=value))
    return {writer: Summary(value=each) for writer, each in found.items()}


def _keeps(writer: str, tag: str, at: int, epoch: int, step: int) -> bool:
    """Return whether what was written belongs to a run of which some epochs and steps are finished.

    Args:
        writer: The name of the writer.
        tag: The tag.
        at: Its place on its axis.
        epoch: Number of finished epochs.
        step: Number of finished steps.
    """
    if tag.startswith((_HPARAMS, _AT_END)):
        return False  # every start writes the first anew, and every end the second
    if tag in _TEXTS:
        return at < step
    if writer == _OF_STEPS or tag.startswith("step/"):
        return at <= step
    return at < epoch or (at == epoch and not tag.startswith("stages/"))  # these marks are written again


def _place_of(name: str, names: Collection[str], about: About) -> tuple[str, str]:
    """Return the writer and the tag of a value.

    Args:
        name: Its full name.
        names: The names of all values that are written with it.
        about: What the run computes.

    Example:
        >>> from trainkit.state import About
        >>> about, names = About(losses=("overlap",), splits=("val",)), ["val/dice", "val/dice_liver"]
        >>> [_place_of(each, names, about) for each in ("train/loss", *names, "lr/encoder", "scan/scale")]
        ... # doctest: +NORMALIZE_WHITESPACE
        [('train', 'loss/total'), ('val', 'metrics/dice'), ('val', 'metrics_dice/liver'), ('train', 'lr/encoder'),
         ('train', 'values/scan/scale')]
    """
    split, _, short = name.partition("/")
    if split in _OWN and short:
        return _TRAIN, name
    if split != _TRAIN and split not in about.splits:
        return _TRAIN, f"values/{name}"
    if short == "loss":
        return split, "loss/total"
    if short in about.losses:
        return split, f"loss/{short}" if short != "total" else "loss/total (one of the losses)"
    own = [each.partition("/")[2] for each in names if each.startswith(f"{split}/")]
    above = min((each for each in own if each and short.startswith(f"{each}_")), key=len, default=None)
    if above is None or above in about.losses or above == "loss":
        return split, f"metrics/{short}"
    return split, f"metrics_{above}/{short[len(above) + 1 :]}"


# ---- the page of hyperparameters ------------------------------------------------------------------------------------


def _hyperparameters(about: About, state: State) -> Iterator[tuple[str, bool | float | str]]:
    """Yield the settings, and when and at which rate each group trains.

    No run says which columns the table has, because TensorBoard would take those of one run for all. So it gathers
    them from all runs, and shows those first in which the runs differ. Its values are those of the train writer: the
    first ones are named ``best/…``.
    """
    settings = dict(about.settings)
    for name, group in state.groups.items():
        settings.setdefault(f"groups.{name}.lr", settings.get("optimizer.lr"))
        settings[f"groups.{name}.start_epoch"] = "never" if group.start_epoch is None else str(group.start_epoch)
        settings[f"groups.{name}.stop_epoch"] = group.stop_epoch
    for name, value in settings.items():
        if isinstance(value, bool | int | float | str):
            yield name, value
        elif isinstance(value, list | tuple):
            yield name, str(list(value))


def _summary(tag: str, **content: Any) -> Summary:
    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
    return Summary(
        value=[Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)]
    )


def _session_start(about: About, state: State) -> Summary:
    """Return the record of a run's hyperparameters."""
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in _hyperparameters(about, state):
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[name].number_value = value
        else:
            info.hparams[name].string_value = value
    return _summary(metadata.SESSION_START_INFO_TAG, session_start_info=info)


def _session_end(state: State) -> Summary:
    status = "STATUS_FAILURE" if state.failed else "STATUS_SUCCESS"
    info = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value(status), end_time_secs=time.time())
    return _summary(metadata.SESSION_END_INFO_TAG, session_end_info=info)
