"""What a process of a run is: parts of the product as it runs them, and commands that may be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.clock import SharedClock
from tests.chaos.fuses import Fuses

THREADS = 4
STORM_THREADS = 2
"""Where a worker lives for seconds: each thread costs a database connection that knows nothing yet."""
WEB_WORKERS = 2


@dataclass(frozen=True)
class Terms:
    """What the processes of a run are to know."""

    var: Path
    port: int
    venue: str
    fuses: Fuses | None
    """``None``: nothing is wrapped, and no process dies."""
    disabled: str
    clock: SharedClock


def _worker(terms: Terms) -> None:
    _work(terms, "orders,default,sweeps")


def _exits(terms: Terms) -> None:
    """The worker that exits have to themselves."""
    _work(terms, "exits")


def _work(terms: Terms, queues: str) -> None:
    from fks_site.celery import app

    threads = THREADS if terms.fuses is None else STORM_THREADS
    options = ["--pool", "threads", "--concurrency", str(threads), "--loglevel", "WARNING"]
    options += ["-Q", queues, "-n", f"worker{os.getpid()}@chaos"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["--quiet", "worker", *options, *quiet])


def _beat(terms: Terms) -> None:
    from fks_site.celery import app

    schedule = str(terms.var / "beat-schedule")
    app.start(["--quiet", "beat", "-s", schedule, "--pidfile=", "--loglevel", "WARNING"])


def _web(terms: Terms) -> None:
    from granian import Granian
    from granian.constants import Interfaces
    from granian.log import LogLevels

    Granian(
        "fks_site.asgi:application",
        address="127.0.0.1",
        port=terms.port,
        interface=Interfaces.ASGINL,
        websockets=False,
        workers=WEB_WORKERS,
        backpressure=448,
        respawn_failed_workers=True,
        respawn_interval=0.2,
        log_level=LogLevels.warning,
    ).serve()


def _halt(terms: Terms, account: str, die: str, mode: str = "cancel_all") -> None:
    """The kill switch; ``die`` says after how many cancels and closes it is killed, empty for never."""
    from django.core.management import call_command

    from execution import dispatch

    left = [int(die or -1)]

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return act(*args, **kwargs)

        return wrapper

    dispatch.cancel, dispatch.place = counted(dispatch.cancel), counted(dispatch.place)
    call_command("halt", account=account, mode=mode, reason="chaos")


def _reconcile(terms: Terms, account: str, die: str) -> None:
    """A reconciliation, killed ``before``, ``within`` or ``after`` it stores what it found."""
    from django.db import transaction

    from brokers.models import Account
    from execution import comparison, reconcile

    compare = comparison.compare

    def killed(*args: Any, **kwargs: Any) -> Any:
        if die == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        with transaction.atomic():
            found = compare(*args, **kwargs)
            if die == "within":
                os.kill(os.getpid(), signal.SIGKILL)
        if die == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    comparison.compare = killed
    reconcile.reconcile_account(Account.objects.get(name=account))


def _resume(terms: Terms, account: str) -> None:
    from django.core.management import call_command

    call_command("resume", account=account, reason="chaos")


def _migrate(terms: Terms) -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


ROLES: dict[str, Callable[..., None]] = {
    "worker": _worker,
    "exits": _exits,
    "beat": _beat,
    "web": _web,
    "halt": _halt,
    "reconcile": _reconcile,
    "resume": _resume,
    "migrate": _migrate,
}
