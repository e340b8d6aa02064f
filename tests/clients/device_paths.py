"""Lets ptychography on the CPU ask for the operations that it asks every other device for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from trainkit_ptychography.models import ptychography_live
from trainkit_ptychography.objects.hash_encoding_live import HashObject
from trainkit_ptychography.physics import patches
from trainkit_ptychography.preflight.watch import GeometryWatch


@contextlib.contextmanager
def as_on_a_device() -> Iterator[None]:
    """Find patches by the places of their pixels, evaluate all of a hash encoding, and look at nothing beforehand."""

    with pytest.MonkeyPatch.context() as patch:
        for module in (patches, ptychography_live):
            patch.setattr(module, "patches_at", lambda *args, are_inside=False: patches.patches_by_place(*args))
        patch.setattr(HashObject, "_looks_at_corners", lambda encoding: False)
        patch.setattr(GeometryWatch, "warn", lambda watch: None)
        yield
