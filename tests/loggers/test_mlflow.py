"""The logger for MLflow, against a real store: it continues its run, and writes no value twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients import recorder
from clients.toy_run import resume, run

from loggers.test_files_and_thread import TEXT, fail_at
from trainkit import PartError

pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'trainkit[mlflow]'")
pytest.importorskip("sqlalchemy", reason="a store of MLflow in a file needs SQLAlchemy")
from mlflow.tracking import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # MLflow's own


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recipe(tmp_path: Path) -> str:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    return f'{TEXT}[loggers.server]\nuse = "mlflow"\ntracking_uri = "{uri}"\nexperiment = "toys"\nevery_steps = 2\n'


def test_a_resumed_run_continues_its_run_of_mlflow_and_writes_no_value_twice(tmp_path: Path) -> None:
    text = recipe(tmp_path)
    fail_at(18)  # after the checkpoint of 4 epochs
    with pytest.raises(PartError):
        run(text=text)
    recorder.ACTIONS.clear()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("toys")
    assert experiment is not None
    (failed,) = client.search_runs([experiment.experiment_id])
    assert failed.info.status == "FAILED"
    (folder,) = Path("runs/toy").iterdir()
    resume(folder)
    (continued,) = client.search_runs([experiment.experiment_id])
    assert continued.info.run_id == failed.info.run_id
    assert continued.info.status == "FINISHED"
    assert continued.data.tags["trainkit.run"] == folder.name
    assert continued.data.params["groups.second.start_epoch"] == "2"

    def steps(name: str) -> list[int]:
        return [each.step for each in client.get_metric_history(continued.info.run_id, name)]

    assert sorted(steps("train/loss")) == [1, 2, 3, 4, 5]
    assert sorted(steps("step/train/loss")) == list(range(2, 21, 2))
    assert steps("stages/second_optimization_started") == [2]

    branch = resume(folder, epoch=2).run.state.folder
    runs = client.search_runs([experiment.experiment_id], f"tags.`trainkit.run` = '{branch.name}'")
    assert [each.data.tags["trainkit.parent"] for each in runs] == [folder.name]


def test_a_server_that_is_not_there_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    text = recipe(tmp_path).replace(f"sqlite:///{tmp_path / 'mlflow.db'}", "http://127.0.0.1:9")
    assert run(text=text).run.state.ended == "finished"
    said = [each.getMessage() for each in caplog.records if "MLflow at http://127.0.0.1:9" in each.getMessage()]
    assert len(said) == 2
    assert "values could not be written" in said[1]
