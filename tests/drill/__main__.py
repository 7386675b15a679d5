"""``python -m tests.drill``: the production shape as plain processes, through a bad day, under traffic.

nginx with TLS, two hosts (web, worker, beat each) of an unprivileged user, Debian's PostgreSQL and
Redis, Prometheus, and the venues of tests/venues. In the end the venues' ledgers are compared with our
rows, order by order, with the judge of tests/chaos; then the backup made under traffic is restored.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.chaos.plan import QUANTITIES, Step, lanes
from tests.chaos.sender import Gate
from tests.drill import stores as engines
from tests.drill.hosts import ROLES
from tests.drill.shape import SETTLE, Shape, directory, manage, parsed, say, tls_senders
from tests.e2e.product import eventually, free_port

LATE = 24
"""Alerts that arrive while the backup is put back."""


class Drill(Shape):
    """``play`` takes it through the day and returns what is wrong."""

    def watch(self) -> None:
        self.prometheus_port = free_port()
        targets = {
            "fks-web": [host.http for host in self.hosts],
            "fks-worker": [host.worker_metrics for host in self.hosts],
        }
        self.run(engines.prometheus(self.var, self.prometheus_port, targets))

    # --- the day ----------------------------------------------------------------------------------

    def events(self) -> dict[str, Callable[[], None]]:
        return {
            "deploy: migrate, then a rolling restart": self.deploy,
            "database restart": self.restart_database,
            "the queue is lost": self.lose_queue,
            "a host is held up and goes on": self.hold_host_up,
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

    def hold_host_up(self) -> None:
        self.hosts[1].send(signal.SIGSTOP)
        time.sleep(8)
        self.hosts[1].send(signal.SIGCONT)

    def kill_host(self) -> None:
        self.hosts[1].die()
        time.sleep(3)
        self.hosts[1].start()

    def back_up(self) -> None:
        self.backup = self.var / "drill.backup"
        made = manage("backup", str(self.backup), "--encrypt")
        say(f"  {made['rows']} rows, {made['bytes']} bytes")

    def play(self) -> list[str]:
        senders = self.send()
        events = self.events()
        for number, (name, event) in enumerate(events.items(), start=1):
            share = len(self.plan.steps) // (len(events) + 2)
            self.most = share * (number + 1)
            self.wait_for(share * number, senders)
            begun = time.monotonic()
            event()
            say(f"{name}: {time.monotonic() - begun:.1f} s ({len(senders.acknowledged)} alerts)")
        self.finish(senders)
        return self.judge(senders)

    # --- back to the backup -----------------------------------------------------------------------

    def restore(self) -> list[str]:
        """The book is older than the venues: nothing is sent, and what is missing is shown. Alerts
        arrive all the while; nobody answers until the hosts are back.
        """
        from django.db import connections

        from execution.models import Difference, Heartbeat, Order
        from execution.states import OrderState
        from risk.models import TradingState

        before = self.at_the_venues()
        for host in self.hosts:
            host.stop()
        late = self.send_late()
        Heartbeat.objects.all().delete()
        connections.close_all()
        answer = manage("restore", str(self.backup), "--replace")
        for host in self.hosts:
            host.start()
        eventually(lambda: not late.busy, seconds=SETTLE, what="the late alerts are stored")
        doubted = Order.objects.filter(state__in=(OrderState.UNKNOWN, OrderState.SUBMITTING))
        eventually(lambda: not doubted.exists(), seconds=SETTLE, what="doubts are settled")
        self.reconcile()
        wrong = self.unkept(late)
        now = self.at_the_venues()
        for client_id in sorted(now.keys() | before.keys()):
            if now.get(client_id) != before.get(client_id):
                wrong.append(f"sent after the restore: {self.story(client_id)}")
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

    def send_late(self) -> Any:
        """Entries, from now on, in lanes of their own; they are repeated until somebody answers."""
        first, steps = len(self.plan.steps), []
        for index, (strategy, symbol) in enumerate(lanes()[:LATE], start=first):
            quantity = QUANTITIES[symbol.partition("/")[0]]
            body = {"action": "buy", "symbol": symbol, "quantity": quantity, "id": f"step-{index}"}
            steps.append(Step(index, strategy, symbol, body))
        senders = tls_senders()(self.port, self.paths, Gate(), self.var / "tls.crt")
        senders.send(steps)
        return senders

    def unkept(self, late: Any) -> list[str]:
        """Late alerts that were not acknowledged, or of which no row is left."""
        from execution.models import Signal

        kept = set(map(str, Signal.objects.values_list("pk", flat=True)))
        lost = [step for step, signal in late.acknowledged.items() if signal not in kept]
        say(f"{len(late.acknowledged)} of {LATE} late alerts acknowledged: {dict(late.answers)}")
        wrong = [
            f"late alert {step} was acknowledged and is lost" for step in lost
        ] + late.surprises
        if len(late.acknowledged) < LATE:
            wrong.append(f"{LATE - len(late.acknowledged)} late alerts were never acknowledged")
        return wrong

    def story(self, client_id: str) -> str:
        """The order with this id, and what its journal says."""
        from execution.models import Order

        orders = {one.client_order_id: one for one in Order.objects.select_related("account")}
        order = orders.get(client_id)
        if order is None:
            return f"{client_id}, which is not in the book"
        rows = [f"{row.at:%H:%M:%S} {row} {row.detail}" for row in order.journal.all()]
        return f"{order} ({order.role}, {order.state}): {'; '.join(rows)}"

    def watched(self) -> list[str]:
        """Targets Prometheus does not reach, in the end."""
        url = f"http://127.0.0.1:{self.prometheus_port}/api/v1/targets?state=active"
        with urllib.request.urlopen(url, timeout=10) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
        say(f"Prometheus: {[target['health'] for target in targets]}")
        return [target["scrapeUrl"] for target in targets if target["health"] != "up"]


def main() -> int:
    """Exit status 1 when anything was lost, doubled or wrong; 2 when a program is missing."""
    options = parsed("python -m tests.drill", __doc__, orders=400)
    if lacks := engines.missing():
        say(f"not installed here: {', '.join(lacks)}")
        return 2
    with ExitStack() as stack:
        var = directory(stack, options.logs)
        drill = Drill(var, options, stack)
        drill.bring_up()
        drill.watch()
        wrong = drill.play()
        wrong += drill.watched()
        wrong += drill.restore()
    for line in wrong:
        say(f"WRONG {line}")
    say("nothing lost, nothing doubled" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
