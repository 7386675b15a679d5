"""What the admin's pages cost once a lot has happened: a throw-away PostgreSQL is filled with signals,
orders, fills and audit events by COPY, then every list, filter, search and the home page are timed.

    python -m benchmarks.growth --rows 1000000

Prints the slowest pages with their time when everything was nearly empty beside it, and fails when one
takes longer than ``--most`` milliseconds. A page is asked five times and the quickest counts: whatever
else the machine does makes pages slower, never faster. Reports over all trades of a period are shown,
and held to a second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

DAYS = 90
EMPTY_ROWS = 100
ASKED = 5
REPORTS, MOST_OF_A_REPORT = ("/admin/performance/",), 1000
STATES = ("filled",) * 15 + ("denied",) * 3 + ("rejected", "canceled")
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT")


@dataclass(frozen=True)
class Timing:
    """How long one page took, in milliseconds."""

    address: str
    empty: float
    full: float


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="signals, and orders")
    parser.add_argument("--most", type=float, default=300, help="milliseconds a page may take")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        _start(stack)
        pages = Pages(EMPTY_ROWS)
        empty = pages.times()
        started = time.monotonic()
        pages.fill(options.rows)
        print(f"{options.rows} signals and orders loaded in {time.monotonic() - started:.0f} s")
        full = pages.times()
    timings = [Timing(one, empty.get(one, full[one]), full[one]) for one in full]
    return report(timings, options.most)


def report(timings: list[Timing], most: float) -> int:
    """Print the slowest first; 1 when any is slower than allowed."""
    timings.sort(key=lambda one: -one.full)
    print(f"{len(timings)} pages, milliseconds in the server: with many rows, with few, ratio")
    for one in timings[:25]:
        print(f"{one.full:8.1f} {one.empty:8.1f} {one.full / one.empty:6.1f}  {one.address}")
    middle = statistics.median(one.full for one in timings)
    slow = [one for one in timings if one.full > _allowed(one.address, most)]
    print(
        f"median {middle:.1f} ms, slowest {timings[0].full:.1f} ms, {len(slow)} over {most:.0f} ms"
    )
    return 1 if slow else 0


def _allowed(address: str, most: float) -> float:
    return MOST_OF_A_REPORT if address.startswith(REPORTS) else most


def _start(stack: ExitStack) -> None:
    """PostgreSQL of its own, and Django on it."""
    var = Path(stack.enter_context(TemporaryDirectory(prefix="fks-growth-")))
    os.environ |= {
        "FKS_VAR": str(var),
        "DJANGO_SETTINGS_MODULE": "fks_site.settings",
        "SECRET_KEY": "only for this run",
        "CREDENTIAL_KEYS": "Z3Jvd3RoIGdyb3d0aCBncm93dGggZ3Jvd3RoIGdyb3c=",
    }
    from fks_site import addresses
    from fks_site.embedded import Postgres

    os.environ["DATABASE_URL"] = addresses.urls(var).database
    server = Postgres(var, throw_away=True)
    server.start()
    stack.callback(server.stop)
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


class Pages:
    """A client that is logged in, and the addresses it asks for."""

    def __init__(self, rows: int) -> None:
        from django.contrib.auth.models import User
        from django.test import Client

        from brokers.models import Account
        from execution.models import Strategy

        self.user = User.objects.create_superuser("bench")
        self.client = Client(headers={"host": "localhost"})
        self.client.force_login(self.user, "django.contrib.auth.backends.ModelBackend")
        self.account = Account.objects.create(name="paper", broker="paper")
        self.strategy = Strategy.objects.create(slug="trend")
        self.fill(rows)

    def fill(self, rows: int) -> None:
        """Load ``rows`` signals and orders of the last ninety days, with their fills and audit."""
        from django.db import connection

        now = datetime.now(UTC)
        step = timedelta(days=DAYS) / rows
        moments = [now - timedelta(days=DAYS) + step * number for number in range(rows)]
        for table, columns, made in (
            ("execution_signal", SIGNAL, self._signals),
            ("execution_order", ORDER, self._orders),
            ("execution_fill", FILL, self._fills),
            ("risk_auditevent", AUDIT, self._audit),
        ):
            _copy(connection, table, columns, made(moments))
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")

    def _signals(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for number, at in enumerate(moments):
            state = "executed" if STATES[number % 20] == "filled" else "denied"
            reason = "" if state == "executed" else "MAX_ORDER_VALUE"
            symbol = SYMBOLS[number % 5]
            yield (
                _id(at, 1, number), self.strategy.pk, at, "token", "{}", '{"action": "buy"}', symbol,
                "buy", state, reason, "", "", at, at, 0,
            )  # fmt: skip

    def _orders(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for number, at in enumerate(moments):
            identity, state = _id(at, 2, number), STATES[number % 20]
            filled = "0.01" if state == "filled" else "0"
            sent = None if state == "denied" else at
            reason = "" if state == "filled" else "MAX_ORDER_VALUE"
            yield (
                identity, _id(at, 1, number), self.strategy.pk, self.account.pk,
                SYMBOLS[number % 5], "sell" if number % 2 else "buy", "market", "entry", "0.01",
                "gtc", False, False, False, "60000", "600", state, reason, "", "[]", "[]", "", "",
                identity.hex, f"v{number}", filled, "60000", 1, sent, sent, 0, 0, at, at, at,
            )  # fmt: skip

    def _fills(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for number, at in enumerate(moments):
            if STATES[number % 20] == "filled":
                yield (
                    self.account.pk, _id(at, 2, number), f"t{at.timestamp()}-{number}",
                    SYMBOLS[number % 5], "sell" if number % 2 else "buy", "0.01", "60000", "0.1",
                    "USDT", str(number % 7 - 3), at, at,
                )  # fmt: skip

    def _audit(self, moments: list[datetime]) -> Iterator[tuple[Any, ...]]:
        for at in moments[::10]:
            yield (at, "strategy.changed", "admin", "", "strategy trend", "why", "", "", "")

    def times(self) -> dict[str, float]:
        """The quickest time of every page, by address."""
        self.client.get("/admin/")  # templates and connections are ready
        return {address: self._time(address) for address in self._addresses()}

    def _time(self, address: str) -> float:
        from django.core.cache import cache

        def ask() -> float:
            cache.clear()
            started = time.perf_counter()
            status = self.client.get(address).status_code
            if status != 200:
                raise RuntimeError(f"{address} answered {status}")
            return (time.perf_counter() - started) * 1000

        return min(ask() for _ in range(ASKED))

    def _addresses(self) -> Iterator[str]:
        from execution.models import Order, Signal

        yield from ("/admin/", "/admin/dashboard/", "/admin/performance/?days=1")
        order, signal = Order.objects.latest("id"), Signal.objects.latest("id")
        yield from (f"/admin/execution/order/{order.pk}/change/",)
        yield from (f"/admin/execution/signal/{signal.pk}/change/",)
        orders, signals = "/admin/execution/order/", "/admin/execution/signal/"
        for term in (order.pk, order.broker_order_id, "BTC/USDT", "nothing like it"):
            yield f"{orders}?q={term}"
            yield f"{signals}?q={term}"
            yield f"/admin/execution/fill/?q={term}"
            yield f"/admin/search/?s={term}"
        yield from (f"{orders}?p=20", f"{signals}?p=20")
        yield from _lists_with_filters(self.user)


def _lists_with_filters(user: Any) -> Iterator[str]:
    """The list of every model, and each of its filters' choices alone."""
    from django.contrib import admin
    from django.test import RequestFactory
    from django.urls import reverse

    for model, one in sorted(admin.site._registry.items(), key=lambda pair: pair[0]._meta.label):
        if model._meta.model_name == "safeguards":  # one row, no list
            continue
        address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        yield address
        request = RequestFactory().get(address)
        request.user = user
        changelist = one.get_changelist_instance(request)
        for spec in changelist.filter_specs:
            choices: Iterable[Any] = spec.choices(changelist)
            chosen = [one["query_string"] for one in choices if not one.get("selected")]
            yield from (f"{address}{query}" for query in chosen[:6] if len(query) > 1)


def _copy(connection: Any, table: str, columns: str, rows: Iterator[tuple[Any, ...]]) -> None:
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy,
    ):
        write: Callable[[Any], None] = copy.write_row
        for row in rows:
            write(row)


def _id(at: datetime, sort: int, number: int) -> UUID:
    """A UUID version 7 of that moment."""
    moment = int(at.timestamp() * 1000) << 80
    return UUID(int=moment | 0x7 << 76 | 0x2 << 62 | sort << 48 | number)


SIGNAL = (
    "id, strategy_id, received_at, auth, body, alert, symbol, action, state, reason, detail, gap, "
    "decided_at, finished_at, tries"
)
ORDER = (
    "id, signal_id, strategy_id, account_id, symbol, side, type, role, quantity, time_in_force, "
    "post_only, reduce_only, reverses, reference_price, reserved_value, state, reason, detail, "
    "verdicts, sizing, cancel_reason, cancel_asked_by, client_order_id, broker_order_id, "
    "filled_quantity, average_price, attempt, submitted_at, acknowledged_at, looks, polls, "
    "created_at, updated_at, finished_at"
)
FILL = (
    "account_id, order_id, trade_id, symbol, side, quantity, price, fee, fee_currency, "
    "realised_pnl, at, recorded_at"
)
AUDIT = "at, kind, actor, address, subject, reason, correlation_id, hash, previous"

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
