"""Pin below each requirements file what its own lines bring in: ``lock.py FILE...``.

A file may start from an earlier one with ``-r``; what that one pins is not repeated.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

MARK = "# --- brought in by the above; written by `make lock` ---\n"


def normalised(name: str) -> str:
    """A package's name as the index knows it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(text: str) -> set[str]:
    """The packages that the lines of a requirements file pin."""
    return {normalised(name) for name in re.findall(r"^([\w.-]+)(?:\[.*\])?==", text, re.MULTILINE)}


def resolve(requirements: str, folder: Path) -> dict[str, str]:
    """Everything pip would install for ``requirements`` into an empty place: name to line."""
    # In the same folder, to which a `-r` line is relative.
    with TemporaryDirectory() as directory, NamedTemporaryFile("w", dir=folder) as source:
        report = Path(directory, "report.json")
        source.write(requirements)
        source.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--dry-run", "--ignore-installed", f"--report={report}", "-r", source.name]
        subprocess.run(command, check=True)  # noqa: S603  (our own interpreter)
        found = json.loads(report.read_text())["install"]
    packages = (item["metadata"] for item in found)
    return {normalised(one["name"]): f"{one['name']}=={one['version']}\n" for one in packages}


def lock(path: Path, pinned: set[str]) -> set[str]:
    """Rewrite the second part of ``path``; return everything that it and ``pinned`` pin."""
    own = path.read_text().partition(MARK)[0]
    pinned = pinned | names(own)
    resolved = resolve(own, path.parent)
    lines = [resolved[name] for name in sorted(resolved.keys() - pinned)]
    path.write_text(own + MARK + "".join(lines))
    return pinned | resolved.keys()


if __name__ == "__main__":
    everything: set[str] = set()
    for argument in sys.argv[1:]:
        everything = lock(Path(argument).resolve(), everything)
