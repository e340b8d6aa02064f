"""`trainkit report`: a page that needs nothing else, says what is in the run folder, and obeys nothing in it."""

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from runs.folders import written
from trainkit.cli.report import command
from trainkit.runs.record import RunRecord
from trainkit.runs.report.page import _shortened, page
from trainkit.runs.report.pictures import pictures_of

EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


class Page(HTMLParser):
    """The elements, attributes and text of a page, as a browser finds them."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.inside: dict[str, str] = {}
        self._open = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("style", "script"):
            self.inside[self._open] = self.inside.get(self._open, "") + data
        self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


def figure(folder: Path, name: str, *, size: tuple[int, int] = (40, 30), shade: int = 9) -> None:
    (folder / "figures").mkdir(exist_ok=True)
    Image.fromarray(np.full((*size[::-1], 3), shade, np.uint8)).save(folder / "figures" / name)


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    """A run whose folder holds much that looks like HTML."""
    values = [
        {"train/loss": 3.0 - i, "val/loss": 2.5 - i, "lr/object": 0.1, "lr/probe": 0.01 * (i > 0)} for i in range(3)
    ]
    values[1][f"val/{EVIL}"] = 1.0
    origins = {"run.name": "/a/long/way/scan.toml:3", "optimizer.lr": "--set optimizer.lr=0.25"}
    start = {"command": ["trainkit", "run", EVIL], "host": "node7", "device": "cuda:1", "origins": origins}
    found = written(tmp_path / "one", "optimizer.lr=0.25", values=values, **start)
    (found.folder / "log.txt").write_text(f"epoch 1\n10:00:00 warning: {EVIL}\nwarning: twice\nwarning: twice\n")
    (found.folder / "cases.csv").write_text(f"case,dice\n{EVIL.replace(',', '')},0.875\nb,0.9804916114\n")
    for epoch in (1, 2, 3):
        figure(found.folder, f"object-{epoch:04d}.png", shade=epoch)
    figure(found.folder, '"><img onerror=x>-0003.png')
    (found.folder / "checkpoints" / f"{EVIL[:20]}.txt").touch()
    return RunRecord(found.folder)


def test_nothing_that_stands_in_the_folder_becomes_html(run: RunRecord) -> None:
    found = Page(page(run))
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert not [key for _, attributes in found.elements for key in attributes if key.startswith("on")]
    assert all(attributes["src"].startswith("data:image/") for tag, attributes in found.elements if tag == "img")
    assert found.text.count(EVIL) >= 4  # the command, the log, the case, the value
    assert '"><img onerror=x>' in found.text


def test_the_page_needs_no_network_and_forbids_all_but_its_own_script(run: RunRecord) -> None:
    content = page(run)
    found = Page(content)
    links = [
        value for _, attributes in found.elements for key in ("href", "src", "srcset") if (value := attributes.get(key))
    ]
    assert links
    assert all(each.startswith(("#", "data:")) for each in links)
    assert not re.search(r"url\(|@import|https?://", content)
    (policy,) = (each["content"] for tag, each in found.elements if each.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(found.inside[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert not [attributes for _, attributes in found.elements if "style" in attributes]


def test_it_says_what_is_in_the_folder(run: RunRecord) -> None:
    text = Page(page(run)).text
    for each in (
        "finished epochs 3 of 4",
        "best val/loss (min) 0.5 after 3 epochs",
        "optimizer.lr 0.25 --set optimizer.lr=0.25",
        'run.name "scan" line 3',
        "Lines are those of /a/long/way/scan.toml.",
        "node7, cuda:1",
        "probe 1 to 3 0.01 0.01",
        "object 0 to 3",
        "2 warnings in the log",
        "0.875",
        "b 0.98049",
    ):
        assert each in text
    assert text.count("twice") == 1


def test_pictures_of_all_epochs_are_there_and_the_last_is_shown(run: RunRecord) -> None:
    found = Page(page(run))
    images = [each for tag, each in found.elements if tag == "img" and str(each["alt"]).startswith("object,")]
    assert [each["data-when"] for each in images] == ["after 1 epoch", "after 2 epochs", "after 3 epochs"]
    assert ["hidden" in each for each in images] == [True, True, False]
    (slider,) = (each for tag, each in found.elements if tag == "input")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "2")


def test_too_large_and_damaged_pictures_are_left_out_with_a_sentence(run: RunRecord, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for epoch in range(1, 5):
        noise = rng.integers(0, 255, (900, 1200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(run.folder / "figures" / f"noise-{epoch:04d}.png")
    (run.folder / "figures" / "broken-0001.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    small = pictures_of(run.folder, most_bytes=200_000)
    assert sum(len(each.source) for series in small.series.values() for each in series) < 4 / 3 * 200_000 + 1000
    assert any("broken-0001.png cannot be read" in note for note in small.notes)
    assert any(re.match(r"\d+ of 9 pictures are left out", note) for note in small.notes)
    whole = pictures_of(run.folder)
    assert [len(whole.series[name]) for name in ("noise", "object")] == [4, 3]
    assert max(whole.series["noise"][0].width, whole.series["noise"][0].height) == 720


def test_a_long_run_shows_its_first_and_last_pictures(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    figure(tmp_path, "a-0001.png")
    for epoch in range(2, 101):
        shutil.copy(tmp_path / "figures" / "a-0001.png", tmp_path / "figures" / f"a-{epoch:04d}.png")
    found = pictures_of(tmp_path)
    assert (len(found.series["a"]), found.series["a"][0].when, found.series["a"][-1].when) == (
        40,
        "after 1 epoch",
        "after 100 epochs",
    )
    assert "60 of 100 pictures are left out" in found.notes[0]


def test_a_damaged_or_empty_folder_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("run.json", "environment.json", "metrics.jsonl", "recipe.toml", "log.txt", "cases.csv"):
        (tmp_path / name).write_bytes(b"\xff\x00{[\n")
    text = Page(page(RunRecord(tmp_path))).text
    assert "environment.json is missing or cannot be read" in text
    assert "unknown" in text


def test_parents_are_named(tmp_path: Path) -> None:
    written(tmp_path / "a", values=[{"val/loss": 1.0}])
    origin = {"checkpoint": "x", "run": "a", "epoch": 7, "step": 9}
    written(tmp_path / "b", parent=origin)
    child = written(tmp_path / "c", parent={**origin, "run": "b", "epoch": 11})
    assert "Began from b after 11 epochs , which began from a after 7 epochs ." in Page(page(child)).text


def test_the_command_writes_the_page_into_the_run_folder_or_where_it_is_told(run: RunRecord, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(run.folder)], catch_exceptions=False)
    assert str(run.folder / "report.html") in result.output.replace("\n", "")
    assert (run.folder / "report.html").read_text().startswith("<!doctype html>")
    CliRunner().invoke(command, [str(run.folder), "--out", str(tmp_path / "mine.html")], catch_exceptions=False)
    assert (tmp_path / "mine.html").is_file()


@pytest.mark.slow
def test_a_browser_shows_it_and_runs_its_script_alone(run: RunRecord, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("chromium is not installed")
    path = tmp_path / "report.html"
    path.write_text(page(run))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([browser, *options, path.as_uri()], capture_output=True, text=True, timeout=100)
    (slider,) = (each for tag, each in Page(done.stdout).elements if tag == "input")
    assert "hidden" not in slider  # its script has shown it
    assert "Content Security Policy" not in done.stderr


def test_files_of_several_layers_are_named_without_their_folders_unless_that_says_too_little() -> None:
    origins = {"a": "/x/base.toml:1", "b": "/x/top.toml:12", "c": "--set c=1", "d": "default"}
    assert _shortened(origins) == (
        {"a": "base.toml:1", "b": "top.toml:12", "c": "--set c=1", "d": "default"},
        ["base.toml is /x/base.toml.", "top.toml is /x/top.toml."],
    )
    alike = {"a": "/x/base.toml:1", "b": "/y/base.toml:12"}
    assert _shortened(alike) == (alike, [])
