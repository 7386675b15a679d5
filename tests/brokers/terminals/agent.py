"""A bridge agent as a process of its own, on loopback, that can be killed and started again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brokers.bridge.signing import new_key
from brokers.plugins.bridge import BridgePlugin
from brokers.types import AccountConfig, Environment

ROOT = Path(__file__).resolve().parents[3]
VENDOR = Path(__file__).parent / "vendor"
SECONDS = 20


@dataclass
class RunningAgent:
    """``settings`` are lines of its TOML file, ``variables`` its environment.

    ``program`` is what Python is told to run.
    """

    folder: Path
    driver: str
    account: str
    instruments: str
    settings: str = ""
    table: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = field(default=("-m", "brokers.bridge"), init=False)

    def __post_init__(self) -> None:
        self.key = new_key()
        self.port = free_port()
        (self.folder / "bridge.key").write_text(self.key)
        self.file = self.folder / "bridge.toml"
        self.write()
        self.process: subprocess.Popen[str] | None = None

    def write(self) -> None:
        self.file.write_text(
            f'driver = "{self.driver}"\nlisten = "127.0.0.1:{self.port}"\n'
            f'key_file = "bridge.key"\njournal = "journal.sqlite3"\nlog = "agent.log"\n'
            f'accounts = ["{self.account}"]\n{self.settings}\n'
            f"[{self.driver}]\n{self.table}\n{self.instruments}\n"
        )

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join((str(ROOT), str(VENDOR)))
        return {**os.environ, "PYTHONPATH": path, **self.variables}

    def start(self) -> None:
        command = [sys.executable, *self.program, "serve", str(self.file)]
        self.process = subprocess.Popen(
            command, env=self.environment(), stdout=subprocess.DEVNULL, cwd=self.folder
        )
        self.wait()

    def wait(self) -> None:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the agent ended with {self.process.returncode}")
            time.sleep(0.02)
        raise AssertionError("the agent does not listen")

    def kill(self) -> None:
        """No chance to tidy up."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *self.program, *arguments],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def plugin(
        self, environment: Environment = Environment.SANDBOX, **options: Any
    ) -> BridgePlugin:
        plugin = BridgePlugin()
        told = {"url": f"http://127.0.0.1:{self.port}", "account": self.account, **options}
        plugin.init(AccountConfig("1", "bridge", environment, told, {"bridge_key": self.key}))
        return plugin


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
