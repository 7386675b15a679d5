"""Runs the whole product as a user does (``manage.py up``), for tests that pull its plugs."""

from __future__ import annotations

import atexit
import fcntl
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
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, LiteralString, TypeVar

import psutil
import psycopg

from fks_site import addresses
from tests import servers
from tests.e2e.console import Console

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
    printed_first: str = ""
    """What the first start of an installation that this one is a copy of has printed."""
    _up: subprocess.Popen[str] | None = None
    _commands: Console | None = None

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
        self._end_console()
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
        own = {os.getpid(), self._commands.pid if self._commands else 0}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mine = process.environ().get("FKS_VAR") == str(self.var)
                if process.pid not in own and (mine or str(self.var) in process.cmdline()):
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
        self._end_console()
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
        done = self._console().command(arguments, stdin)
        assert done.status == 0, done.out + done.err
        try:
            return json.loads(done.out)
        except json.JSONDecodeError:
            return done.out

    def within(self, code: str) -> Any:
        """Run ``code`` in the installation's own Django; returns what it leaves in ``answer``."""
        done = self._console().code(code)
        assert done.status == 0, done.err
        return json.loads(done.out.splitlines()[-1])

    def _console(self) -> Console:
        if self._commands is None or not self._commands.is_alive:
            self._commands = Console(self.env, ROOT)
        return self._commands

    def _end_console(self) -> None:
        if self._commands is not None:
            self._commands.end()
            self._commands = None

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
        found = re.search(r"(/webhook/demo/[\w-]+)", self.printed_first + self.output)
        assert found, self.output
        return found[1]


@cache
def _installed() -> Product:
    """An installation after its first start; what needs no new one begins with a copy of it.

    The workers of a test run share it: the first that wants it makes it.
    """
    folder = _folder_of_the_run()
    folder.mkdir(exist_ok=True)
    product, printed = Product(folder / "var"), folder / "printed"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            try:
                product.start()
                assert product.stop() == 0
            finally:
                product.kill_everything()
            printed.write_text(product.output)
    product.output = printed.read_text()
    return product


def _folder_of_the_run() -> Path:
    """Removed at its end. A benchmark has one of its own."""
    if servers.STARTED in os.environ:
        return Path(os.environ["FKS_VAR"]) / "installed"
    folder = TemporaryDirectory(ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return Path(folder.name)


@contextmanager
def running_product(var: Path, *, is_new: bool = False, **settings: str) -> Iterator[Product]:
    """A started installation; nothing of it is left afterwards."""
    product = Product(var, settings=settings)
    if not is_new:
        var.parent.mkdir(exist_ok=True)
        if var.exists():
            var.rmdir()
        # With its owners: PostgreSQL runs as another user where the tests run as root.
        subprocess.run(["cp", "-a", str(_installed().var), str(var)], check=True)
        product.printed_first = _installed().output
    try:
        product.start()
        yield product
    finally:
        product.kill_everything()
