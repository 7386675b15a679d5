"""What the admin's pages cost once a lot has happened: a throw-away PostgreSQL is filled with signals,
orders, fills and audit events by COPY, then every list, filter, search and the home page are timed.

    python -m benchmarks.growth --rows 1000000

Prints the slowest pages with their time when everything was nearly empty beside it, and fails when one
takes longer than ``--most`` milliseconds. A page is asked five times and the quickest counts: whatever
else the machine does makes pages slower, never faster. Reports over all trades of a period are shown,
and held to a second. Among what is asked for are pages deep in a list, what is rare or long ago (one
order type, one action, a strategy and an account that ended two months ago), filters together, and
words no index knows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.filling import Filling

EMPTY_ROWS = 100
ASKED = 5
SEARCHED = (
    "/admin/execution/order/", "/admin/execution/signal/", "/admin/execution/fill/",
    "/admin/risk/auditevent/", "/admin/risk/limithit/", "/admin/execution/quarantinedbody/",
)  # fmt: skip
REPORTS, MOST_OF_A_REPORT = ("/admin/performance/",), 1000


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
        pages.filling.fill(options.rows)
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

        self.user = User.objects.create_superuser("bench")
        self.client = Client(headers={"host": "localhost"})
        self.client.force_login(self.user, "django.contrib.auth.backends.ModelBackend")
        self.filling = Filling()
        self.filling.fill(rows)

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
        yield f"/admin/execution/order/{order.pk}/change/"
        yield f"/admin/execution/signal/{signal.pk}/change/"
        for term in (order.pk, order.broker_order_id, "BTC/USDT", "nothing like it"):
            yield from (f"{one}?q={term}" for one in SEARCHED)
            yield f"/admin/search/?s={term}"
        yield from (f"{one}?p=before:{_middle(one)}" for one in SEARCHED)
        yield from (f"{one}?p=after:{_middle(one)}" for one in SEARCHED)
        yield from self._rare()
        yield from _lists_with_filters(self.user)

    def _rare(self) -> Iterator[str]:
        """Filters together, and what only rows of long ago have."""
        ended, retired = self.filling.accounts[0].pk, self.filling.strategies[0].pk
        orders, signals, fills, audit = SEARCHED[:4]
        yield f"{orders}?account__id__exact={ended}&stage=denied"
        yield f"{orders}?strategy__id__exact={retired}&type__exact=stop&side__exact=sell"
        yield f"{orders}?stage=rejected&type__exact=stop&q=BTC"
        yield f"{signals}?strategy__id__exact={retired}&state__exact=denied&action=close"
        yield f"{signals}?action=close&q=ADA/USDT"
        yield f"{fills}?account__id__exact={ended}&side__exact=sell&q=XRP/USDT"
        yield f"{audit}?actor=rarely&kind=limit.changed"
        yield f"{audit}?actor=rarely&q=nothing"


def _middle(address: str) -> Any:
    """The key of a row far down that list."""
    from django.apps import apps

    app, model = address.strip("/").split("/")[1:]
    rows = apps.get_model(app, model)._default_manager.order_by("pk")
    return rows.values_list("pk", flat=True)[rows.count() // 2]


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
