"""``python -m tests.drill.cut``: two hosts share one database and one queue; each is cut off in turn.

The hosts are network namespaces. The cable of one is pulled in the middle of a claim, with orders under
way; meanwhile accounts are halted, breakers tripped and limits lowered; then it is plugged in again. In
the end the venues' ledgers are compared with our rows, order by order, with the judge of tests/chaos.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.chaos.plan import BINANCE
from tests.drill import network
from tests.drill import stores as engines
from tests.drill.hosts import Host
from tests.drill.shape import Shape, directory, say
from tests.e2e.product import eventually

if TYPE_CHECKING:
    from tests.chaos.trouble import Halt

NOT_PERMITTED = 3  # exit status
HALTED, TRIPPED, LIMITED = BINANCE[0:5], BINANCE[5:10], BINANCE[10:15]
LATENCY = 600  # milliseconds of the venues while a host is about to be cut off
AWAY = 40.0  # seconds, at least
PATIENCE = 60.0  # seconds: three times what either end waits for the other
RACE = timedelta(seconds=1)
"""A decision that read the breaker or limit just before it changed may still commit."""
FENCED = """
SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE client_addr = %s AND locktype = 'advisory' AND objid = %s AND objsubid = 1 AND granted
"""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE client_addr = %s"


def ask(query: str, *values: str | int) -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return int(cursor.fetchone()[0])


@contextmanager
def timed(what: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    say(f"  {what}: {time.monotonic() - begun:.1f} s")


class Cut(Shape):
    """``play`` cuts each host off once and returns what is wrong."""

    def make_hosts(self) -> list[Host]:
        self.cables: dict[str, network.Cable] = {}
        self.wrong: list[str] = []
        self.halts: list[Halt] = []
        hosts = []
        for number, name in enumerate(("b", "a"), start=2):
            cable = network.Cable(name, network.ADDRESS.rpartition(".")[0] + f".{number}")
            self.stack.callback(cable.remove)
            self.cables[name] = cable
            hosts.append(Host(name, self.var, dict(os.environ), cable.address, cable.inside))
        return hosts

    def lay_out(self) -> None:
        """As elsewhere, with times of production: a venue takes nothing older than five seconds."""
        super().lay_out()
        from brokers.models import Account
        from risk.models import CircuitBreaker

        for account in Account.objects.all():
            account.options |= {"submit_timeout": 2, "settle_window": 6}
            account.save()
        CircuitBreaker.objects.filter(account__name__in=TRIPPED).update(open_seconds=3600)
        port = self.venue.base_url.rpartition(":")[2]
        for name, cable in self.cables.items():
            command = [*cable.inside, sys.executable, "-m", "tests.drill.relay", port]
            log = self.var / f"relay-{name}.log"
            self.run(engines.Daemon(f"relay {name}", [*command, network.ADDRESS], log))

    def play(self) -> list[str]:
        senders = self.send()
        steps = len(self.plan.steps)
        for number, (host, other) in enumerate((self.hosts, self.hosts[::-1])):
            self.most = steps * (number + 1) // 2
            self.wait_for(steps * (2 * number + 1) // 5, senders)
            self.cut_off(host, other, senders)
        self.finish(senders)
        return self.wrong + self.judge(senders, self.halts)

    # --- one cut ----------------------------------------------------------------------------------

    def cut_off(self, host: Host, other: Host, senders: Any) -> None:
        from django.utils import timezone

        from fks_site.lease import BEAT

        answered, at = len(senders.acknowledged), timezone.now()
        under_way = self.pull_in_a_claim(host, other)
        begun = time.monotonic()
        pressed = self.press()
        with timed("no order is the other's any more"):
            eventually(lambda: not self.submitting(under_way), seconds=PATIENCE, what="leases end")
        with timed("the database has forgotten the host"):
            gone = lambda: ask(SESSIONS, host.address) == 0  # noqa: E731
            eventually(gone, seconds=PATIENCE, what="the sessions of the host are gone")
        with timed("the other host has beat"):
            moved = lambda: ask(FENCED, other.address, BEAT)  # noqa: E731
            eventually(moved, seconds=PATIENCE, what="beat has moved")
        time.sleep(max(0.0, AWAY - (time.monotonic() - begun)))
        self.went_on(other, at, len(senders.acknowledged) - answered)
        self.cables[host.name].plug_in()
        with timed(f"back after {time.monotonic() - begun:.0f} s"):
            serves = lambda: host.answers() and ask(SESSIONS, host.address) > 3  # noqa: E731
            eventually(serves, seconds=PATIENCE, what=f"host {host.name} works again")
        if ended := host.revive():
            say(f"  started again, as a supervisor would: {', '.join(ended)}")
        time.sleep(5)
        self.release(pressed)
        say(f"  orders under way: {dict(self.states(under_way))}")

    def pull_in_a_claim(self, host: Host, other: Host) -> list[UUID]:
        """Pull the cable while the host holds the fence of the kill switch and has placements under
        way; these are returned. The other host is held up for as long, so that they are the host's.
        """
        from django.utils import timezone

        from risk.switch import FENCE_LOCK

        self.venue.control.set_latency(LATENCY)
        worker = host.programs["worker"]
        other.programs["worker"].send(signal.SIGSTOP)
        at, tries = timezone.now(), 0

        def caught() -> bool:
            nonlocal tries
            tries += 1
            worker.send(signal.SIGSTOP)
            if ask(FENCED, host.address, FENCE_LOCK) and self.claimed_since(at):
                return True
            worker.send(signal.SIGCONT)
            return False

        eventually(caught, seconds=PATIENCE, what=f"{host.name} is caught in a claim")
        self.cables[host.name].pull()
        under_way = self.claimed_since(at)
        for one in (host, other):
            one.programs["worker"].send(signal.SIGCONT)
        self.venue.control.set_latency(0)
        say(f"host {host.name} is cut off in a claim, {len(under_way)} under way (try {tries})")
        return under_way

    def press(self) -> datetime:
        """Halt, trip and limit some accounts; each has to be in force before long."""
        from django.utils import timezone

        from brokers.models import Account
        from risk import breakers, switch
        from risk.limits import set_limit
        from risk.models import TradingState

        with timed("the kill switch is in force"):
            for name in HALTED:
                state, scope = TradingState.State.HALTED, TradingState.Scope.ACCOUNT
                switch.change(state, scope=scope, key=name, reason="a host is cut off")
        with timed("breakers and limits are in force"):
            for account in Account.objects.filter(name__in=TRIPPED):
                breakers.trip(breakers.of_account(account.pk), "a host is cut off")
            for account in Account.objects.filter(name__in=LIMITED):
                set_limit(
                    "max_order_value", Decimal(1), account=account, reason="a host is cut off"
                )
        return timezone.now()

    def release(self, pressed: datetime) -> None:
        from django.utils import timezone

        from brokers.models import Account
        from risk import breakers, switch
        from risk.limits import set_limit
        from risk.models import TradingState
        from tests.chaos.trouble import Halt

        now = timezone.now()
        self.halts += [Halt(name, pressed, now) for name in HALTED]
        self.halts += [Halt(name, pressed + RACE, now) for name in TRIPPED]
        self.limits_held(pressed + RACE, now)
        for name in HALTED:
            state, scope = TradingState.State.ACTIVE, TradingState.Scope.ACCOUNT
            switch.change(state, scope=scope, key=name, reason="it is back")
        for account in Account.objects.filter(name__in=TRIPPED):
            breakers.reset(breakers.of_account(account.pk), "it is back")
        for account in Account.objects.filter(name__in=LIMITED):
            set_limit("max_order_value", Decimal(10**6), account=account, reason="it is back")

    # --- what has to hold -------------------------------------------------------------------------

    def claimed_since(self, moment: datetime) -> list[UUID]:
        from execution.models import Order
        from execution.states import OrderState

        orders = Order.objects.filter(state=OrderState.SUBMITTING, submitted_at__gt=moment)
        return list(orders.values_list("pk", flat=True))

    def submitting(self, orders: list[UUID]) -> bool:
        """Whether one of them is still in the attempt its host was cut off in."""
        from execution.models import Order
        from execution.states import OrderState

        held = Order.objects.filter(pk__in=orders, state=OrderState.SUBMITTING, attempt=1)
        return held.exists()

    def states(self, orders: list[UUID]) -> Counter[str]:
        from execution.models import Order

        return Counter(Order.objects.filter(pk__in=orders).values_list("state", flat=True))

    def went_on(self, other: Host, since: datetime, answered: int) -> None:
        from execution.models import OrderEvent

        sent = OrderEvent.objects.filter(event="claim", at__gt=since).count()
        say(f"  meanwhile {answered} alerts were acknowledged and {sent} orders sent")
        if not answered or not sent:
            self.wrong.append(f"host {other.name} alone took {answered} alerts, sent {sent} orders")

    def limits_held(self, since: datetime, until: datetime) -> None:
        from execution.models import Order
        from execution.states import OrderState

        entries = Order.objects.filter(account__name__in=LIMITED, role=Order.Role.ENTRY)
        made = entries.filter(created_at__gt=since, created_at__lt=until)
        passed = made.exclude(state=OrderState.DENIED)
        self.wrong += [f"{order} passed the limit" for order in passed]
        say(f"  {made.count() - len(passed)} orders were denied by the lower limit")


def main() -> int:
    """Exit status 1 when anything was lost, doubled or wrong; 2 when a program is missing; 3 where
    networks of one's own are not permitted.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.drill.cut", description=__doc__)
    parser.add_argument("--orders", type=int, default=600)
    parser.add_argument("--rate", type=float, default=4, help="alerts per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--logs", type=Path, help="a directory that gets everybody's log in the end"
    )
    options = parser.parse_args()
    if lacks := engines.missing():
        say(f"not installed here: {', '.join(lacks)}")
        return 2
    if not network.permitted():
        say("network namespaces are not permitted here (they want root): nothing was run")
        return NOT_PERMITTED
    network.own_network("tests.drill.cut")
    with ExitStack() as stack:
        var = directory(stack, options.logs)
        drill = Cut(var, options, stack, network.ADDRESS)
        drill.bring_up()
        wrong = drill.play()
    for line in wrong:
        say(f"WRONG {line}")
    say("nothing lost, nothing doubled" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
