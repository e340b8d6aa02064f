"""Where processes meet: what happens if there is nobody to meet."""

from __future__ import annotations

import socket
import time

import pytest

from trainkit.processes import meeting
from trainkit.processes.meeting import Meeting
from trainkit.processes.place import Place


def test_a_first_process_whose_others_never_started_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    left_by_a_launcher = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "2"}
    for name, value in left_by_a_launcher.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(meeting, "_TO_COME", 1.0)
    began = time.monotonic()
    Meeting(Place(0, 2)).end()
    assert time.monotonic() - began < 60  # it would wait for half an hour
