"""``python -m trainkit.engine.beside_worker FD``: evaluates what the training sends, until that ends."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append((record.levelno, record.getMessage()))


class _Rows:
    def __init__(self, metrics: Any) -> None:
        self._tables = [metric.rows for metric in metrics if hasattr(metric, "rows")]
        self.of_split: dict[str, list[dict[str, Any]]] = {}

    def on_validation_end(self, state: Any) -> None:
        from trainkit.engine.every_run.cases_file import joined

        self.of_split[state.split] = joined(row for rows in self._tables for row in rows())


def _received(training: Connection, questions: Queue[Any]) -> None:
    while True:
        try:
            questions.put(training.recv_bytes())  # read in the main thread, which imports torch
        except (EOFError, OSError):
            os._exit(0)  # the training has ended, and nobody reads what is being computed


def work(training: Connection) -> None:
    """Answer the training's questions until it ends."""
    task = pickle.loads(training.recv_bytes())
    sys.path[:] = task["path"]
    questions: Queue[Any] = Queue()
    Thread(target=_received, args=(training, questions), daemon=True).start()
    messages = _Messages()
    logger = logging.getLogger("trainkit")
    logger.addHandler(messages)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        run = _built(task)
        messages.texts.clear()
        while True:
            question = pickle.loads(questions.get())
            training.send_bytes(pickle.dumps(_answer(run, question) | {"messages": list(messages.texts)}))
            messages.texts.clear()
    except BaseException:
        training.send_bytes(pickle.dumps({"error": traceback.format_exc()}))


def _built(task: dict[str, Any]) -> Any:
    import torch

    from trainkit.engine.beside import EVALUATED
    from trainkit.engine.build import build
    from trainkit.recipe.resolve import resolve_text

    resolved = resolve_text(task["recipe"], Path("/"), source=task["source"], resolved=True)
    run = build(resolved, task["folder"], task["finished"])
    torch.set_num_threads(task["threads"])
    run.parts = {name: part for name, part in run.parts.items() if name.partition(".")[0] in EVALUATED}
    run.tolerated = {}
    run.add("rows", _Rows(run.metrics.values()))
    return run


def _answer(run: Any, question: dict[str, Any]) -> dict[str, Any]:
    from trainkit.engine.beside import PLACE
    from trainkit.engine.evaluation import evaluate
    from trainkit.randomness import restore_generators

    state = run.state
    for name in PLACE:
        setattr(state, name, question[name])
    state.closing, state.metrics, state.doubts = True, {}, []
    state.model.load_state_dict(question["model"])
    if run.average is not None:
        run.average.restore(question["average"])
    restore_generators(question["generators"])
    evaluate(run)
    return {
        "metrics": dict(state.metrics),
        "rows": dict(run.parts["rows"].of_split),
        "doubts": list(state.doubts),
    }


if __name__ == "__main__":
    work(Connection(int(sys.argv[1])))
