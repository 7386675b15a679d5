"""The commands of the documentation, run as they stand on one installation, page after page.

A block that cannot run here says so above itself, with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.console import Console
from tests.e2e.product import ROOT, Product, running_product
from tests.venues.client import running_venue
from tests.venues.credentials import BINANCE_KEY, BINANCE_SECRET

BLOCK = re.compile(
    r"(?:<!-- not run by the tests: (?P<why>[^\n]+) -->\n\n)?"
    r"(?P<indent> *)```sh\n(?P<text>.*?)\n *```$",
    re.DOTALL | re.MULTILINE,
)
RUN = (
    "README.md",
    "docs/start.md",
    "docs/tradingview.md",
    "docs/migration.md",
    "docs/limits.md",
    "docs/operating.md",
    "docs/brokers/paper.md",
    "docs/audit.md",
    "docs/api.md",
    "docs/performance.md",
    "docs/runbook.md",
)
"""In this order: an account that one page adds is used by another, and the last one halts."""
NOT_RUN = 15
"""Blocks with a reason. More of them is a decision, not an accident."""
MANAGE = "python manage.py "
COMMAND = re.compile(rf"^{re.escape(MANAGE)}", re.MULTILINE)
SHELL = re.compile(r"\||>|\$\(|^(?:cp|curl|echo|\.) ", re.MULTILINE)
CURL = 'curl() { command curl -sS --fail-with-body "$@"; }\n'


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    text: str
    why_not: str


def blocks() -> list[Block]:
    """Every shell block of README and ``docs``; those of ``RUN`` first, in its order."""
    found = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
    pages = [*RUN, *(page for page in found if page not in RUN)]
    return [
        Block(page, match["text"], match["why"] or "")
        for page in pages
        for match in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
    ]


def checkout(folder: Path, product: Product) -> Path:
    """The repository as an operator has it: its files, and the installation under ``var``."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name not in ("var", ".venv"):
            (folder / path.name).symlink_to(path)
    (folder / "var").symlink_to(product.var)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def values(product: Product, base_url: str, safe: Path) -> Mapping[str, str]:
    """What an operator writes in the place of what the pages say."""
    token = product.demo_path().rpartition("/")[2]
    password = re.search(r"password (\S+)", product.printed_first)
    assert password
    keys = f'"api_key": "{BINANCE_KEY}", "api_secret": "{BINANCE_SECRET}"'
    return {
        "127.0.0.1:8000": f"127.0.0.1:{product.port}",
        "localhost:8000": f"127.0.0.1:{product.port}",
        "<token>": token,
        "--token TOKEN": f"--token {token}",
        '"api_key": "…", "api_secret": "…"': keys,
        '{"exchange": "binance"}': f'{{"exchange": "binance", "base_url": "{base_url}"}}',
        '"olivia", "password": "…"': f'"admin", "password": "{password[1]}"',
        "--account main": "--account paper",
        "/somewhere/safe/": str(safe),
        "--webhooks 2000 --concurrent 8 --duration 60": "--webhooks 20 --concurrent 2 --duration 5",
    }


def test_every_block_is_run_or_says_why_not() -> None:
    assert [one for one in blocks() if one.page not in RUN and not one.why_not] == []
    assert len([one for one in blocks() if one.why_not]) == NOT_RUN
    assert {one.page for one in blocks() if not one.why_not} == set(RUN)


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_the_commands_of_the_documentation_work(tmp_path: Path) -> None:
    with running_venue() as venue, running_product(tmp_path / "var") as product:
        operator = Operator(product, checkout(tmp_path / "fks", product))
        (tmp_path / "safe").mkdir()
        replaced = values(product, venue.base_url, tmp_path / "safe")
        complaints = []
        for block in [one for one in blocks() if not one.why_not]:
            text = block.text
            for old, new in replaced.items():
                text = text.replace(old, new)
            complaints += [(block.page, told) for told in operator.carry_out(text)]
        operator.console.end()

        # The runbook asks the doctor after it has halted: that is what the doctor names.
        told = complaints.pop()
        assert complaints == []
        assert told[0] == "docs/runbook.md"
        assert told[1].startswith("doctor")
        assert told[1].count("release it with `manage.py resume --reason …`") == 1
        assert told[1].count("release it with `manage.py resume --account ") == 1
        assert "2 things to look at" in told[1]


class Operator:
    """Types what the pages say, in a checkout. Commands of FKS alone share one process."""

    def __init__(self, product: Product, folder: Path) -> None:
        self._env = product.env | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{product.env['PATH']}"
        }
        self._folder = folder
        self.console = Console(self._env, folder)

    def carry_out(self, text: str) -> list[str]:
        """What failed of it, with what was printed."""
        commands = COMMAND.split(text.replace("\\\n", " "))[1:]
        if not text.startswith(MANAGE) or re.search(SHELL, text):
            return self._in_bash(text)
        answers = [(one, self.console.command(shlex.split(one, comments=True))) for one in commands]
        return [f"{one}: {done.out}{done.err}" for one, done in answers if done.status]

    def _in_bash(self, text: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", CURL + text],
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        return [f"{text}: {done.stdout}{done.stderr}"] if done.returncode else []
