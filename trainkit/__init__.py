"""The public API of trainkit: everything that a plugin imports from it.

Importing it does not import torch. Names that not every plugin needs are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.checkpoint.file import read as read_checkpoint
from trainkit.contracts import (
    HARMLESS,
    INPUT_PATH,
    KEEPS_VALUES,
    Agreement,
    Batch,
    BuiltModel,
    Calibration,
    Calibrator,
    Combine,
    Component,
    Context,
    Data,
    Depth,
    EpochSize,
    Evaluation,
    Evaluator,
    ExampleBatch,
    Exporter,
    Halver,
    HeldOut,
    HeldOutEvaluation,
    Hook,
    Inference,
    LiveData,
    LiveEvaluator,
    LiveMetric,
    LivePredictor,
    Logger,
    Loss,
    Member,
    Memory,
    Metric,
    MetricName,
    Model,
    Monitor,
    OpenedRun,
    Optimizer,
    Outputs,
    Planner,
    Point,
    PredictionItem,
    Predictor,
    Problem,
    Progress,
    Recognised,
    Scheduler,
    StepMemory,
    SummedLoss,
    TrainedModel,
    Wait,
    component,
)
from trainkit.errors import (
    CheckpointError,
    ComponentError,
    DataError,
    DeviceError,
    NonFiniteError,
    PartError,
    RecipeError,
    TrainkitError,
    did_you_mean,
)
from trainkit.events import Live
from trainkit.lazy import lazy_names
from trainkit.processes.exchange import Exchange
from trainkit.randomness import random_seed
from trainkit.registry import RegisteredComponent, registered
from trainkit.state import Group, State

if TYPE_CHECKING:
    from trainkit.cpus import usable_cpus
    from trainkit.curvature import curvature_of, set_curvature
    from trainkit.drafting import RecipeText
    from trainkit.drawing.palette import SAFE_ON_DARK, SAFE_ON_WHITE
    from trainkit.drawing.scale_bar import ScaleBar, scale_bar
    from trainkit.drawing.text import picture_font
    from trainkit.files.facts import FileFacts
    from trainkit.files.guard import guarded_reading
    from trainkit.files.sharing import make_shared, share
    from trainkit.files.tables import write_json
    from trainkit.files.writing import remove_unfinished, written_whole
    from trainkit.interactive.run import Run, open_run
    from trainkit.loading.order import hold_out, in_batches, part_of, shuffled
    from trainkit.loading.workers import Workers
    from trainkit.loggers.in_background import InBackground
    from trainkit.loggers.recorder import Place
    from trainkit.loggers.sink import Sink, Start
    from trainkit.memory import free_host_memory
    from trainkit.printable import without_controls
    from trainkit.recipe.root import Recipe, RunSettings
    from trainkit.recipe.structure import structure_settings
    from trainkit.recomputing import recompute
    from trainkit.signatures import Argument, argument_problems, derives_from, read_arguments, read_classes
    from trainkit.words import bytes_in_words, shape_in_words, some_of

    __version__: str
else:  # hidden from type checkers, which would accept any name from a module that has __getattr__
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            ".cpus": ("usable_cpus",),
            ".curvature": ("curvature_of", "set_curvature"),
            ".drafting": ("RecipeText",),
            ".drawing.palette": ("SAFE_ON_DARK", "SAFE_ON_WHITE"),
            ".drawing.scale_bar": ("ScaleBar", "scale_bar"),
            ".drawing.text": ("picture_font",),
            ".files.facts": ("FileFacts",),
            ".files.guard": ("guarded_reading",),
            ".files.sharing": ("make_shared", "share"),
            ".files.tables": ("write_json",),
            ".files.writing": ("remove_unfinished", "written_whole"),
            ".interactive.run": ("Run", "open_run"),
            ".loggers.in_background": ("InBackground",),
            ".loggers.recorder": ("Place",),
            ".loggers.sink": ("Sink", "Start"),
            ".loading.order": ("hold_out", "in_batches", "part_of", "shuffled"),
            ".loading.workers": ("Workers",),
            ".memory": ("free_host_memory",),
            ".recomputing": ("recompute",),
            ".recipe.root": ("Recipe", "RunSettings"),
            ".recipe.structure": ("structure_settings",),
            ".signatures": ("Argument", "argument_problems", "derives_from", "read_arguments", "read_classes"),
            ".version": ("__version__",),
            ".printable": ("without_controls",),
            ".words": ("bytes_in_words", "shape_in_words", "some_of"),
        },
    )

__all__ = [
    "HARMLESS",
    "INPUT_PATH",
    "KEEPS_VALUES",
    "SAFE_ON_DARK",
    "SAFE_ON_WHITE",
    "Agreement",
    "Argument",
    "Batch",
    "BuiltModel",
    "Calibration",
    "Calibrator",
    "CheckpointError",
    "Combine",
    "Component",
    "ComponentError",
    "Context",
    "Data",
    "DataError",
    "Depth",
    "DeviceError",
    "EpochSize",
    "Evaluation",
    "Evaluator",
    "ExampleBatch",
    "Exchange",
    "Exporter",
    "FileFacts",
    "Group",
    "Halver",
    "HeldOut",
    "HeldOutEvaluation",
    "Hook",
    "InBackground",
    "Inference",
    "Live",
    "LiveData",
    "LiveEvaluator",
    "LiveMetric",
    "LivePredictor",
    "Logger",
    "Loss",
    "Member",
    "Memory",
    "Metric",
    "MetricName",
    "Model",
    "Monitor",
    "NonFiniteError",
    "OpenedRun",
    "Optimizer",
    "Outputs",
    "PartError",
    "Place",
    "Planner",
    "Point",
    "PredictionItem",
    "Predictor",
    "Problem",
    "Progress",
    "Recipe",
    "RecipeError",
    "RecipeText",
    "Recognised",
    "RegisteredComponent",
    "Run",
    "RunSettings",
    "ScaleBar",
    "Scheduler",
    "Sink",
    "Start",
    "State",
    "StepMemory",
    "SummedLoss",
    "TrainedModel",
    "TrainkitError",
    "Wait",
    "Workers",
    "argument_problems",
    "bytes_in_words",
    "component",
    "curvature_of",
    "derives_from",
    "did_you_mean",
    "free_host_memory",
    "guarded_reading",
    "hold_out",
    "in_batches",
    "lazy_names",
    "make_shared",
    "open_run",
    "part_of",
    "picture_font",
    "random_seed",
    "read_arguments",
    "read_checkpoint",
    "read_classes",
    "recompute",
    "registered",
    "remove_unfinished",
    "scale_bar",
    "set_curvature",
    "shape_in_words",
    "share",
    "shuffled",
    "some_of",
    "structure_settings",
    "usable_cpus",
    "without_controls",
    "write_json",
    "written_whole",
]
