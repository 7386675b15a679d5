"""The surface of the vendor's package: what its wheel exports, kept as data beside this file.

`python -m tests.brokers.terminals.mt5_surface WHEEL` renews it. Constants are the assignments of the
wheel's own `__init__.py`; the fields of its rows are named in its binary.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "vendor" / "mt5_surface.json"


def load() -> dict[str, Any]:
    surface: dict[str, Any] = json.loads(FILE.read_text())
    return surface


def constants(wheel: Path) -> dict[str, int]:
    """The whole numbers the package assigns."""
    with zipfile.ZipFile(wheel) as archive:
        tree = ast.parse(archive.read("MetaTrader5/__init__.py"))
    found: dict[str, int] = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name = node.targets[0].id
        if name.isupper():
            found[name] = eval(compile(ast.Expression(node.value), "wheel", "eval"), {**found})  # noqa: S307
    return found


def words(wheel: Path) -> set[str]:
    """Every name in the binary."""
    with zipfile.ZipFile(wheel) as archive:
        binary = next(name for name in archive.namelist() if name.endswith(".pyd"))
        return {m.decode() for m in re.findall(rb"[a-z][a-z0-9_]+", archive.read(binary))}


if __name__ == "__main__":
    kept = load() if FILE.exists() else {"rows": {}}
    kept["constants"] = constants(Path(sys.argv[1]))
    FILE.write_text(json.dumps(kept, indent=1) + "\n")
