"""Every case of a run, preprocessed and in the cache."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any, cast

import attrs
from xxhash import xxh3_128_hexdigest

from trainkit import DataError
from trainkit_segmentation.cases import case as cases_module
from trainkit_segmentation.cases import synthesis
from trainkit_segmentation.cases.case import Case, Labels
from trainkit_segmentation.files import nifti
from trainkit_segmentation.files.nifti import Array
from trainkit_segmentation.preparing import grid, preprocessing_live
from trainkit_segmentation.preparing.cache_live import CaseStore
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.preparing.preprocessing_live import prepare, to_tensors

_log = logging.getLogger("trainkit.segmentation")
_SECONDS_BETWEEN = 10.0
_MOST_THREADS = 4  # each holds a whole case several times


def prepare_all(cases: Sequence[Case], labels: Labels, settings: Preprocessing, store: CaseStore) -> dict[str, str]:
    """Preprocess what is not in the cache yet; says now and then how far it is.

    Args:
        cases: The cases.
        labels: What their labels mean.
        settings: What is done to them.
        store: The cache.

    Returns:
        Name of each case -> key of its entry, which is there for as long as this process lives.

    Raises:
        DataError: Some cannot be read; all of them are named.
    """
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        keys = _for_each(pool, cases, lambda case: key_of(case, labels, settings, store), said="")
        store.use(keys.values())

        def ensure(case: Case) -> bool:
            def make() -> tuple[Mapping[str, Array], Mapping[str, Any]]:
                return to_tensors(prepare(case.read(labels), settings, len(labels.classes)))

            return store.ensure(keys[case.name], make)

        made = sum(_for_each(pool, cases, ensure, said="preprocessed").values())
    if made:
        _log.info("preprocessed %d of %d cases into %s", made, len(cases), store.folder)
    return keys


def key_of(case: Case, labels: Labels, settings: Preprocessing, store: CaseStore) -> str:
    """Return the key of a case's entry: a digest of everything that its content depends on, the code included.

    Raises:
        DataError: A file of it cannot be read.
    """
    content = {
        "code": _code(),
        "files": [store.files.digest(path) for path in case.files],
        "case": case.describe(),
        "preprocessing": attrs.asdict(cast(Any, settings)),
        "labels": [len(labels.classes), labels.exclusive, sorted(labels.members.items())],
    }
    return xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


@cache
def _code() -> str:
    """Return a digest of the modules that an entry's content depends on, so that no version number is forgotten."""
    modules = (nifti, cases_module, synthesis, grid, preprocessing_live)
    return xxh3_128_hexdigest(b"\0".join(Path(str(module.__file__)).read_bytes() for module in modules))


def _for_each(pool: ThreadPoolExecutor, cases: Sequence[Case], do: Any, said: str) -> dict[str, Any]:
    """Do something with each case, and raise what went wrong with all of them at once."""
    futures = {pool.submit(do, case): case.name for case in cases}
    found: dict[str, Any] = {}
    problems: dict[str, str] = {}
    spoken = time.monotonic()
    for future in as_completed(futures):
        try:
            found[futures[future]] = future.result()
        except DataError as error:
            problems[futures[future]] = str(error)
        if said and time.monotonic() - spoken > _SECONDS_BETWEEN:
            spoken = time.monotonic()
            _log.info("%s %d of %d cases", said, len(found), len(cases))
    if problems:
        listed = "\n".join(f"  {name}: {problem}" for name, problem in sorted(problems.items()))
        raise DataError(f"{len(problems)} of {len(cases)} cases cannot be used:\n{listed}")
    return found
