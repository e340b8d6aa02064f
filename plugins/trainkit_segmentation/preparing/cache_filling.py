"""Fills the cache: every case of a run is preprocessed and stored."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import attrs
from xxhash import xxh3_128_hexdigest

from trainkit import DataError
from trainkit_segmentation.cases import case as case_module
from trainkit_segmentation.cases import labels as labels_module
from trainkit_segmentation.cases import synthesis
from trainkit_segmentation.cases.case import Case
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.files import nifti
from trainkit_segmentation.files.nifti import Array
from trainkit_segmentation.preparing import grid, preprocessing_live
from trainkit_segmentation.preparing.cache_live import CaseStore
from trainkit_segmentation.preparing.code_digest import code_digest
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.preparing.preprocessing_live import prepare, to_tensors

_log = logging.getLogger("trainkit.segmentation")
_SECONDS_BETWEEN = 10.0
_MOST_THREADS = 4  # each holds a whole case several times


class PreparedCase(NamedTuple):
    """Where a preprocessed case is.

    Attributes:
        key: Key of its entry in the cache.
        content: Digest of what the case is read from.
    """

    key: str
    content: str


def prepare_all(
    cases: Sequence[Case], labels: Labels, settings: Preprocessing, store: CaseStore
) -> dict[str, PreparedCase]:
    """Preprocess the cases that are not in the cache yet, and log the progress now and then.

    Args:
        cases: The cases.
        labels: What their labels mean.
        settings: How the cases are preprocessed.
        store: The cache.

    Returns:
        Name of each case -> its entry, which is kept for as long as ``store`` lives.

    Raises:
        DataError: Some cases cannot be read; the message names all of them.
    """
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        contents = _for_each(pool, cases, lambda case: content_digest(case, store), doing="")
        prepared = {
            name: PreparedCase(entry_key(content, labels, settings), content) for name, content in contents.items()
        }
        store.use(each.key for each in prepared.values())

        def ensure(case: Case) -> bool:
            def make() -> tuple[Mapping[str, Array], Mapping[str, Any]]:
                return to_tensors(prepare(case.read(labels), settings, len(labels.classes)))

            return store.ensure(prepared[case.name].key, make)

        made = sum(_for_each(pool, cases, ensure, doing="preprocessed").values())
    if made:
        _log.info("preprocessed %d of %d cases into %s", made, len(cases), store.folder)
    return prepared


def content_digest(case: Case, store: CaseStore) -> str:
    """Return a digest of what a case is read from: the bytes of its files, and how they are put together.

    Raises:
        DataError: A file of the case cannot be read.
    """
    return digest_of({"files": [store.files.digest(path) for path in case.files], "case": case.describe()})


def entry_key(content: str, labels: Labels, settings: Preprocessing) -> str:
    """Return the key of a case's entry: a digest of everything that the entry depends on, the code included.

    Args:
        content: The case's `content_digest`.
        labels: What the values of its label mean.
        settings: How it is preprocessed.
    """
    return digest_of(
        {
            "code": _code(),
            "content": content,
            "preprocessing": attrs.asdict(cast(Any, settings)),
            "labels": [len(labels.classes), labels.exclusive, sorted(labels.members.items())],
        }
    )


def digest_of(value: Any) -> str:
    """Return the xxh3-128 of a JSON value."""
    return xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


@cache
def _code() -> str:
    """Return a digest of the code that makes an entry, so that no version number can be forgotten."""
    modules = (nifti, case_module, labels_module, synthesis, grid, preprocessing_live)
    return code_digest(*(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules))


def _for_each(pool: ThreadPoolExecutor, cases: Sequence[Case], do: Any, doing: str) -> dict[str, Any]:
    """Return the result of ``do`` for each case; errors of all cases are raised as one."""
    futures = {pool.submit(do, case): case.name for case in cases}
    found: dict[str, Any] = {}
    problems: dict[str, str] = {}
    logged = time.monotonic()
    for future in as_completed(futures):
        try:
            found[futures[future]] = future.result()
        except DataError as error:
            problems[futures[future]] = str(error)
        if doing and time.monotonic() - logged > _SECONDS_BETWEEN:
            logged = time.monotonic()
            _log.info("%s %d of %d cases", doing, len(found), len(cases))
    if problems:
        listed = "\n".join(f"  {name}: {problem}" for name, problem in sorted(problems.items()))
        raise DataError(f"{len(problems)} of {len(cases)} cases cannot be used:\n{listed}")
    return found
