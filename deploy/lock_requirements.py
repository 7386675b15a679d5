"""Rewrite the second part of both requirements files with what pip resolves for the first part.

Run by ``make lock``. Resolves in fresh virtual environments, so nothing installed here leaks in.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "# --- brought in by the above; written by `make lock` ---\n"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def direct_part(path: Path) -> str:
    return path.read_text(encoding="utf-8").split(MARK)[0]


def direct_names(text: str) -> set[str]:
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", text, re.MULTILINE)
    return {canonical(name) for name in pins}


def resolved(*files: Path) -> dict[str, str]:
    """Canonical name to ``name==version`` of everything pip installs for ``files``."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)  # noqa: S603
        pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        wanted = [argument for file in files for argument in ("-r", str(file))]
        subprocess.run([*pip, "install", "-q", *wanted], check=True)  # noqa: S603
        frozen = subprocess.run(  # noqa: S603
            [*pip, "freeze"], check=True, capture_output=True, text=True
        ).stdout
    return {canonical(line.split("==")[0]): line for line in frozen.splitlines()}


def main() -> None:
    runtime, dev = ROOT / "requirements.txt", ROOT / "requirements-dev.txt"
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "requirements.txt"
        first.write_text(direct_part(runtime), encoding="utf-8")
        base = resolved(first)
        second = Path(folder) / "requirements-dev.txt"
        second.write_text(direct_part(dev), encoding="utf-8")
        first.write_text("\n".join(base.values()), encoding="utf-8")
        everything = resolved(second)
    for path, pins, known in (
        (runtime, base, set()),
        (dev, everything, set(base)),
    ):
        part = direct_part(path)
        skip = direct_names(part) | known
        rest = sorted(line for name, line in pins.items() if name not in skip)
        path.write_text(part + MARK + "\n".join(rest) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
