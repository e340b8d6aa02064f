"""What tests of several rooms share: markers, data that the repository does not carry, and an installed third party."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from clients.warm import Imported, Warm
from durations import function_of, not_fast
from hypothesis import HealthCheck, settings
from seldom_garbage import look_seldom_for_garbage
from without_busy_cpus import leave_out_busy_cpus
from without_fsync import leave_out_fsync
from without_pictures import leave_out_charts

ROOT = Path(__file__).parents[1]
NOT_OF_THE_CORE = ("docs", "ptychography", "schedulers", "segmentation")
"""Rooms of tests/ whose tests are of plugins and pages."""
COVERED_ELSEWHERE = (
    "tests/core/test_shipped_recipes.py",
    "tests/engine/test_fp16.py",
    "tests/engine/test_lengths.py",
    "tests/engine/test_loop.py",
    "tests/engine/test_memories.py",
    "tests/engine/test_older_recipe.py",
    "tests/engine/test_outcome.py",
    "tests/engine/test_queue.py",
    "tests/engine/test_repeated_steps.py",
    "tests/engine/test_stage_trial.py",
)
"""Tests of whole runs: of the lines that they run, others run all but a few."""

_AS_COLLECTED: dict[ModuleType, list[tuple[np.random.Generator, Any]]] = {}
"""Generators of numbers that modules of tests keep, and where they stood before the first test."""

# Each worker rewrites the assertions of all tests, and each process compiles trainkit, unless what they made is kept.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores, and torch is not imported yet: one thread for each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # a busy one must not fail a property that holds


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no test write into, or rely on, the cache folder of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_charts() -> Iterator[None]:
    """Let runs in the process of the tests draw no ``progress.png``: it takes longer than all else in a small run.

    The chart has tests of its own (core/test_hooks.py), and runs that are started as a user does draw it.
    """
    with pytest.MonkeyPatch.context() as patch:
        leave_out_charts(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_fsync() -> Iterator[None]:
    """Let the process of the tests not wait for the disk. Runs that are started as a user does wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_fsync(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_busy_cpus() -> Iterator[None]:
    """Let no test depend on what else the machine computes."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_busy_cpus(patch)
        yield


@pytest.fixture(autouse=True)
def _recorder_does_nothing() -> Iterator[None]:
    """Let no test find what another one told the hook `Recorder` to do, or what it has written down."""
    from clients import recorder

    recorder.forget()  # what fixtures of the module did
    yield
    recorder.forget()


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let each test draw the same numbers, whichever tests its worker has run before it."""
    yield
    for generator, state in _AS_COLLECTED.get(request.module, ()):
        generator.bit_generator.state = state
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(0)  # not of all devices, which takes half a millisecond


@pytest.hookimpl(tryfirst=True)  # before -m is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by one rule each, and put them in the order in which several workers take them.

    - `data` takes the fixture `shared_data`; `fast` is what is neither `slow` nor in the list of `tests/durations.py`.
    - The coverage that is asked for is that of the core by tests that are not slow. It is not measured in tests of
      plugins and pages, nor in slow ones, nor where others cover the same: with it, Python takes two to three times as
      long.
    - What is measured comes first, because a module is imported once; then what is slow, so that no worker is left
      alone with it at the end.
    """
    listed = not_fast()
    times: dict[str, int] = defaultdict(int)
    for item in items:
        function, is_slow = function_of(item.nodeid), item.get_closest_marker("slow") is not None
        of_many = item.get_closest_marker("measured_every")
        is_left_out = of_many is not None and times[function] % of_many.args[0] != 0
        times[function] += 1
        is_covered = function.startswith(COVERED_ELSEWHERE)
        if is_slow or is_left_out or is_covered or function.split("/")[1] in NOT_OF_THE_CORE:
            item.add_marker("no_cover")  # of pytest-cov
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
        if not is_slow and function not in listed:
            item.add_marker("fast")
    if "PYTEST_XDIST_WORKER" in os.environ:
        places = defaultdict[str, int](lambda: 2)
        for item in items:
            unit, is_measured = unit_of(item.nodeid), item.get_closest_marker("no_cover") is None
            places[unit] = min(places[unit], 0 if is_measured else 1 if item.get_closest_marker("slow") else 2)
        items.sort(key=lambda item: places[unit_of(item.nodeid)])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are collected, which would take three of ten seconds: all that is made stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note where the generators of modules stand, and look seldom for garbage from now on."""
    for module in {item.getparent(pytest.Module).obj for item in session.items}:
        made = [each for each in vars(module).values() if isinstance(each, np.random.Generator)]
        _AS_COLLECTED[module] = [(each, each.bit_generator.state) for each in made]
    look_seldom_for_garbage()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Give all tests of a module in which a fixture is made once to one worker, so that it is made once.

    xdist's own groups (`xdist_group`) stand in names of tests, and with pytest 9.2 these stay as they are.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    config.option.loadscopereorder = False  # the order of pytest_collection_modifyitems
    return ByModule(config, log) if config.getvalue("dist") == "loadgroup" else None


def unit_of(nodeid: str) -> str:
    """Return what is given to a worker as a whole: the module of a test, or the test."""
    module = nodeid.partition("::")[0]
    return module if makes_once(module) else nodeid


@cache
def makes_once(module: str) -> bool:
    """Return whether a module has a fixture that is made once for all its tests.

    The text is read because the process that gives out work knows only the names of tests: it collects none, and what
    pytest knows of fixtures is in the workers.
    """
    return 'scope="module"' in (ROOT / module).read_text(encoding="utf-8")


_IMPORTED = pytest.StashKey[Imported]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let all workers share one process that imports torch, as soon as one of them asks for it."""
    stash = node.config.stash
    if _IMPORTED not in stash:
        stash[_IMPORTED] = Imported()
    node.workerinput["imported"] = stash[_IMPORTED].address


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process that the workers have shared."""
    if (imported := config.stash.get(_IMPORTED, None)) is not None:
        imported.close()


@pytest.fixture(scope="session")
def warm(request: pytest.FixtureRequest) -> Iterator[Warm]:
    """Starts trainkit in new processes that need not import torch."""
    with ExitStack() as alone:
        address = getattr(request.config, "workerinput", {}).get("imported")
        process = Warm(address or alone.enter_context(closing(Imported())).address)
        with closing(process):
            yield process


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `data` of scans and cases that are too large for the repository; without it the test is skipped.

    The environment variable TRAINKIT_TEST_DATA names it; else it is looked for in `../shared` and `../../shared`.
    """
    named = os.environ.get("TRAINKIT_TEST_DATA")
    folders = [Path(named)] if named else [up / "shared" / "data" for up in (ROOT.parent, ROOT.parent.parent)]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        pytest.skip("the data are not here; TRAINKIT_TEST_DATA can name their folder")
    return found


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `examples/third_party` built and installed, to be put on the path of a process."""
    folder = tmp_path_factory.mktemp("third_party")
    source = shutil.copytree(ROOT / "examples" / "third_party", folder / "source")
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:  # pip does no more for a wheel of Python alone, and need not be there
        packed.extractall(folder / "site")
    return folder / "site"
