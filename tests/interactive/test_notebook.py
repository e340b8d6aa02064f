"""The notebook in examples/ runs from its first cell to its last, and shows what its reader expects."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The cells of code of the notebook after it ran, in an empty folder."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copy(ROOT / "examples" / "first_run.ipynb", folder)
    notebook = nbformat.read(folder / "first_run.ipynb", as_version=4)
    make = next(cell for cell in notebook.cells if '"run.epochs": 5' in cell.source)  # its scan is made small
    make.source = make.source.replace('"run.epochs": 5', '"run.epochs": 5, **SMALL')
    make.source = 'SMALL = {"data.scan_shape": [6, 6], "data.detector_size": 32}\n' + make.source
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute()  # raises what a cell raises
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: dict[str, Any], kind: str) -> list[str]:
    return [each["data"][kind] for each in cell["outputs"] if kind in each.get("data", {})]


@pytest.mark.slow
def test_plan_progress_values_and_pictures_are_shown(cells):
    made, plan, fit, values, resumed, picture, result = cells
    assert "not started" in shown(made, "text/html")[0]
    assert shown(plan, "text/html")[0].count("<tr>") == 6  # a head, and 5 epochs
    progress, ended = shown(fit, "text/html")
    assert 'value="5" max="5"' in progress  # one display, which was brought up to date
    assert "training: object, probe, dr" in progress
    assert "<polyline" in progress
    assert "finished, 5 epochs finished" in ended
    assert len(shown(values, "text/plain")[0].split(",")) == 5
    assert "6 epochs finished" in shown(resumed, "text/html")[-1]
    assert len(shown(picture, "image/png")[0]) > 10_000
    assert "'object'" in shown(result, "text/plain")[0]
