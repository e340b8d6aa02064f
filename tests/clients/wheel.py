"""Packs a single file as a wheel and installs it, without network, as a third party's users would."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path


def pack(
    source: Path, module: str, entry_points: Mapping[str, Mapping[str, str]], folder: Path, version: str = "0.1"
) -> Path:
    """Return a wheel of one module.

    Args:
        source: The module's text.
        module: What it is imported as; the distribution has the same name.
        entry_points: Entry-point group -> name -> class in the module.
        folder: Where to put the wheel.
        version: The distribution's version.

    Source:
        https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {module}:{cls}\n" for name, cls in classes.items())
        for group, classes in entry_points.items()
    )
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": source.read_text(encoding="utf-8"),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\nRequires-Dist: trainkit\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points,
    }
    record = f"{info}/RECORD"
    files[record] = (
        "".join(f"{name},{_hash(text)},{len(text.encode())}\n" for name, text in files.items()) + f"{record},,\n"
    )
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


def install(wheel: Path, target: Path) -> None:
    """Install a wheel into a folder that is to be put on the path."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        zipfile.ZipFile(wheel).extractall(target)  # no pip here; for a pure wheel it does no more than this
        return
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*command, "--disable-pip-version-check", "--target", str(target), str(wheel)], check=True)


def _hash(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
