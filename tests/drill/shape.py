"""The production shape as plain processes: nginx with TLS, two hosts, the engines and the venues.

What a drill does to it is elsewhere; in the end the venues' ledgers are compared with our rows, order
by order, with the judge of tests/chaos.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.chaos.plan import Planner
from tests.drill import stores as engines
from tests.drill.hosts import Host
from tests.drill.stores import LOOPBACK, Stores
from tests.e2e.product import ROOT, eventually, free_port

if TYPE_CHECKING:
    from tests.chaos.trouble import Halt

SETTLE = 150.0  # seconds


def say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def manage(*arguments: str) -> Any:
    """Run a management command against the drill's database; its JSON, else its text."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    with suppress(json.JSONDecodeError):
        return json.loads(done.stdout)
    return done.stdout


def parsed(program: str, description: str | None, *, orders: int) -> argparse.Namespace:
    """What was asked for on the command line; ``orders`` unless told otherwise."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--orders", type=int, default=orders)
    parser.add_argument("--rate", type=float, default=4, help="alerts per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--logs", type=Path, help="a directory that gets everybody's log in the end"
    )
    return parser.parse_args()


def directory(stack: ExitStack, logs: Path | None) -> Path:
    """What all of it may write in; removed in the end, when ``logs`` has got everybody's log."""
    var = Path(stack.enter_context(TemporaryDirectory(prefix="fks-drill-")))
    var.chmod(0o755)
    if logs:
        logs.mkdir(parents=True, exist_ok=True)
        stack.callback(lambda: [shutil.copy(log, logs) for log in var.glob("*.log")])
    return var


class Shape:
    """Stores, venues and hosts; ``address`` is where the hosts find the stores."""

    def __init__(
        self,
        var: Path,
        options: argparse.Namespace,
        stack: ExitStack,
        address: str = LOOPBACK,
    ) -> None:
        from tests.chaos.venue import running_venue

        self.var, self.stack, self.rate, self.most = var, stack, options.rate, 0
        self.address = address
        self.stores = Stores(var, address)
        self.stores.start()
        stack.callback(self.stores.stop)
        everywhere = LOOPBACK if address == LOOPBACK else "0.0.0.0"  # noqa: S104  (in a network of our own)
        self.venue = stack.enter_context(running_venue(options.seed, "none", everywhere))
        self.plan = Planner(options.seed)
        self.plan.draw(options.orders, 0)
        os.environ |= self._environment()
        self.hosts: Sequence[Host] = self.make_hosts()
        self.port = free_port()

    def make_hosts(self) -> list[Host]:
        return [Host(name, self.var, dict(os.environ)) for name in ("a", "b")]

    def _environment(self) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "fks_site.settings",
            "DATABASE_URL": self.stores.database_url,
            "REDIS_URL": self.stores.redis_url,
            "FKS_VAR": str(self.var),
            "SECRET_KEY": secrets.token_urlsafe(48),
            "CREDENTIAL_KEYS": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "TRUSTED_PROXIES": f"{self.address}/32",
            "FKS_BEHIND_TLS": "true",
            "LOG_FORMAT": "json",
        }

    def lay_out(self) -> None:
        """The schema, and the rows the traffic needs."""
        import django

        manage("migrate", "--no-input")
        django.setup()
        from fks_site import addresses
        from tests.chaos.installation import Installation

        urls = addresses.Urls(self.stores.database_url, self.stores.redis_url)
        place = Installation(self.var, urls, None, None)  # type: ignore[arg-type]
        place._limits()
        place._accounts(self.venue)
        place._strategies()
        self.paths = place.paths

    def bring_up(self) -> None:
        self.lay_out()
        for host in self.hosts:
            self.stack.callback(host.stop)
            host.start()
        self.run(engines.nginx(self.var, self.port, [host.http for host in self.hosts]))
        say(f"nginx at {self.port}, web at {[host.http for host in self.hosts]}")

    def run(self, daemon: engines.Daemon) -> None:
        """Until the drill ends."""
        daemon.start()
        self.stack.callback(daemon.stop)

    # --- traffic ----------------------------------------------------------------------------------

    def send(self) -> Any:
        """The plan's alerts in the background, no more of them than ``most`` for now."""
        from tests.chaos.sender import Gate

        gate = Gate()
        senders = tls_senders()(self.port, self.paths, gate, self.var / "tls.crt")
        senders.send(self.plan.steps)
        threading.Thread(target=self._pace, args=(gate, senders), daemon=True).start()
        return senders

    def wait_for(self, wanted: int, senders: Any) -> None:
        eventually(
            lambda: len(senders.acknowledged) >= wanted or not senders.busy,
            seconds=SETTLE,
            what=f"{wanted} alerts are acknowledged",
        )

    def finish(self, senders: Any) -> None:
        """Until every alert is sent and everything has come to its end."""
        self.most = len(self.plan.steps)
        eventually(lambda: not senders.busy, seconds=SETTLE, what="all alerts are sent")
        say(f"answers: {dict(senders.answers)}")
        self.settle()

    def _pace(self, gate: Any, senders: Any) -> None:
        """Let alerts through at the rate asked for, each event its share of them; what could not be
        sent for a while does not come all at once.
        """
        due, tick = 0.0, 0.05
        while senders.busy:
            done = len(senders.acknowledged)
            due = min(due + self.rate * tick, done + self.rate, self.most)
            (gate.open.set if done < due else gate.open.clear)()
            time.sleep(tick)

    def settle(self) -> None:
        from django.db import connections

        from execution.models import Order, Signal
        from execution.states import OrderState, SignalState

        moving = (OrderState.PENDING, OrderState.SUBMITTING, OrderState.UNKNOWN)

        def quiet() -> bool:
            undecided = Signal.objects.filter(state=SignalState.RECEIVED).exists()
            orders = Order.objects.filter(state__in=(*moving, OrderState.CANCELING))
            return not undecided and not orders.exists()

        connections.close_all()
        eventually(quiet, seconds=SETTLE, what="everything is settled")
        self.reconcile()

    def reconcile(self) -> None:
        from brokers.models import Account
        from execution import reconcile

        for account in Account.objects.all():
            reconcile.reconcile_account(account)

    def judge(self, senders: Any, halts: Iterable[Halt] = ()) -> list[str]:
        from tests.chaos.verdict import Auditor

        ledgers = {name: self.venue.control.ledger(name) for name in ("binance", "kraken")}
        auditor = Auditor(ledgers)
        auditor.alerts(self.plan.steps, senders.acknowledged)
        auditor.cancels(self.plan.steps, senders.acknowledged)
        auditor.order_by_order()
        auditor.positions(ledgers)
        auditor.journals(halts)
        say(
            f"{len(senders.acknowledged)} of {len(self.plan.steps)} alerts acknowledged, "
            f"{len(auditor.orders)} orders, {len(auditor.placed)} at the venues, "
            f"{len(auditor.findings)} findings"
        )
        self.known = set(auditor.orders)
        return [*(f"{one.kind}: {one.what}" for one in auditor.findings), *senders.surprises]

    def at_the_venues(self) -> dict[str, int]:
        """How often each venue order exists, by client id."""
        found: dict[str, int] = {}
        for name in ("binance", "kraken"):
            for row in self.venue.control.ledger(name).orders:
                found[row.client_id] = found.get(row.client_id, 0) + 1
        return found


def tls_senders() -> type:
    """The senders of the storms, through nginx and TLS; they trust the certificate made here."""
    from tests.chaos.sender import Senders

    class TlsSenders(Senders):
        def __init__(self, port: int, paths: Any, gate: Any, certificate: Path) -> None:
            super().__init__(port, paths, gate)
            self._tls = ssl.create_default_context(cafile=str(certificate))

        def _post(self, path: str, body: str) -> tuple[int, dict[str, str]]:
            connection = http.client.HTTPSConnection(
                "localhost", self._port, timeout=25, context=self._tls
            )
            with suppress(OSError, http.client.HTTPException, ValueError):
                try:
                    connection.request("POST", path, body)
                    response = connection.getresponse()
                    return response.status, json.loads(response.read())
                finally:
                    connection.close()
            return 0, {}

    return TlsSenders
