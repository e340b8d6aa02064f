"""What tests of ptychography share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from without_geometry_search import no_geometry_search
from without_pictures import no_pictures_of_ptychography


@pytest.fixture(scope="package", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Pictures have tests of their own (test_pictures.py), and test_shipped_recipes.py draws them in whole runs."""
    with no_pictures_of_ptychography():
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_geometry_search(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let runs look for other geometries, which takes seconds, in modules that are about it alone: a mark says so."""
    with nullcontext() if request.node.get_closest_marker("geometry_search") else no_geometry_search():
        yield


@pytest.fixture(scope="package", autouse=True)
def _no_trial_processes() -> Iterator[None]:
    """Let files be read without a trial in another process: a copy of this large one takes a tenth of a second.

    Trials have tests of their own (test_trial_process.py); test_file_fuzz.py tries damaged files as users' runs do.
    """
    from trainkit_ptychography.scans.files import hdf5_live, matlab_live

    with pytest.MonkeyPatch.context() as patch:
        for module in (hdf5_live, matlab_live):
            patch.setattr(module, "survives", lambda action, cpu_seconds: True)
        yield
