"""``python -m tests.drill``: the production shape as plain processes, through a bad day, under traffic.

nginx with TLS, two hosts (web, worker, beat each) of an unprivileged user, Debian's PostgreSQL and
Redis, Prometheus, and the venues of tests/venues. In the end the venues' ledgers are compared with our
rows, order by order, with the judge of tests/chaos; then the backup made under traffic is restored.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.chaos.plan import Planner
from tests.drill import stores as engines
from tests.drill.hosts import ROLES, Host
from tests.drill.stores import Stores
from tests.e2e.product import ROOT, eventually, free_port

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


class Drill:
    """The whole shape; ``play`` takes it through the day and returns what is wrong."""

    def __init__(self, var: Path, options: argparse.Namespace, stack: ExitStack) -> None:
        from tests.chaos.venue import running_venue

        self.var, self.stack, self.rate, self.most = var, stack, options.rate, 0
        seed, orders = options.seed, options.orders
        self.stores = Stores(var)
        self.stores.start()
        stack.callback(self.stores.stop)
        self.venue = stack.enter_context(running_venue(seed, "none"))
        self.plan = Planner(seed)
        self.plan.draw(orders, 0)
        os.environ |= self._environment()
        self.hosts = [Host(name, var, dict(os.environ)) for name in ("a", "b")]
        self.port, self.prometheus_port = free_port(), free_port()

    def _environment(self) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "fks_site.settings",
            "DATABASE_URL": self.stores.database_url,
            "REDIS_URL": self.stores.redis_url,
            "FKS_VAR": str(self.var),
            "SECRET_KEY": secrets.token_urlsafe(48),
            "CREDENTIAL_KEYS": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "TRUSTED_PROXIES": "127.0.0.1/32",
            "FKS_BEHIND_TLS": "true",
            "LOG_FORMAT": "json",
        }

    def bring_up(self) -> None:
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
        for host in self.hosts:
            host.start()
            self.stack.callback(host.stop)
        web = [host.port for host in self.hosts]
        workers = [host.metrics_port for host in self.hosts]
        proxy = engines.nginx(self.var, self.port, web)
        watcher = engines.prometheus(
            self.var, self.prometheus_port, {"fks-web": web, "fks-worker": workers}
        )
        for daemon in (proxy, watcher):
            daemon.start()
            self.stack.callback(daemon.stop)
        say(f"nginx at {self.port}, web at {web}, Prometheus at {self.prometheus_port}")

    # --- the day ----------------------------------------------------------------------------------

    def events(self) -> dict[str, Callable[[], None]]:
        return {
            "deploy: migrate, then a rolling restart": self.deploy,
            "database restart": self.restart_database,
            "the queue is lost": self.lose_queue,
            "a host is cut off and comes back": self.cut_host,
            "a host dies and comes back": self.kill_host,
            "backup": self.back_up,
        }

    def deploy(self) -> None:
        manage("migrate", "--no-input")
        for role in ROLES:
            for host in self.hosts:
                host.restart(role)

    def restart_database(self) -> None:
        self.stores.postgres.stop(signal.SIGINT)
        time.sleep(2)
        self.stores.start_postgres()

    def lose_queue(self) -> None:
        self.stores.redis.stop(signal.SIGKILL)
        time.sleep(3)
        self.stores.start_redis()

    def cut_host(self) -> None:
        self.hosts[1].send(signal.SIGSTOP)
        time.sleep(8)
        self.hosts[1].send(signal.SIGCONT)

    def kill_host(self) -> None:
        for program in self.hosts[1].programs.values():
            program.stop(signal.SIGKILL)
        time.sleep(3)
        self.hosts[1].start()

    def back_up(self) -> None:
        self.backup = self.var / "drill.backup"
        made = manage("backup", str(self.backup), "--encrypt")
        say(f"  {made['rows']} rows, {made['bytes']} bytes")

    def play(self) -> list[str]:
        from tests.chaos.sender import Gate

        gate = Gate()
        senders = tls_senders()(self.port, self.paths, gate, self.var / "tls.crt")
        senders.send(self.plan.steps)
        threading.Thread(target=self._pace, args=(gate, senders), daemon=True).start()
        events = self.events()
        for number, (name, event) in enumerate(events.items(), start=1):
            share = len(self.plan.steps) // (len(events) + 2)
            wanted, self.most = share * number, share * (number + 1)
            eventually(
                lambda n=wanted: len(senders.acknowledged) >= n or not senders.busy,
                seconds=SETTLE,
                what=f"{wanted} alerts are acknowledged",
            )
            begun = time.monotonic()
            event()
            say(f"{name}: {time.monotonic() - begun:.1f} s ({len(senders.acknowledged)} alerts)")
        self.most = len(self.plan.steps)
        eventually(lambda: not senders.busy, seconds=SETTLE, what="all alerts are sent")
        say(f"answers: {dict(senders.answers)}")
        self.settle()
        return self.judge(senders)

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

    def judge(self, senders: Any) -> list[str]:
        from tests.chaos.verdict import Auditor

        ledgers = {name: self.venue.control.ledger(name) for name in ("binance", "kraken")}
        auditor = Auditor(ledgers)
        auditor.alerts(self.plan.steps, senders.acknowledged)
        auditor.cancels(self.plan.steps, senders.acknowledged)
        auditor.order_by_order()
        auditor.positions(ledgers)
        auditor.journals([])
        say(
            f"{len(senders.acknowledged)} of {len(self.plan.steps)} alerts acknowledged, "
            f"{len(auditor.orders)} orders, {len(auditor.placed)} at the venues, "
            f"{len(auditor.findings)} findings"
        )
        self.known = set(auditor.orders)
        return [f"{one.kind}: {one.what}" for one in auditor.findings] + senders.surprises

    # --- back to the backup -----------------------------------------------------------------------

    def restore(self) -> list[str]:
        """The book is older than the venues: nothing is sent, and what is missing is shown."""
        from django.db import connections

        from execution.models import Difference, Heartbeat, Order
        from execution.states import OrderState
        from risk.models import TradingState

        before = self.at_the_venues()
        for host in self.hosts:
            host.stop()
        Heartbeat.objects.all().delete()
        connections.close_all()
        answer = manage("restore", str(self.backup), "--replace")
        for host in self.hosts:
            host.start()
        doubted = Order.objects.filter(state__in=(OrderState.UNKNOWN, OrderState.SUBMITTING))
        eventually(lambda: not doubted.exists(), seconds=SETTLE, what="doubts are settled")
        self.reconcile()
        wrong = []
        if self.at_the_venues() != before:
            wrong.append("something was sent after the restore")
        state = TradingState.objects.get(scope="global").state
        if state != TradingState.State.HALTED:
            wrong.append(f"trading is {state} after the restore")
        ours = {order.client_order_id for order in Order.objects.select_related("account")}
        later = before.keys() - ours
        shown = Difference.objects.filter(state=Difference.State.OPEN).count()
        if later and not shown:
            wrong.append(f"{len(later)} orders are not in the book and no difference is shown")
        if before.keys() - self.known:
            wrong.append("the venues have orders nobody ever knew")
        say(f"restored {answer['rows']} rows: {len(later)} orders came later, {shown} differences")
        return wrong

    def at_the_venues(self) -> dict[str, int]:
        """How often each venue order exists, by client id."""
        found: dict[str, int] = {}
        for name in ("binance", "kraken"):
            for row in self.venue.control.ledger(name).orders:
                found[row.client_id] = found.get(row.client_id, 0) + 1
        return found

    def watched(self) -> list[str]:
        """Targets Prometheus does not reach, in the end."""
        url = f"http://127.0.0.1:{self.prometheus_port}/api/v1/targets?state=active"
        with urllib.request.urlopen(url, timeout=10) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
        say(f"Prometheus: {[target['health'] for target in targets]}")
        return [target["scrapeUrl"] for target in targets if target["health"] != "up"]


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


def main() -> int:
    """Exit status 1 when anything was lost, doubled or wrong; 2 when a program is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--orders", type=int, default=400)
    parser.add_argument("--rate", type=float, default=4, help="alerts per second")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if lacks := engines.missing():
        say(f"not installed here: {', '.join(lacks)}")
        return 2
    with ExitStack() as stack:
        var = Path(stack.enter_context(TemporaryDirectory(prefix="fks-drill-")))
        var.chmod(0o755)
        drill = Drill(var, options, stack)
        drill.bring_up()
        wrong = drill.play()
        wrong += drill.watched()
        wrong += drill.restore()
    for line in wrong:
        say(f"WRONG {line}")
    say("nothing lost, nothing doubled" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
