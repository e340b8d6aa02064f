"""Trains nnU-Net 2.8 on a Decathlon folder for a number of steps, for `segmentation_quality.py`, which starts it.

It is a program of its own because it runs in an environment in which nnU-Net is installed, and trainkit need not be:

    pip install 'nnunetv2==2.8.*'      # beside a torch whose torchvision fits, or without torchvision

nnU-Net plans and preprocesses the cases, trains, and predicts the held-out ones, all as it does for its users, except
for what is given here. Data is augmented in the training process, so that its CPU time is that of a step. The last line
is JSON: CPU seconds of each step, and where the predictions are.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any, ClassVar

NUMBER, NAME = 4, "Dataset004_Cases"


def convert(data: Path, raw: Path) -> list[str]:
    """Write a Decathlon folder as nnU-Net reads it, with links to the files; return the names of the cases."""
    described = json.loads((data / "dataset.json").read_text())
    names = []
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    for entry in described["training"]:
        image, label = data / entry["image"], data / entry["label"]
        name = label.name.removesuffix(".nii.gz")
        names.append(name)
        for link, file in (
            (raw / "imagesTr" / f"{name}_0000.nii.gz", image),
            (raw / "labelsTr" / f"{name}.nii.gz", label),
        ):
            link.symlink_to(file.resolve())
    written = {
        "channel_names": {"0": "MRI"},
        "labels": {name: int(value) for value, name in described["labels"].items()},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(written))
    return names


def train(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import numpy as np
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    random.seed(options.seed)
    np.random.seed(options.seed)
    torch.manual_seed(options.seed)
    convert(options.data, folder / "raw" / NAME)
    extract_fingerprints([NUMBER], num_processes=1)
    plan_experiments([NUMBER])
    preprocess([NUMBER], configurations=("3d_fullres",), num_processes=(1,))
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # augment in this process; planning does not know 0
    torch.set_num_threads(1)
    preprocessed = folder / "preprocessed" / NAME
    (preprocessed / "splits_final.json").write_text(options.split.read_text())
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    planned = plans["configurations"]["3d_fullres"]
    if options.features:
        planned["architecture"]["arch_kwargs"]["features_per_stage"] = options.features

    class Short(nnUNetTrainer):  # type: ignore[misc]
        """The trainer with another length and, if given, AdamW instead of SGD; it times its steps."""

        seconds: ClassVar[list[float]] = []
        finished = 0.0

        def configure_optimizers(self) -> Any:
            if options.adamw is None:
                return super().configure_optimizers()
            optimizer = torch.optim.AdamW(self.network.parameters(), lr=options.adamw)
            return optimizer, torch.optim.lr_scheduler.PolynomialLR(optimizer, self.num_epochs, 0.9)

        def on_train_epoch_start(self) -> None:
            super().on_train_epoch_start()
            self.finished = time.process_time()

        def train_step(self, batch: Any) -> Any:
            done = super().train_step(batch)
            before, self.finished = self.finished, time.process_time()
            self.seconds.append(self.finished - before)  # with the batch, which is made between two steps
            return done

    dataset = json.loads((preprocessed / "dataset.json").read_text())
    trainer = Short({**plans, "continue_training": False}, "3d_fullres", 0, dataset, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch = options.epochs, options.steps_per_epoch
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    trainer.perform_actual_validation(False)
    return {
        "seconds_per_step": statistics.median(trainer.seconds),
        "parameters": sum(each.numel() for each in trainer.network.parameters()),
        "patch": planned["patch_size"],
        "batch": planned["batch_size"],
        "features": planned["architecture"]["arch_kwargs"]["features_per_stage"],
        "predictions": str(Path(trainer.output_folder, "validation")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of the Decathlon with one channel")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--split", type=Path, required=True, help='[{"train": […], "val": […]}], as trainkit writes it')
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps-per-epoch", type=int, default=30)
    parser.add_argument("--features", type=int, nargs="+", help="features of each level, if not as planned")
    parser.add_argument("--adamw", type=float, metavar="LR", help="AdamW with this learning rate instead of SGD")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.out.absolute()
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(parents=True)
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    os.environ |= {"nnUNet_compile": "f", "nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1"}
    print("JSON " + json.dumps(train(options, folder)))


if __name__ == "__main__":  # nnU-Net starts processes that import this file
    main()
