"""What a run is: its id, its parent, and what its last start began from.

The id stands in ``run.json`` of the run folder and in each checkpoint, together with the parent and the digest of the
recipe. So a checkpoint that is copied, or a folder that is renamed, still says to which run it belongs. The order of
runs is that of their creation as they tell it; times of files are not used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from xxhash import xxh3_128_hexdigest

from trainkit.checkpoint.file import read_header
from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.errors import CheckpointError
from trainkit.files.reading import read_small

if TYPE_CHECKING:
    from trainkit.groups.resuming import Choice

IDENTITY = "run.json"
CHECKPOINTS = "checkpoints"
ENVIRONMENT = "environment.json"
MOST_BYTES = 1 << 26  # of a record; a run that was started a thousand times has far less
_FEW = 5  # checkpoints that are asked for a run's id if run.json does not say it
_NAME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)-[0-9a-f]{4,}(-\d+)?")


@attrs.frozen
class Origin:
    """The checkpoint from which a start of a run began.

    Attributes:
        checkpoint: Its file.
        run: Id of the run that wrote it; None: unknown.
        epoch: Number of finished epochs in it.
        step: Number of finished optimizer steps in it.
    """

    checkpoint: str
    run: str | None
    epoch: int
    step: int


@attrs.frozen
class Identity:
    """What a run is, and how it was started last.

    Attributes:
        id: The run's id, which is the name that its folder was given.
        created: When the folder was made (UTC, ISO 8601); a resumed run is later than its parent, whatever the clock.
        parent: The checkpoint of another run from which this run began; None: it began at the beginning.
        recipe: The resolved recipe of the last start; None: unknown, because an older version made the folder.
        begun_from: The checkpoint from which the last start began; None: the beginning.
        on_extend: The ``--on-extend`` of the last start.
        asked: The recipe as a person started the run with it, if edits have changed it since; None: it is ``recipe``.
    """

    id: str
    created: str
    parent: Origin | None = None
    recipe: str | None = None
    begun_from: Origin | None = None
    on_extend: Choice | None = None
    asked: str | None = None

    def in_checkpoint(self, recipe: str, variables: Mapping[str, str]) -> dict[str, Any]:
        """Return what each checkpoint says of the run that wrote it.

        Args:
            recipe: The text of the resolved recipe.
            variables: Marks of the environment variables that it reads.
        """
        parent = None if self.parent is None else attrs.asdict(self.parent)
        return {"id": self.id, "parent": parent, "recipe": digest(recipe), "variables": dict(variables)}


def digest(recipe: str) -> str:
    """Return the digest of a resolved recipe's text."""
    return xxh3_128_hexdigest(recipe.encode())


def identity_of(folder: Path) -> Identity:
    """Return a run's identity from its folder; if it is not written there, from its checkpoints, or from its name."""
    try:
        found = json.loads(read_small(folder / IDENTITY, "the record of a run", MOST_BYTES))
        return _structured(found)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        name = folder.resolve().name
        written: dict[str, Origin | None] = {}
        for run_id, parent in _in_checkpoints(folder / CHECKPOINTS):
            written.setdefault(run_id, parent)
        run_id = name if name in written or not written else next(iter(written))
        time = _NAME.fullmatch(run_id)
        created_at = datetime.strptime(time[1], "%Y-%m-%dT%H-%M-%S").replace(tzinfo=UTC).isoformat() if time else ""
        return Identity(run_id, created_at, written.get(run_id))


def _in_checkpoints(folder: Path) -> Iterator[tuple[str, Origin | None]]:
    """Yield the id and the parent of the run that wrote each of the last few checkpoints of a folder, newest first."""
    files = CheckpointFolder(folder).files() if folder.is_dir() else []
    for file in sorted(files, key=lambda file: file.stem.partition("-")[2], reverse=True)[:_FEW]:
        try:
            said = read_header(file)["run"]
            yield str(said["id"]), _origin(said["parent"])
        except (CheckpointError, TypeError, KeyError):
            continue  # damaged, or of an older version


def _origin(value: Any) -> Origin | None:
    """Return an origin as it was read.

    Raises:
        TypeError: It is none.
    """
    if value is None:
        return None
    known = Origin(**value)
    if not isinstance(known.checkpoint, str) or not isinstance(known.run, str | None):
        raise TypeError("a text is expected")
    if type(known.epoch) is not int or type(known.step) is not int:
        raise TypeError("a whole number is expected")
    return known


def _structured(found: Mapping[str, Any]) -> Identity:
    """Return an identity as it was read.

    Raises:
        ValueError, TypeError, KeyError: It is not what `describe` writes.
    """
    known = Identity(**{**found, "parent": _origin(found["parent"]), "begun_from": _origin(found["begun_from"])})
    texts_if_any = (known.recipe, known.asked)
    if not all(isinstance(text, str) for text in (known.id, known.created)):
        raise TypeError("a text is expected")
    if not all(isinstance(text, str | None) for text in texts_if_any):
        raise TypeError("a text is expected")
    if known.on_extend not in (None, "stretch", "hold", "restart") or parsed_time(known.created) is None:
        raise ValueError("an unknown choice or time")
    return known


def parsed_time(text: str) -> datetime | None:
    """Return a time in ISO 8601, in UTC unless it says otherwise; None: the text is no time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def is_of_the_future(folder: Path) -> bool:
    """Return whether a run says that it was created later than this machine's clock is now, by more than an hour."""
    time = parsed_time(identity_of(folder).created)
    return time is not None and time > datetime.now(UTC) + timedelta(hours=1)


def newest_first(folders: Iterable[Path]) -> list[Path]:
    """Return the run folders among the given paths, the run that was created last first.

    A run's place is that of its id, which stands in it; times of files are not used.
    """
    found = [
        (created_at, folder.name == run_id, folder) for folder in folders for run_id, created_at in _placed(folder)
    ]
    return [folder for *_, folder in sorted(found, reverse=True)]


def _placed(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield a run folder's id and when it was created; nothing for a folder that is none."""
    if not (folder / CHECKPOINTS).is_dir() or folder.name.startswith("."):
        return
    identity = identity_of(folder)
    if identity.recipe is not None or CheckpointFolder(folder / CHECKPOINTS).files():
        yield identity.id, identity.created
