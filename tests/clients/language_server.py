"""Talks with `tombi lsp`, the language server that editors start: what it offers at a place of a recipe.

As a script, it prints the examples of docs/editors.md: ``python tests/clients/language_server.py``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CURSOR = "▮"


def tombi() -> str | None:
    """Return the program, beside this Python or on the path; None: it is not installed."""
    beside = Path(sys.executable).with_name("tombi")
    return str(beside) if beside.exists() else shutil.which("tombi")


class LanguageServer:
    """A running server.

    Args:
        process: Its process, with pipes.
        folder: Where the recipes and their schema are.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._number = 0
        root = folder.as_uri()
        self._ask("initialize", {"processId": None, "rootUri": root, "capabilities": {}})
        self._tell("initialized", {})

    def completions(self, text: str) -> list[dict[str, Any]]:
        """Return what is offered at the cursor in a recipe, in order."""
        found = self._at_cursor("textDocument/completion", text)
        items = found["items"] if isinstance(found, dict) else found or []
        return sorted(items, key=lambda each: each.get("sortText") or each["label"])

    def hover(self, text: str) -> str:
        """Return what is shown about the key or value at the cursor, as Markdown."""
        found = self._at_cursor("textDocument/hover", text)
        return str(found["contents"]["value"]) if found else ""

    def _at_cursor(self, method: str, text: str) -> Any:
        before, _, after = text.partition(CURSOR)
        uri = (self._folder / f"recipe{self._number}.toml").as_uri()
        document = {"uri": uri, "languageId": "toml", "version": 1, "text": before + after}
        self._tell("textDocument/didOpen", {"textDocument": document})
        self._read_until(lambda each: each.get("method") == "textDocument/publishDiagnostics")
        place = {"line": before.count("\n"), "character": len(before.rpartition("\n")[2])}
        return self._ask(method, {"textDocument": {"uri": uri}, "position": place})

    def _tell(self, method: str, params: Mapping[str, Any]) -> None:
        self._send({"method": method, "params": params})

    def _ask(self, method: str, params: Mapping[str, Any]) -> Any:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        return self._read_until(lambda each: each.get("id") == self._number and "method" not in each)["result"]

    def _read_until(self, wanted: Any) -> Any:
        while True:
            message = self._read()
            if "method" in message and "id" in message:  # the server asks for settings: it gets none
                self._send({"id": message["id"], "result": None})
            if wanted(message):
                return message

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _read(self) -> Any:
        assert self._process.stdout
        length = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the language server ended"
        return json.loads(self._process.stdout.read(length))


@contextmanager
def language_server(folder: Path) -> Iterator[LanguageServer]:
    """Provide a server for a folder with recipes and their schema."""
    command = [tombi() or "tombi", "lsp", "--offline"]
    with subprocess.Popen(command, cwd=folder, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL) as process:
        try:
            yield LanguageServer(process, folder)
        finally:
            process.kill()


EXAMPLES = (
    f'[scheduler]\nuse = "{CURSOR}"\n',
    f'[scheduler]\nuse = "reduce_on_plateau"\n{CURSOR}\n',
    f'[optimizer]\nuse = "sgd"\n\n[groups.probe]\nst{CURSOR}\n',
)
HOVER = f'[scheduler]\nuse = "reduce_on_plateau"\npati{CURSOR}ence = 5\n'


def example(server: LanguageServer, text: str, first_line: str) -> str:
    """Return a recipe with a cursor, and what is offered there, as docs/editors.md shows it."""
    lines = []
    for each in server.completions(f"{first_line}\ntrainkit = 1\n{text}"):
        about = each.get("documentation") or ""
        about = about["value"] if isinstance(about, dict) else about
        sentence = next((line for line in about.splitlines() if line and not line.startswith(("Schema:", "---"))), "")
        lines.append(f"    {each['label']:<22}{sentence[:90]}".rstrip())
    return "\n".join([text.rstrip(), *lines])


if __name__ == "__main__":
    from trainkit.recipe.schema import DIRECTIVE, FILE, recipe_schema

    with TemporaryDirectory() as name:
        (Path(name) / FILE).write_text(json.dumps(recipe_schema()[0]))
        with language_server(Path(name)) as running:
            for each in EXAMPLES:
                sys.stdout.write(f"```\n{example(running, each, DIRECTIVE)}\n```\n")
            sys.stdout.write(running.hover(f"{DIRECTIVE}\ntrainkit = 1\n{HOVER}"))
