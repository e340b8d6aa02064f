"""Trains PtyRAD 1.0 on a simulated scan, an iteration whenever it is asked to: for `with_ptyrad.py`.

It is a program of its own because it runs in an environment in which PtyRAD is installed, and trainkit need not be:

    pip install 'ptyrad==1.0.*'        # with Python 3.12 or newer

One probe mode, object, probe and positions on from the first iteration. Of several slices, it computes what the recipe
``ptycho_thick`` does, as PtyRAD has it: the loss of amplitudes with a sparse phase, and after each iteration the
constraints of its own example of a thick crystal (PrScO3), without the blur across the beam that is its default. Of one
slice, its own losses and constraints are as they come. Each line that comes in is answered by the CPU seconds of an
iteration. At the end it writes phase and positions.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

SECONDS = "CPU seconds: "


def parameters(data: Path, slices: int, batch: int, iterations: int) -> dict[str, Any]:
    """Return PtyRAD's settings for a file that says in its attributes how it was simulated."""
    import h5py

    with h5py.File(data) as file:
        told = {name: getattr(value, "tolist", lambda value=value: value)() for name, value in file.attrs.items()}
    rows, columns = told["scan_shape"]
    size = told["detector_shape"][0]
    if slices == 1:
        told["thickness_A"] = 3.0  # of no account
    always = {"start_iter": 1, "step": 1, "end_iter": None}
    settings: dict[str, Any] = {
        "init_params": {
            "probe_illum_type": "electron",
            "probe_kv": told["energy_eV"] / 1e3,
            "probe_conv_angle": told["semiangle_rad"] * 1e3,
            "probe_aberrations": {"C10": told["C10_A"]},
            "probe_pmode_max": 1,
            "pos_N_scan_slow": rows,
            "pos_N_scan_fast": columns,
            "pos_scan_step_size": told["scan_step_A"],
            "obj_Nlayer": slices,
            "obj_slice_thickness": told["thickness_A"] / slices,
            "meas_Npix": size,
            "meas_calibration": {"mode": "dk", "value": told["dk_invA"]},
            "meas_reshape": [rows * columns, size, size],
            "meas_params": {"path": str(data), "key": "intensity"},
        },
        "recon_params": {
            "NITER": iterations,
            "BATCH_SIZE": {"size": batch, "grad_accumulation": 1},
            "GROUP_MODE": "random",
            "SAVE_ITERS": None,
        },
    }
    rates = (
        {"objp": 5e-3, "obja": 5e-3, "probe": 1e-3, "probe_pos_shifts": 5e-3}
        if slices == 1
        else {"objp": 2e-2, "obja": 2e-3, "probe": 1e-3, "probe_pos_shifts": 2e-2}
    )
    settings["model_params"] = {"update_params": {name: {"start_iter": 1, "lr": lr} for name, lr in rates.items()}}
    if slices > 1:
        settings["loss_params"] = {
            "loss_single": {"state": True, "weight": 1.0, "dp_pow": 0.5},
            "loss_sparse": {"state": True, "weight": 0.1, "ln_order": 1},
        }
        settings["constraint_params"] = {
            "obj_rblur": {**always, "start_iter": None},
            "obj_zblur": {**always, "obj_type": "both", "kernel_size": 5, "std": 0.5},
            "mirrored_amp": {**always, "relax": 0.1, "scale": 0.03, "power": 4},
            "obja_thresh": {**always, "relax": 0, "thresh": [0.96, 1.04]},
            "objp_postiv": {**always, "relax": 0},
        }
    return settings


def replace_torchvision() -> None:
    """Stand in for a torchvision that cannot be imported beside the torch of a CPU: PtyRAD needs its Gaussian blur."""
    try:
        importlib.import_module("torchvision")
    except Exception:  # a torchvision that was built for another torch raises a RuntimeError
        functional: Any = types.ModuleType("torchvision.transforms.functional")
        functional.gaussian_blur = _blurred
        transforms: Any = types.ModuleType("torchvision.transforms")
        transforms.functional, transforms.GaussianBlur = functional, None
        root: Any = types.ModuleType("torchvision")
        root.transforms = transforms
        for module in (root, transforms, functional):
            sys.modules[module.__name__] = module


def _blurred(images: Any, kernel_size: int, sigma: float) -> Any:
    """Return images (…, H, W) blurred by a square kernel of a Gaussian, mirrored at their edges."""
    import torch

    along = torch.arange(kernel_size, dtype=images.dtype) - (kernel_size - 1) / 2
    weights = torch.exp(-0.5 * (along / sigma) ** 2)
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    padded = torch.nn.functional.pad(images.flatten(0, -3)[:, None], [kernel_size // 2] * 4, mode="reflect")
    return torch.nn.functional.conv2d(padded, kernel[None, None]).view_as(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--slices", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for its settings and its result")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import numpy as np
    import torch

    torch.set_num_threads(1)
    replace_torchvision()
    from ptyrad.params import load_params
    from ptyrad.solver import PtyRADSolver, reconstruction

    one_iteration = reconstruction.recon_step

    def when_asked(*arguments: Any, **named: Any) -> Any:
        if not sys.stdin.readline():
            sys.exit()
        began = time.process_time()
        losses = one_iteration(*arguments, **named)
        print(f"{SECONDS}{time.process_time() - began}", flush=True)
        return losses

    reconstruction.recon_step = when_asked
    settings = parameters(options.data.resolve(), options.slices, options.batch, options.iterations)
    file = options.folder / "ptyrad.json"
    file.write_text(json.dumps(settings))
    solver = PtyRADSolver(load_params(str(file)), device="cpu", seed=0)
    solver.reconstruct()
    model = solver.reconstruct_results
    corner_N2 = (model.crop_pos + model.opt_probe_pos_shifts).detach().numpy()
    np.savez(
        options.folder / "found.npz",
        phase_HW=model.opt_objp.detach().numpy()[0, 0],
        positions_N2=corner_N2 + settings["init_params"]["meas_Npix"] // 2,
    )


if __name__ == "__main__":
    main()
