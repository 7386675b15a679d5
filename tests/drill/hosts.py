"""Two hosts of FKS as processes: each a web server, a worker and a beat, of an unprivileged user."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.drill.stores import LOOPBACK, Daemon, as_user
from tests.e2e.product import eventually, free_port

WAIT = 180.0  # seconds
ROLES = ("web", "worker", "beat")


@dataclass
class Host:
    """``tmp`` is all it may write."""

    name: str
    var: Path
    env: Mapping[str, str]
    address: str = LOOPBACK
    inside: Sequence[str] = ()
    """A prefix of its commands that puts them into its network."""
    port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        tmp = self.var / f"tmp-{self.name}"
        tmp.mkdir()
        tmp.chmod(0o777)
        env = {**self.env, "TMPDIR": str(tmp), "FKS_VAR": str(tmp), "HOME": str(tmp)}
        env |= {"FKS_WORKER_METRICS": self.worker_metrics}
        env |= {"ALLOWED_HOSTS": f"localhost,127.0.0.1,{self.address}"}
        env |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        web = ["--http", self.http, "--processes", "1"]
        options = {"web": web, "worker": ["--threads", "12"], "beat": []}
        user = as_user("nobody") if os.geteuid() == 0 else []
        prefix = [*self.inside, *self._user(user)]
        self.programs = {
            role: Daemon(
                f"{role} {self.name}",
                [*prefix, sys.executable, "manage.py", "serve", role, *options[role]],
                self.var / f"{role}-{self.name}.log",
                env,
            )
            for role in ROLES
        }

    @property
    def http(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def worker_metrics(self) -> str:
        return f"{self.address}:{self.metrics_port}"

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

    def revive(self) -> list[str]:
        """Start again what has ended by itself, as a supervisor does; its roles."""
        ended = [role for role, program in self.programs.items() if program.has_ended()]
        for role in ended:
            self.programs[role].start()
        return ended

    def send(self, number: signal.Signals) -> None:
        for program in self.programs.values():
            program.send(number)

    def die(self) -> None:
        """At once and with everything, as a machine does: also what a program has started itself."""
        for program in self.programs.values():
            assert program.process is not None
            started = psutil.Process(program.process.pid).children(recursive=True)
            program.stop(signal.SIGKILL)
            for child in started:
                with suppress(psutil.NoSuchProcess):
                    child.kill()

    def stop(self) -> None:
        for program in self.programs.values():
            program.stop()

    def answers(self) -> bool:
        with suppress(OSError):
            url = f"http://{self.http}/health"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        return False
