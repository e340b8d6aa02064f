"""Says what somebody may have meant who gave a command or an option that there is not."""

from __future__ import annotations

import click

from trainkit.errors import did_you_mean

_COMMANDS = {
    "train": "run",
    "fit": "run",
    "start": "run",
    "sweep": "run",
    "continue": "resume",
    "restart": "resume",
    "search": "tune",
    "optimize": "tune",
    "hpo": "tune",
    "validate": "check",
    "lint": "check",
    "test": "evaluate",
    "eval": "evaluate",
    "score": "evaluate",
    "infer": "predict",
    "inference": "predict",
    "apply": "predict",
    "info": "inspect",
    "cat": "inspect",
    "schedule": "plan",
    "preview": "plan",
    "explain": "show",
    "describe": "show",
    "components": "plugins",
    "models": "plugins",
    "losses": "plugins",
    "examples": "recipes",
    "configs": "recipes",
    "sbatch": "slurm",
    "submit": "slurm",
    "new": "init",
    "plugin": "new-plugin",
    "create-plugin": "new-plugin",
    "cookiecutter": "new-plugin",
    "create": "init",
    "ls": "runs",
    "list": "runs",
    "history": "runs",
    "diff": "compare",
}
"""Word of other programs -> the command here."""

_SETTINGS = {
    "lr": "optimizer.lr",
    "learning-rate": "optimizer.lr",
    "weight-decay": "optimizer.weight_decay",
    "optimizer": "optimizer.use",
    "scheduler": "scheduler.use",
    "warmup": "scheduler.warmup",
    "model": "model.use",
    "loss": "losses.data.use",
    "data": "data.path",
    "data-path": "data.path",
    "data-dir": "data.path",
    "batch-size": "data.batch_size",
    "batchsize": "data.batch_size",
    "workers": "data.workers",
    "num-workers": "data.workers",
    "num-epochs": "run.epochs",
    "max-epochs": "run.epochs",
    "max-steps": "run.steps",
    "out": "run.dir",
    "output": "run.dir",
    "output-dir": "run.dir",
    "out-dir": "run.dir",
    "gpu": "run.device",
    "gpus": "run.device",
    "cuda": "run.device",
    "amp": "run.precision",
    "fp16": "run.precision",
    "bf16": "run.precision",
    "save-every": "checkpoint.every_epochs",
    "save-every-epoch": "checkpoint.every_epochs",
    "save-every-epochs": "checkpoint.every_epochs",
    "keep-last": "checkpoint.keep_last",
    "monitor": "monitor.metric",
    "ema": "ema.decay",
}
"""Option of other programs, without hyphens before it -> the key of a recipe."""

_INSTEAD = {
    "config": "give the recipe as an argument: trainkit {command} RECIPE",
    "cfg": "give the recipe as an argument: trainkit {command} RECIPE",
    "resume": "to continue a run: trainkit resume RUN",
    "resume-from": "to continue a run: trainkit resume RUN",
    "resume-from-checkpoint": "to continue a run: trainkit resume RUN",
    "checkpoint": "to continue a run: trainkit resume CHECKPOINT",
    "ckpt": "to continue a run: trainkit resume CHECKPOINT",
    "dry-run": "to see what would happen: trainkit check RECIPE, or trainkit plan RECIPE",
    "debug": "to see the traceback of an error: trainkit --traceback {command} …",
    "traceback": "it stands before the command: trainkit --traceback {command} …",
    "verbose": "all that is said is shown, and kept in log.txt of the run folder",
    "list": "to list all components: trainkit plugins",
}
"""Option of other programs -> what to do instead."""


def command_meant(word: str, known: list[str]) -> str:
    """Return a hint for a command that there is not."""
    meant = _COMMANDS.get(word.lower())
    return f'did you mean "{meant}"?' if meant in known else did_you_mean(word, known)


def option_meant(error: click.NoSuchOption) -> str | None:
    """Return a hint for an option that there is not; None: nothing better is known than what click says."""
    context = error.ctx
    name = error.option_name.lstrip("-").replace("_", "-")
    command = "" if context is None else str(context.info_name)
    if name in _INSTEAD:
        return _INSTEAD[name].format(command=command)
    takes_settings = context is not None and any(each.name == "sets" for each in context.command.params)
    if not takes_settings:
        return None
    key = _SETTINGS.get(name)
    if key is None:
        from trainkit.recipe.fields import settings_fields
        from trainkit.recipe.root import RunSettings

        if name.replace("-", "_") in settings_fields(RunSettings):
            key = f"run.{name.replace('-', '_')}"
    return None if key is None else f"it is a setting of the recipe: --set {key}=…"
