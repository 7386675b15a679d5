"""Runs the whole product as a user does (``manage.py up``), for tests that pull its plugs."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, TypeVar

import psutil
import psycopg

from fks_site import addresses

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(check: Callable[[], T], *, seconds: float, what: str) -> T:
    """The first truthy answer of ``check``; fails naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s (last answer {answer!r})")
        time.sleep(0.05)


@dataclass
class Product:
    """One installation under ``var``; may be started and stopped several times."""

    var: Path
    port: int = field(default_factory=free_port)
    output: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further settings, by their names in the environment."""
    _up: subprocess.Popen[str] | None = None

    @property
    def env(self) -> dict[str, str]:
        own = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "CREDENTIAL_KEYS", "FKS_VAR")
        env = {name: value for name, value in os.environ.items() if name not in own}
        return env | {"FKS_VAR": str(self.var)} | dict(self.settings)

    def start(self) -> None:
        """Start and wait for the last line of a start."""
        command = [sys.executable, "manage.py", "up", "--http", f"127.0.0.1:{self.port}"]
        self._up = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._up.stdout is not None
        self.output = ""
        for line in self._up.stdout:
            self.output += line
            if line.startswith("FKS runs at"):
                return
        raise AssertionError(f"it did not start:\n{self.output}")

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C, or another signal; returns the exit status."""
        assert self._up is not None
        self._up.send_signal(number)
        try:
            rest, _ = self._up.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill_everything()
            raise
        self.output += rest
        return self._up.returncode

    def processes(self) -> list[psutil.Process]:
        """Every process of this installation, by the ``var`` in its environment or arguments."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mine = process.environ().get("FKS_VAR") == str(self.var)
                if process.pid != os.getpid() and (mine or str(self.var) in process.cmdline()):
                    found.append(process)
        return found

    def running(self, *words: str) -> list[psutil.Process]:
        """Those with all of ``words`` in their command line, the oldest first.

        One that ends while it is looked at is left out.
        """
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if set(words) <= set(process.cmdline()):
                    found.append((process.create_time(), process.pid, process))
        return [process for _, _, process in sorted(found, key=lambda one: one[:2])]

    def workers(self) -> list[psutil.Process]:
        return self.running("worker")

    def kill_everything(self) -> None:
        """``kill -9`` of all of it at once."""
        killed = self.processes()
        for process in killed:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(killed, timeout=10)
        if self._up is not None:
            self._up.wait(10)
            if self._up.stdout is not None:
                self._up.stdout.close()

    def manage(self, *arguments: str, stdin: str = "") -> Any:
        """Run a management command; returns the JSON it printed, else its text."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            return done.stdout

    def within(self, code: str) -> Any:
        """Run ``code`` in the installation's own Django; returns what it leaves in ``answer``."""
        program = "import django, json; django.setup(); answer = None\n"
        done = subprocess.run(
            [sys.executable, "-c", f"{program}{code}\nprint(json.dumps(answer))"],
            cwd=ROOT,
            env=self.env | {"DJANGO_SETTINGS_MODULE": "fks_site.settings"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def rows(self, sql: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """What the installation's database answers."""
        with psycopg.connect(addresses.urls(self.var).database, autocommit=True) as database:
            cursor = database.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """POST JSON to the web server; returns status and answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)) as connection:
            connection.request("POST", path, json.dumps(body), dict(headers or {}))
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def demo_path(self) -> str:
        """The path of the printed ``curl`` line."""
        found = re.search(r"(/webhook/demo/[\w-]+)", self.output)
        assert found, self.output
        return found[1]


@contextmanager
def running_product(var: Path, **settings: str) -> Iterator[Product]:
    """A started installation; nothing of it is left afterwards."""
    product = Product(var, settings=settings)
    try:
        product.start()
        yield product
    finally:
        product.kill_everything()
