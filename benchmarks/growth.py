"""What everything costs once a lot has happened: a throw-away PostgreSQL is filled with signals,
orders, fills and audit events by COPY; accepting an alert, the sweep, a reconciliation, the home page
and every list, filter and search are timed before and after.

    python -m benchmarks.growth --rows 1000000

Prints the work and the slowest pages with their time when everything was nearly empty beside it, and
fails when a page takes longer than ``--most`` milliseconds, or when work takes ``--grown`` times as
long as before. Each is done several times and the quickest counts: whatever else the machine does
makes it slower, never faster. Reports over all trades of a period are shown, and held to a second.
Among what is asked for are pages deep in a list, what is rare or long ago (one order type, one action,
a strategy and an account that ended two months ago), filters together, and words no index knows.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from benchmarks.filling import Filling

EMPTY_ROWS = 100
ASKED = 5
DONE = 40
"""How often each piece of work is done."""
SEARCHED = (
    "/admin/execution/order/", "/admin/execution/signal/", "/admin/execution/fill/",
    "/admin/risk/auditevent/", "/admin/risk/limithit/", "/admin/execution/quarantinedbody/",
)  # fmt: skip
REPORTS, MOST_OF_A_REPORT = ("/admin/performance/",), 1000


@dataclass(frozen=True)
class Timing:
    """How long one page, or one piece of work, took, in milliseconds; ``empty`` is ``None`` for a page
    there was not then.
    """

    name: str
    empty: float | None
    full: float

    @property
    def ratio(self) -> float | None:
        return self.full / self.empty if self.empty else None

    def __str__(self) -> str:
        before = f"{self.empty:8.1f} {self.ratio:6.2f}" if self.empty else f"{'-':>8} {'-':>6}"
        return f"{self.full:8.1f} {before}  {self.name}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="signals, and orders")
    parser.add_argument("--most", type=float, default=300, help="milliseconds a page may take")
    parser.add_argument("--grown", type=float, default=1.3, help="times as long work may take")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        _start(stack)
        pages = Pages(EMPTY_ROWS)
        work = Work(pages)
        empty = work.times(), pages.times()
        started = time.monotonic()
        pages.filling.fill(options.rows)
        print(f"{options.rows} signals and orders loaded in {time.monotonic() - started:.0f} s")
        full = work.times(), pages.times()
    works, asked = (
        [Timing(one, before.get(one), after[one]) for one in after]
        for before, after in zip(empty, full, strict=True)
    )
    return max(report_work(works, options.grown), report(asked, options.most))


def report_work(timings: list[Timing], grown: float) -> int:
    """Print what each piece of work takes; 1 when any has grown by more than allowed."""
    print("work, milliseconds: with many rows, with few, ratio")
    for one in timings:
        print(one)
    return 1 if any(one.ratio and one.ratio > grown for one in timings) else 0


def report(timings: list[Timing], most: float) -> int:
    """Print the slowest first; 1 when any is slower than allowed."""
    timings.sort(key=lambda one: -one.full)
    print(f"{len(timings)} pages, milliseconds in the server: with many rows, with few, ratio")
    for one in timings[:25]:
        print(one)
    middle = statistics.median(one.full for one in timings)
    ratio = statistics.median(one.ratio for one in timings if one.ratio)
    slow = [one for one in timings if one.full > _allowed(one.name, most)]
    print(
        f"median {middle:.1f} ms, median ratio {ratio:.2f}, slowest {timings[0].full:.1f} ms, "
        f"{len(slow)} over {most:.0f} ms"
    )
    return 1 if slow else 0


def _allowed(address: str, most: float) -> float:
    return MOST_OF_A_REPORT if address.startswith(REPORTS) else most


def _start(stack: ExitStack) -> None:
    """PostgreSQL and Valkey of its own, and Django on them."""
    var = Path(stack.enter_context(TemporaryDirectory(prefix="fks-growth-")))
    os.environ |= {
        "FKS_VAR": str(var),
        "DJANGO_SETTINGS_MODULE": "fks_site.settings",
        "SECRET_KEY": "only for this run",
        "CREDENTIAL_KEYS": "Z3Jvd3RoIGdyb3d0aCBncm93dGggZ3Jvd3RoIGdyb3c=",
    }
    from fks_site import addresses
    from fks_site.embedded import Postgres, Valkey

    urls = addresses.urls(var)
    os.environ |= {"DATABASE_URL": urls.database, "REDIS_URL": urls.redis}
    for server in (Postgres(var, throw_away=True), Valkey(var)):
        server.start()
        stack.callback(server.stop)
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    logging.getLogger("execution").setLevel(logging.WARNING)


class Work:
    """What the product does all the time, whatever has happened before."""

    def __init__(self, pages: Pages) -> None:
        from execution.strategies import create_strategy

        self.client = pages.client
        self.account = pages.filling.accounts[1]
        strategy = create_strategy(
            "growth", accounts=[self.account.name], options={"allowlist": "none"}
        )
        strategy.strategy.routes.update(is_enabled=False)
        self.address = f"/webhook/growth/{strategy.secret}"

    def times(self) -> dict[str, float]:
        """The quickest time of each, by what it is."""
        from execution import periodic_tasks, reconcile

        works: dict[str, Callable[[], object]] = {
            "an alert accepted": self._accept,
            "a sweep": periodic_tasks.sweep,
            "an account reconciled": lambda: reconcile.reconcile_account(self.account),
            "the home page's fragment": self._fragment,
        }
        return {name: min(_timed(work) for _ in range(DONE)) for name, work in works.items()}

    def _accept(self) -> None:
        alert = {"symbol": "BTCUSDT", "action": "buy", "quantity": "0.01", "id": str(uuid4())}
        answer = self.client.post(self.address, json.dumps(alert), "application/json")
        if answer.status_code != 202:
            raise RuntimeError(f"the alert was answered {answer.status_code}")

    def _fragment(self) -> None:
        from django.core.cache import cache

        cache.clear()
        self.client.get("/admin/dashboard/")


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


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

    admin.autodiscover()
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
