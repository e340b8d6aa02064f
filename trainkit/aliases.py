"""Names under which people know components from other programs, and what they are called here."""

from __future__ import annotations

import re
from collections.abc import Collection

_ALIASES = {
    # schedules
    "plateau": "reduce_on_plateau",
    "reducelronplateau": "reduce_on_plateau",
    "cosineannealing": "cosine",
    "cosineannealinglr": "cosine",
    "cosinedecay": "cosine",
    "onecyclelr": "one_cycle",
    "1cycle": "one_cycle",
    "poly": "polynomial",
    "polylr": "polynomial",
    "polylrscheduler": "polynomial",
    "polynomiallr": "polynomial",
    "polynomialdecay": "polynomial",
    "constant": "none",
    "off": "none",
    # losses and metrics
    "diceloss": "dice",
    "dicemetric": "dice",
    "dicescore": "dice",
    "dsc": "dice",
    "diceceloss": "dice_ce",
    "focalloss": "focal",
    "tverskyloss": "tversky",
    "poissonnll": "poisson",
    "poissonnllloss": "poisson",
    "losspoissn": "poisson",
    "totalvariation": "tv",
    "hausdorff95": "hd95",
    "surfacedicemetric": "surface_dice",
    "nsd": "surface_dice",
    "normalizedsurfacedice": "surface_dice",
    # models and data
    "plainconvunet": "plain_unet",
    "residualencoderunet": "resenc_unet",
    "resencunet": "resenc_unet",
    "nnunet": "msd",
    "decathlon": "msd",
    "decathlondataset": "msd",
    # the rest
    "slidingwindowinferer": "sliding_window",
    "slidingwindowinference": "sliding_window",
    "simpleinferer": "plain",
    "earlystop": "early_stopping",
    "earlystophandler": "early_stopping",
    "gradientclipping": "clip_gradients",
    "clipgradnorm": "clip_gradients",
    "summarywriter": "tensorboard",
    "tensorboardlogger": "tensorboard",
    "wandblogger": "wandb",
    "w&b": "wandb",
    "weightsandbiases": "wandb",
    "mlflowlogger": "mlflow",
    "csvlogger": "csv",
}
"""Other name, in small letters and without marks -> name here. A name stands here only if both mean the same."""


_STEP_LR = 'use = "torch", name = "StepLR", arguments = { step_size = 30 }'
_MULTI_STEP_LR = 'use = "torch", name = "MultiStepLR", arguments = { milestones = [30, 60] }'
_EXPONENTIAL_LR = 'use = "torch", name = "ExponentialLR", arguments = { gamma = 0.95 }'
_CYCLIC_LR = 'use = "torch", name = "CyclicLR", arguments = { base_lr = 1e-4, max_lr = 1e-3, cycle_momentum = false }'
_WARM_UP = 'use = "cosine", warmup = 5; every schedule has a warm-up of its own, in ticks'
_OF_FUNCTIONS = "it is made of functions or of other schedules; here, a class with a method `at`: docs/own_parts.md"
_SQUARES = 'squares of differences are taken by "amplitude" (of amplitudes) and "intensity", for patterns'
_ABSOLUTE = 'no loss takes absolute differences from the data; "l1" is a regulariser, of the phases of an object'
_CROSS_ENTROPY = 'use = "dice_ce", dice_weight = 0.0; it is binary for each class where classes overlap'
_JACCARD = 'use = "tversky", false_positives = 1.0, false_negatives = 1.0; with these weights it is the Jaccard index'
_IOU = 'use = "dice"; both rank results alike, IoU = Dice / (2 − Dice)'
_SLICES = 'use = "ptychography", slices = 6, thickness_angstrom = 80.0; without both, it has one slice'
_SCALED = 'use = "scaled_steps"; it divides gradients by the illumination, as this engine does'
_SAVING = "checkpoint.best = 1; the table [checkpoint] says what is kept, and no hook is needed"
_AVERAGE = "ema.decay = 0.999; an exponential average of the weights is a table of its own, and no hook"
_SHOWN = "no hook is needed: every run shows its progress, and --quiet hides it"
_LOGGED = "no hook is needed: every run logs its learning rates, as lr/GROUP"
_VOLUMES = "volumes that were prepared are always cached: choose the component that reads your files"

_WAYS = {
    "trainkit.schedulers": {
        "step": _STEP_LR,
        "steplr": _STEP_LR,
        "multistep": _MULTI_STEP_LR,
        "multisteplr": _MULTI_STEP_LR,
        "exponential": _EXPONENTIAL_LR,
        "exponentiallr": _EXPONENTIAL_LR,
        "exponentialdecay": _EXPONENTIAL_LR,
        "cyclic": _CYCLIC_LR,
        "cycliclr": _CYCLIC_LR,
        "constantlr": 'use = "torch", name = "ConstantLR"; "none" keeps the learning rate as it is',
        "cosineannealingwarmrestarts": 'use = "torch", name = "CosineAnnealingWarmRestarts", arguments = { T_0 = 10 }',
        "linearlr": 'use = "torch", name = "LinearLR"; for a warm-up: warmup = 5, in any schedule',
        "linear": 'use = "polynomial", power = 1.0; it falls in a straight line',
        "constantwithwarmup": 'use = "none", warmup = 5',
        "warmup": _WARM_UP,
        "linearwarmup": _WARM_UP,
        **dict.fromkeys(
            (
                "warmupcosine",
                "cosinewarmup",
                "cosinewithwarmup",
                "warmupcosineschedule",
                "linearwarmupcosineannealing",
                "linearwarmupcosineannealinglr",
            ),
            'use = "cosine", warmup = 5',
        ),
        **dict.fromkeys(("lambdalr", "multiplicativelr", "sequentiallr", "chainedscheduler"), _OF_FUNCTIONS),
    },
    "trainkit.optimizers": {
        **{
            name.lower(): f'use = "torch", name = "{name}"'
            for name in ("RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Adafactor", "Rprop")
        },
        "nesterov": 'use = "sgd", momentum = 0.9, nesterov = true',
        **dict.fromkeys(("epie", "rpie", "lsqml"), _SCALED),
    },
    "trainkit.losses": {
        **dict.fromkeys(("mse", "mseloss", "l2", "l2loss"), _SQUARES),
        **dict.fromkeys(("mae", "l1loss"), _ABSOLUTE),
        **dict.fromkeys(("ce", "crossentropy", "crossentropyloss", "bce", "bcewithlogitsloss"), _CROSS_ENTROPY),
        **dict.fromkeys(("iou", "jaccard", "jaccardloss"), _JACCARD),
        "dcandceloss": 'use = "dice_ce"; with batch_dice = true, if plans.json has it',
        "dicefocalloss": 'two losses, each in a table of its own: "dice" and "focal"',
        "losssingle": 'use = "amplitude"; where dp_pow is 1, use = "intensity"',
        "losssparse": 'use = "l1", weight = 1e-2; it compares no patterns, so it stands beside a loss that does',
    },
    "trainkit.metrics": {
        **dict.fromkeys(("iou", "meaniou", "jaccard"), _IOU),
        **dict.fromkeys(
            ("hausdorff", "hausdorffdistance", "hausdorffdistancemetric"),
            'use = "hd95"; it takes the 95th percentile of distances, and not the largest one',
        ),
        **dict.fromkeys(("frc", "fsc"), "`trainkit resolution RUN` correlates the objects of two halves of the data"),
    },
    "trainkit.models": {
        **dict.fromkeys(
            ("nnunet", "nnunetv2"),
            'use = "dynunet"; for weights of nnU-Net, its own classes: "plain_unet", "resenc_unet"',
        ),
        **{
            name.lower(): f'use = "monai_network", name = "{name}"'
            for name in ("BasicUNet", "BasicUNetPlusPlus", "HighResNet", "MedNeXt", "SegResNetDS")
        },
        "monai": 'use = "monai_network", name = "BasicUNet"; any of its networks for segmentation, by name',
        **dict.fromkeys(("unet3d", "3dunet"), 'use = "unet"; all networks take volumes'),
        **dict.fromkeys(("multislice", "ptychomodel"), _SLICES),
    },
    "trainkit.data": {
        **dict.fromkeys(
            ("hdf5", "h5"),
            '"diffraction_hdf5" reads diffraction patterns; `trainkit init FILE` writes a recipe for them',
        ),
        **dict.fromkeys(("dataset", "cachedataset", "persistentdataset", "smartcachedataset"), _VOLUMES),
    },
    "trainkit.hooks": {
        **dict.fromkeys(("modelcheckpoint", "checkpoint", "checkpointsaver"), _SAVING),
        **dict.fromkeys(("ema", "emaweightaveraging", "weightaveraging", "stochasticweightaveraging", "swa"), _AVERAGE),
        **dict.fromkeys(("progressbar", "richprogressbar", "tqdmprogressbar", "statshandler"), _SHOWN),
        **dict.fromkeys(("learningratemonitor", "lrmonitor", "lrschedulehandler"), _LOGGED),
        "backbonefinetuning": "groups.encoder.start_epoch = 5; a group that starts later needs no hook",
        "gradientaccumulationscheduler": "run.accumulate = 2; no hook is needed",
        "timer": 'run.time_limit = "11h45m"; no hook is needed',
        "validationhandler": "validation.every_epochs = 5; no hook is needed",
        "clipgradvalue": 'use = "clip_gradients"; it clips the norm of gradients, and not each value',
    },
}
"""Kind -> name, as above, for which there is no component here -> what to write instead.

What stands before a semicolon can be written into a recipe: settings of the component (beginning with ``use``), or of
another table. What has no "=" there is a sentence.
"""


def way_to(kind: str, name: str) -> str | None:
    """Return what a message advises for a name that is no component here; None: the name is not known.

    Args:
        kind: The group of entry points, for example ``trainkit.schedulers``.
        name: The name.

    Example:
        >>> way_to("trainkit.optimizers", "RMSprop")
        'write use = "torch", name = "RMSprop"'
    """
    way = _WAYS.get(kind, {}).get(_plain(name))
    return f"write {way}" if way is not None and " = " in way.partition(";")[0] else way


def known_as(name: str, known: Collection[str]) -> str | None:
    """Return the known name that another one stands for; None: there is none, or more than one.

    Capitals and marks make no difference, so ``UNet`` stands for ``unet``, and ``one-cycle`` for ``one_cycle``.

    Args:
        name: A name that is not known.
        known: The known ones.

    Example:
        >>> known_as("ReduceLROnPlateau", ["cosine", "reduce_on_plateau"])
        'reduce_on_plateau'
        >>> known_as("ReduceLROnPlateau", ["cosine"])
    """
    plain = _plain(name)
    alike = {each for each in known if _plain(each) == plain}
    if not alike and (other := _ALIASES.get(plain)) in known:
        return other
    return alike.pop() if len(alike) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[-_ .]", "", name).lower()
