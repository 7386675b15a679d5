"""The agent as one file, run by a Python that has nothing installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from brokers.bridge.drivers import CLASSES
from brokers.bridge.package import pack
from tests.brokers.terminals import mt5
from tests.brokers.terminals.agent import VENDOR
from tests.brokers.terminals.rigs import mt5_agent


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "fks-bridge.pyz"
    pack(file)
    return file


def python(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """-S: without anything installed."""
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True)


def test_one_file_runs_without_django_or_anything_installed(program: Path) -> None:
    terminal = mt5.Mt5Terminal()
    with mt5.running(terminal) as address:
        agent = mt5_agent(program.parent, terminal, address)
        vendor = {**agent.environment(), "PYTHONPATH": str(VENDOR)}
        done = python(program.parent, str(program), "check", str(agent.file), **vendor)
    assert (done.returncode, done.stderr) == (0, "")
    assert "MetaTrader 5: on account 5012345 (demo)" in done.stdout
    assert "BTC/USDT = BTCUSDT, steps: quantity 0.001, price 0.01" in done.stdout


@pytest.mark.parametrize("driver", CLASSES)
def test_each_driver_is_whole_in_the_one_file(program: Path, driver: str) -> None:
    module, _, name = CLASSES[driver].partition(":")
    code = f"from {module} import {name} as made; print(made.name, made.__module__)"
    done = python(program.parent, "-c", code, PYTHONPATH=str(program))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{driver} {module}\n"


def test_the_one_file_tells_by_its_exit_status_that_it_failed(program: Path) -> None:
    """Whatever starts it again after a failure has nothing else to go by."""
    done = python(program.parent, str(program), "serve", "absent.toml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("SettingsError: absent.toml: ")
