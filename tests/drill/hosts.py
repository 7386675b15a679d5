"""Two hosts of FKS as processes: each a web server, a worker and a beat, of an unprivileged user."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.drill.stores import Daemon, as_user
from tests.e2e.product import eventually, free_port

WAIT = 60.0  # seconds
ROLES = ("web", "worker", "beat")


@dataclass
class Host:
    """``tmp`` is all it may write."""

    name: str
    var: Path
    env: Mapping[str, str]
    port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        tmp = self.var / f"tmp-{self.name}"
        tmp.mkdir()
        tmp.chmod(0o777)
        env = {**self.env, "TMPDIR": str(tmp), "FKS_VAR": str(tmp), "HOME": str(tmp)}
        env |= {"FKS_WORKER_METRICS": f"127.0.0.1:{self.metrics_port}"}
        env |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        web = ["--http", f"127.0.0.1:{self.port}", "--processes", "1"]
        options = {"web": web, "worker": ["--threads", "12"], "beat": []}
        user = as_user("nobody") if os.geteuid() == 0 else []
        self.programs = {
            role: Daemon(
                f"{role} {self.name}",
                [*self._user(user), sys.executable, "manage.py", "serve", role, *options[role]],
                self.var / f"{role}-{self.name}.log",
                env,
            )
            for role in ROLES
        }

    @staticmethod
    def _user(prefix: list[str]) -> list[str]:
        return [word.replace("--regid=nobody", "--regid=nogroup") for word in prefix]

    def start(self, *roles: str) -> None:
        for role in roles or ROLES:
            self.programs[role].start()
        if not roles or "web" in roles:
            eventually(self.answers, seconds=WAIT, what=f"web {self.name}")

    def restart(self, role: str) -> None:
        """As a rolling update does: end it in its own time, start it, wait until it serves."""
        self.programs[role].stop()
        self.start(role)

    def send(self, number: signal.Signals) -> None:
        for program in self.programs.values():
            program.send(number)

    def stop(self) -> None:
        for program in self.programs.values():
            program.stop()

    def answers(self) -> bool:
        with suppress(OSError):
            url = f"http://127.0.0.1:{self.port}/health"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        return False
