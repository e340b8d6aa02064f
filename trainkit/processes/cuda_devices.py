"""Counts the CUDA devices of this machine without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

_OF_DRIVER = Path("/proc/driver/nvidia/gpus")


def num_cuda_devices(environment: Mapping[str, str] = os.environ, of_driver: Path = _OF_DRIVER) -> int:
    """Return how many CUDA devices a process sees here; 0: none, or it is not known.

    Args:
        environment: The environment variables. ``CUDA_VISIBLE_DEVICES`` names devices up to the first invalid one.
        of_driver: The folder in which NVIDIA's driver has a folder for each GPU.
    """
    try:
        present = len(list(of_driver.iterdir()))
    except OSError:
        return 0
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is None or not present:
        return present
    valid = takewhile(lambda each: re.fullmatch(r"\d+|(GPU|MIG)-\S+", each), map(str.strip, named.split(",")))
    return len([each for each in valid if not each.isdecimal() or int(each) < present])
