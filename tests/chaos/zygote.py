"""A process that has imported everything and forks the product's processes from itself.

A Celery worker spends two seconds on imports, which a run of thousands of kills cannot pay. The
zygote holds no connection and no thread, so what it forks differs from a fresh process in nothing
but the time it took.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from base64 import b64encode
from contextlib import suppress
from importlib import import_module
from typing import Any

from brokers import crypto
from brokers.prepared import Prepared
from brokers.registry import registry
from brokers.types import AccountConfig, Environment
from tests.chaos.crash import Crasher
from tests.chaos.patches import disable
from tests.chaos.plan import account_options
from tests.chaos.roles import ROLES, Terms

LATE_IMPORTS = (
    "billiard.pool",
    "brokers.quote_sources",
    "ccxt",
    "celery.app.control",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "celery.events",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "fks_site.clock",
    "fks_site.gate",
    "fks_site.urls",
    "fks_site.wsgi",
    "granian",
    "kombu.transport.redis",
)

PR_SET_CHILD_SUBREAPER = 36
"""Who loses its parent becomes ours, so that what it has used is counted."""


def load_everything(venue: str) -> None:
    """Import what the processes would import, and make what each would make once."""
    for name in LATE_IMPORTS:
        import_module(name)
    app = import_module("fks_site.celery").app
    app.loader.import_default_modules()
    app.finalize()
    _ = app.backend
    os.environ["CELERY_SKIP_CHECKS"] = "1"  # of the code, which the migration has checked
    crypto.current_key_id()
    _prepare_statements()
    _know_exchanges(venue)


def _prepare_statements() -> None:
    from django.db import connections, transaction

    with transaction.atomic():
        for prepared in [one for one in gc.get_objects() if isinstance(one, Prepared)]:
            prepared.compile()
    connections.close_all()


def _know_exchanges(venue: str) -> None:
    """What the library makes of an exchange for its first client, without asking anything."""
    plugin = registry().get("ccxt")
    for exchange in ("binance", "kraken"):
        secret = b64encode(bytes(64)).decode()
        config = AccountConfig(
            exchange,
            exchange,
            Environment.SANDBOX,
            account_options(exchange, venue),
            {"api_key": "x" * 64, "api_secret": secret},
        )
        one = plugin()
        one.init(config)
        one.close()


class Zygote:
    """Forks on request, reports every start and death, one JSON object per line."""

    def __init__(self, terms: Terms, channel: socket.socket) -> None:
        self.terms = terms
        self.channel = channel
        self.children: dict[int, str] = {}

    def run(self) -> None:
        """Until the driver closes its end; then every child dies."""
        wake = os.pipe()
        os.set_blocking(wake[1], False)
        signal.set_wakeup_fd(wake[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        os.setsid()  # what stops the driver must reach the children through us
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        gc.collect()
        gc.freeze()
        lines = b""
        while True:
            ready = select.select([self.channel.fileno(), wake[0]], [], [])[0]
            if wake[0] in ready:
                os.read(wake[0], 4096)
                self._reap()
            if self.channel.fileno() in ready:
                data = self.channel.recv(65536)
                if not data:
                    return self._end()
                *whole, lines = (lines + data).split(b"\n")
                for line in whole:
                    self._obey(*json.loads(line), wake=wake)

    def _obey(self, order: str, *arguments: str, wake: tuple[int, int]) -> None:
        if order == "signal":
            self._signal(int(arguments[0]), signal.Signals(int(arguments[1])))
        else:
            self._start(order, *arguments, wake=wake)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        """To a child and what it started. Only here is it sure that the pid is still the child's."""
        if pid in self.children:
            with suppress(ProcessLookupError):
                os.killpg(pid, number)

    def _start(self, role: str, *arguments: str, wake: tuple[int, int]) -> None:
        pid = os.fork()
        if pid == 0:
            for end in wake:
                os.close(end)
            self._become(role, arguments)
        self.children[pid] = role
        self._tell(started=pid, role=role)

    def _become(self, role: str, arguments: tuple[str, ...]) -> None:
        status = 1
        try:
            os.setsid()
            self.channel.close()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            log = os.open(self.terms.var / f"{role}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(log, stream)
            sys.argv = [role]
            self.terms.clock.follow()
            disable(self.terms.disabled)
            if role in ("worker", "exits", "web") and self.terms.fuses:
                Crasher(self.terms.fuses, self.terms.venue).install()
            ROLES[role](self.terms, *arguments)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._tell(
                died=pid,
                role=self.children.pop(pid, ""),
                status=os.waitstatus_to_exitcode(status),
                seconds=used.ru_utime + used.ru_stime,
            )

    def _end(self) -> None:
        for pid in self.children:
            self._signal(pid, signal.SIGKILL)

    def _tell(self, **event: Any) -> None:
        with suppress(OSError):
            self.channel.sendall(json.dumps(event).encode() + b"\n")


def fork_zygote(terms: Terms) -> socket.socket:
    """Fork the zygote from this process, which has imported everything; the driver's end."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        try:
            Zygote(terms, theirs).run()
        finally:
            os._exit(0)
    theirs.close()
    return ours
