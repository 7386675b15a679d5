"""The agent as one file for the machine with the terminal: a zip that Python runs."""

from __future__ import annotations

import shutil
import tempfile
import zipapp
from pathlib import Path

import brokers

SHARED = (
    "__init__", "capabilities", "client_ids", "decimals", "errors", "order_books", "order_form",
    "types",
)  # fmt: skip
"""What the agent has in common with FKS; nothing of it needs more than Python itself."""
START = "import sys\n\nfrom brokers.bridge.__main__ import main\n\nsys.exit(main())\n"
"""Not zipapp's own start, which drops the exit status."""


def pack(target: Path) -> None:
    """Write the agent to ``target``. Raises OSError."""
    home = Path(next(iter(brokers.__path__)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "brokers"
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(home / "bridge", root / "bridge", ignore=skipped)
        for name in SHARED:
            shutil.copy(home / f"{name}.py", root / f"{name}.py")
        (Path(folder) / "__main__.py").write_text(START, encoding="utf-8")
        zipapp.create_archive(folder, target, compressed=True)
