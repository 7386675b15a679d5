"""``manage.py serve``: one program of FKS in the foreground, for containers and hosts of your own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from fks_site import programs
from fks_site.lease import BEAT, Lease

LOOK = 2.0  # seconds between two looks at the lease
GRACE = 5.0  # seconds


class Command(BaseCommand):
    help = (
        "Run the web server, a worker or beat in the foreground, against DATABASE_URL and REDIS_URL. "
        "Any number of each may run: of several beats one works and the others wait."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012  (Django's own declaration)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("program", choices=["web", "worker", "beat"])
        parser.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT")
        parser.add_argument("--processes", type=int, default=2, help="of the web server")
        parser.add_argument(
            "--queues", default=",".join(programs.QUEUES), help="of a worker (%(default)s)"
        )
        parser.add_argument("--threads", type=int, default=programs.THREADS, help="of a worker")

    def handle(self, *_args: Any, **options: Any) -> None:
        match options["program"]:
            case "web":
                host, _, port = options["http"].rpartition(":")
                os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(_metrics_directory()))
                _become(programs.web(host.strip("[]"), int(port), options["processes"]))
            case "worker":
                queues = tuple(options["queues"].split(","))
                if unknown := set(queues) - set(programs.QUEUES):
                    raise CommandError(f"there is no queue {', '.join(sorted(unknown))}")
                _become(programs.worker(queues, options["threads"]))
            case _:
                sys.exit(_beat())


def _metrics_directory() -> Path:
    """Empty, for what the web processes of this start count together."""
    directory = Path(gettempdir()) / f"fks-metrics-{os.getpid()}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return directory


def _become(arguments: list[str]) -> None:
    """This process is the program from now on: signals reach it, and its end is ours."""
    os.chdir(settings.BASE_DIR)
    os.execv(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606


def _dying_with_us() -> list[str]:
    """Else a beat whose keeper was killed would tick on without the lease."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def _beat() -> int:
    """Wait for the lease, run beat while it is held, and end with either."""
    lease, stopping = Lease(BEAT), []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    while not lease.take():
        if stopping:
            return 0
        time.sleep(LOOK)
    schedule = Path(gettempdir()) / f"fks-beat-{os.getpid()}"
    command = [*_dying_with_us(), sys.executable, "-m", *programs.beat(schedule)]
    with subprocess.Popen(command, cwd=settings.BASE_DIR) as process:  # noqa: S603
        try:
            while process.poll() is None and not stopping and lease.is_held():
                time.sleep(LOOK)
        finally:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
    lease.give_back()
    return 0 if stopping else 1
