"""Fills the cache: every case of a run is preprocessed and stored."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

import attrs
from xxhash import xxh3_128_hexdigest

from trainkit import DataError, bytes_in_words, free_host_memory, some_of, usable_cpus
from trainkit_segmentation.cases import case as case_module
from trainkit_segmentation.cases import labels as labels_module
from trainkit_segmentation.cases import segments, synthesis
from trainkit_segmentation.cases.case import Case
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.files import images
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.preparing import cubic, foreground, grid, label_votes, preprocessing_live
from trainkit_segmentation.preparing.cache_live import CaseStore
from trainkit_segmentation.preparing.cached_cases import open_case
from trainkit_segmentation.preparing.code_digest import code_digest
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.preparing.preprocessing_live import prepare, to_tensors

_Outcome = TypeVar("_Outcome")

_log = logging.getLogger("trainkit.segmentation")
_SECONDS_BETWEEN = 10.0
_FORMAT = 2  # of an entry: 2 has a digest of its content, and what was seen of it
_MOST_THREADS = 4  # each holds a whole case several times


class PreparedCase(NamedTuple):
    """Where a preprocessed case is.

    Attributes:
        key: Key of its entry in the cache.
        content: Digest of what the case is read from.
        done: Whether the entry was found, made, or damaged and made anew ("mended").
    """

    key: str
    content: str
    done: Literal["found", "made", "mended"]


def prepare_all(
    cases: Sequence[Case], labels: Labels, settings: Preprocessing, store: CaseStore, workers: int = 0
) -> dict[str, PreparedCase]:
    """Preprocess the cases that are not in the cache yet, and log the progress now and then.

    Args:
        cases: The cases.
        labels: What their labels mean.
        settings: How the cases are preprocessed.
        store: The cache.
        workers: How many cases are worked on at once, if more than a few.

    Returns:
        Name of each case -> its entry, which is kept for as long as ``store`` lives.

    Raises:
        DataError: Some cases cannot be read; the message names all of them.
    """
    prepared: dict[str, PreparedCase] = {}
    problems: dict[str, str] = {}
    logged = time.monotonic()
    for name, outcome in prepare_each(cases, labels, settings, store, workers):
        if isinstance(outcome, DataError):
            problems[name] = str(outcome)
        else:
            prepared[name] = outcome
        if time.monotonic() - logged > _SECONDS_BETWEEN:
            logged = time.monotonic()
            _log.info("prepared %d of %d cases", len(prepared), len(cases))
    if problems:
        raise unusable(problems, len(cases))
    if made := sum(each.done != "found" for each in prepared.values()):
        _log.info("preprocessed %d of %d cases into %s", made, len(cases), store.folder)
    if mended := mended_in_words(prepared, store):
        _log.warning("%s", mended)
    return prepared


def prepare_each(
    cases: Sequence[Case], labels: Labels, settings: Preprocessing, store: CaseStore, workers: int = 0
) -> Iterator[tuple[str, PreparedCase | DataError]]:
    """Preprocess cases, several at once, and yield the name of each with its entry, or with why it cannot be used.

    Entries are written one by one: what was done stays done, whatever happens to this process. The arguments are those
    of `prepare_all`.
    """

    def one(case: Case) -> PreparedCase:
        def make() -> tuple[Mapping[str, Array], Mapping[str, Any]]:
            volume = case.read(labels, nan_as_zero=settings.nan_as_zero)
            return to_tensors(prepare(volume, settings, len(labels.classes)))

        content = content_digest(case, store)
        key = entry_key(content, labels, settings)
        store.use([key])
        done = store.ensure(key, make)
        if done == "mended":
            open_case.cache_clear()  # this process may still have the damaged one open
        return PreparedCase(key, content, done)

    return in_threads(cases, one, store, workers)


def in_threads(
    cases: Sequence[Case], one: Callable[[Case], _Outcome], store: CaseStore, workers: int
) -> Iterator[tuple[str, _Outcome | DataError]]:
    """Call a function for each case, several at once, and yield the name of each with the outcome, or what is wrong.

    Args:
        cases: The cases.
        one: What is done with a case.
        store: The cache that it writes.
        workers: How many cases are worked on at once, if more than a few.
    """

    def guarded(case: Case) -> _Outcome | DataError:
        try:
            return one(case)
        except DataError as error:
            return error
        except MemoryError:
            return DataError(f"memory is short: {bytes_in_words(free_host_memory())} are free")

    code_of_reading()  # before there are threads: two that parse at once confuse Python 3.11
    store.use([])  # a folder that cannot be used is no mistake of a case
    pool = ThreadPoolExecutor(max(workers, min(_MOST_THREADS, usable_cpus())))
    try:
        futures = {pool.submit(guarded, case): case.name for case in cases}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # those that have begun end first


def unusable(problems: Mapping[str, str], num_cases: int) -> DataError:
    """Return an error that names all cases that cannot be used, and why."""
    listed = "\n".join(f"  {name}: {problem}" for name, problem in sorted(problems.items()))
    return DataError(f"{len(problems)} of {num_cases} cases cannot be used:\n{listed}")


def classes_in_cache(
    cases: Sequence[Case], labels: Labels, settings: Preprocessing, store: CaseStore
) -> dict[str, dict[str, int]] | None:
    """Return case -> class -> number of voxels, as far as entries of the cache tell; None: some case has no entry."""
    found: dict[str, dict[str, int]] = {}
    for case in cases:
        try:
            path = store.path(entry_key(content_digest(case, store), labels, settings))
            if not path.exists():
                return None
            found[case.name] = dict(zip(labels.classes, open_case(path).own_voxels, strict=True))
        except DataError:
            return None
    return found


def mended_in_words(prepared: Mapping[str, PreparedCase], store: CaseStore) -> str | None:
    """Return a sentence on the entries that were damaged; None if none was."""
    names = sorted(name for name, each in prepared.items() if each.done == "mended")
    if not names:
        return None
    return (
        f"{len(names)} of {len(prepared)} entries of the cache were not as they were written, and were made anew: "
        f"{some_of(names)}; check the disk of {store.folder}"
    )


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
            "code": code_of_reading(),
            "format": _FORMAT,
            "content": content,
            "preprocessing": attrs.asdict(cast(Any, settings)),
            "labels": [len(labels.classes), labels.exclusive, sorted(labels.members.items())],
            "ignored": sorted(labels.ignored),
        }
    )


def digest_of(value: Any) -> str:
    """Return the xxh3-128 of a JSON value."""
    return xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


@cache
def code_of_reading() -> str:
    """Return a digest of the code that makes an entry, so that no version number can be forgotten."""
    modules = (
        case_module,
        labels_module,
        segments,
        synthesis,
        grid,
        label_votes,
        cubic,
        foreground,
        preprocessing_live,
    )
    files = [Path(str(module.__file__)) for module in modules]
    files += sorted(Path(str(images.__file__)).parent.rglob("*.py"))
    return code_digest(*(file.read_text(encoding="utf-8") for file in files))
