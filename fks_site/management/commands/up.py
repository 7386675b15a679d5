"""``manage.py up``: the whole product in one terminal."""

from __future__ import annotations

import http.client
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from execution.handing_out import EXITS, ORDERS, SWEEPS
from fks_site import addresses, preflight, processes, programs
from fks_site.embedded import Postgres, Valkey
from fks_site.processes import StartError
from fks_site.supervisor import Program, Stopped, Supervisor

READY_TIMEOUT = 60.0  # seconds
_MARK = "FKS_UP_VAR"  # in every child's environment: which run it belongs to
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

GRACE = {"web": 15.0, "beat": 5.0, "worker": 30.0, "exits": 30.0}
"""How long each may take to finish its work, in seconds. Whatever is cut short is found again in the
database by the sweep."""


class Command(BaseCommand):
    help = "Start everything FKS needs, and stop it on Ctrl-C."
    requires_system_checks: list[str] = []  # noqa: RUF012  (Django's own declaration)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--http",
            default=addresses.USUAL_HTTP,
            metavar="HOST:PORT",
            help="where the web server listens (%(default)s)",
        )
        parser.add_argument(
            "--var",
            default=settings.FKS_VAR,
            type=Path,
            help="directory of all state (%(default)s)",
        )
        parser.add_argument("--no-demo", action="store_true", help="make no demo strategy")

    def handle(self, *_args: Any, **options: Any) -> None:
        host, port = _host_and_port(options["http"])
        run = _Run(self, host, port, options["var"].resolve(), demo=not options["no_demo"])
        try:
            with preflight.sole_run(run.var), Supervisor(run.say) as supervisor:
                run.start(supervisor)
                supervisor.keep()
        except StartError as error:
            self.stderr.write(self.style.ERROR(str(error)))
            raise SystemExit(1) from None
        run.say("Stopped.")


def _host_and_port(text: str) -> tuple[str, int]:
    """``HOST:PORT``, ``[V6]:PORT`` or ``PORT``."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise CommandError(f"--http wants HOST:PORT, such as 127.0.0.1:8000, and not {text!r}.")
    return host.strip("[]") or "127.0.0.1", int(port)


class _Run:
    """The steps of a start, each said in one line with the time it took."""

    def __init__(self, command: Command, host: str, port: int, var: Path, *, demo: bool) -> None:
        self.host, self.port, self.var, self.demo = host, port, var, demo
        self._out = command.stdout
        self._env = {**os.environ, "FKS_VAR": str(var), _MARK: str(var), "PYTHONUNBUFFERED": "1"}
        if host not in _EVERY_ADDRESS:
            self._env.setdefault("ALLOWED_HOSTS", f"localhost,127.0.0.1,[::1],{_bracketed(host)}")

    def say(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            return  # the terminal is gone; stopping must go on

    def start(self, supervisor: Supervisor) -> None:
        """Raises ``StartError`` at the first step that fails."""
        with self._step("checks"):
            processes.end_leftovers(lambda process: process.environ().get(_MARK) == str(self.var))
            preflight.check_disk(self.var)
            preflight.check_port(self.host, self.port)
            preflight.ensure_keys(self.var)
            addresses.note_http(self.var, self._address())
        self._start_servers(supervisor)
        with self._step("tables, first rows"):
            # In one process: two would load the whole of FKS twice.
            options = ["--migrate", "--http", self._address()]
            options += [] if self.demo else ["--no-demo"]
            news = self._manage(supervisor, "first_start", *options)
        if news.strip():
            self.say(f"\n{news.rstrip()}\n\n")
        self._share_metrics()
        started = [self._program(*item) for item in self._programs().items()]
        for program in started:
            supervisor.start(program)
        with self._step("web, workers, beat"):
            self._wait_until_ready(supervisor, started)
        self.say(f"FKS runs at http://{self._address()}/admin/ and stops on Ctrl-C.")

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.say(f"{what:<20}{time.monotonic() - started:5.1f} s")

    def _start_servers(self, supervisor: Supervisor) -> None:
        urls = addresses.urls(self.var)
        for title, kind, name, url in (
            ("PostgreSQL", Postgres, "DATABASE_URL", urls.database),
            ("Valkey", Valkey, "REDIS_URL", urls.redis),
        ):
            if preflight.given(name):
                self.say(f"{title:<20}as {name} says")
                continue
            with self._step(title):
                supervisor.start(kind(self.var))
            self._env[name] = url

    def _share_metrics(self) -> None:
        """Every program counts into one directory, emptied here; ``/metrics`` adds them up."""
        directory = self.var / "metrics"
        shutil.rmtree(directory, ignore_errors=True)
        processes.make_directory(directory)
        self._env["PROMETHEUS_MULTIPROC_DIR"] = str(directory)

    def _programs(self) -> dict[str, list[str]]:
        """Module and arguments of each program; they stop in the reverse order."""
        schedule = self.var / "beat" / "schedule"
        processes.make_directory(schedule.parent)
        return {
            "worker": programs.worker((ORDERS, SWEEPS)),
            "exits": programs.worker((EXITS,), programs.THREADS // 2),
            "beat": programs.beat(schedule),
            "web": programs.web(self.host, self.port),
        }

    def _program(self, name: str, arguments: list[str]) -> Program:
        log = self.var / "log" / f"{name}.log"
        return Program(name, ["-m", *arguments], log, self._env, settings.BASE_DIR, GRACE[name])

    def _manage(self, supervisor: Supervisor, name: str, *arguments: str) -> str:
        return supervisor.command(
            f"manage.py {name}",
            [str(settings.BASE_DIR / "manage.py"), name, *arguments],
            log=self.var / "log" / f"{name}.log",
            env=self._env,
            cwd=settings.BASE_DIR,
        )

    def _address(self) -> str:
        return f"{_bracketed(_EVERY_ADDRESS.get(self.host, self.host))}:{self.port}"

    def _wait_until_ready(self, supervisor: Supervisor, started: list[Program]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        try:
            while (answer := self._ask_ready()) is not None:
                if time.monotonic() > deadline:
                    self.say(f"Not ready yet, still trying: {answer}")
                    return
                supervisor.pause(0.25)
        except Stopped:
            # They have done no work yet, and while they load they do not hear a SIGTERM.
            for program in started:
                program.kill()
            raise

    def _ask_ready(self) -> str | None:
        """``None`` when all is well, else why not."""
        host = _EVERY_ADDRESS.get(self.host, self.host)
        with closing(http.client.HTTPConnection(host, self.port, timeout=10)) as connection:
            try:
                connection.request("GET", "/ready", headers={"Host": "localhost"})
                response = connection.getresponse()
                body = response.read(2000).decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                return f"the web server does not answer ({error})"
        if response.status == http.HTTPStatus.OK:
            return None
        return f"GET /ready: {response.status} {body if body.startswith('{') else ''}".rstrip()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
