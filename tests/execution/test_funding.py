"""Funding payments: booked once, counted in the day, shown by account, strategy and symbol."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers.errors import NotSupportedError, QueryFailedError
from brokers.models import Account, Instrument
from brokers.sessions import plugin_for
from brokers.types import FundingReport
from execution import day_results, days, funding, reconcile, weekly
from execution.models import FundingPayment, Strategy
from fks_site.users import restrict
from risk import breakers
from tests.brokers.scripted import AT, ScriptedPlugin
from tests.execution.test_book import priced
from tests.execution.test_desk import with_rights
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    StrategyFactory,
)

pytestmark = pytest.mark.django_db
D = Decimal
PERPETUAL = "BTC/USDT:USDT"
HOUR = timedelta(hours=1)


class Teller:
    """What the venue tells, and since when it was asked."""

    def __init__(self) -> None:
        self.told: list[FundingReport] = []
        self.failure: Exception | None = None
        self.asked: list[datetime] = []

    def pay(self, amount: str, at: datetime = AT, symbol: str = PERPETUAL) -> None:
        self.told.append(FundingReport(f"p{len(self.told)}", symbol, D(amount), "USDT", at))


@pytest.fixture
def teller(monkeypatch: pytest.MonkeyPatch) -> Teller:
    teller = Teller()

    def funding_since(_: ScriptedPlugin, since: datetime) -> Sequence[FundingReport]:
        teller.asked.append(since)
        if teller.failure is not None:
            raise teller.failure
        return teller.told

    monkeypatch.setattr(ScriptedPlugin, "funding_since", funding_since)
    return teller


@pytest.fixture
def account(clock: time_machine.Coordinates, scripted: Callable[..., Account]) -> Account:
    account: Account = scripted()
    traded(account, at=AT - 3 * HOUR)
    return account


def traded(
    account: Account, side: str = "buy", strategy: Strategy | None = None, **columns: Any
) -> None:
    order = OrderFactory.create(
        account=account, symbol=PERPETUAL, side=side, strategy=strategy, state="filled"
    )
    FillFactory.create(order=order, recorded_at=columns.get("at", AT), **columns)


def read(account: Account) -> int:
    account.refresh_from_db()
    return funding.read(account, plugin_for(account))


def test_a_payment_is_booked_once_by_the_venues_id(
    account: Account, teller: Teller, clock: time_machine.Coordinates
) -> None:
    teller.pay("-0.25")
    assert read(account) == 1
    clock.shift(funding.READ_EVERY)
    teller.pay("0.75", AT + HOUR)
    assert (read(account), FundingPayment.objects.count()) == (1, 2)
    assert teller.asked == [AT - 3 * HOUR, AT - HOUR]
    other = AccountFactory.create()
    FundingPayment.objects.create(
        account=other, payment_id="p0", symbol=PERPETUAL, amount=1, currency="USDT", at=AT,
        recorded_at=AT,
    )  # fmt: skip


def test_it_is_asked_every_ten_minutes_and_after_a_failure_the_next_time(
    account: Account, teller: Teller, clock: time_machine.Coordinates
) -> None:
    teller.failure = QueryFailedError("timed out")
    assert [read(account), read(account)] == [0, 0]
    teller.failure = None
    read(account)
    read(account)
    assert len(teller.asked) == 3
    clock.shift(funding.READ_EVERY)
    read(account)
    assert len(teller.asked) == 4


def test_a_venue_without_funding_is_left_alone(account: Account, teller: Teller) -> None:
    teller.failure = NotSupportedError("spot")
    read(account)
    read(account)
    assert len(teller.asked) == 1


@pytest.mark.parametrize("failure", [None, NotSupportedError("spot"), KeyError("a defect")])
def test_a_probe_of_the_breaker_it_won_is_given_back(
    account: Account,
    teller: Teller,
    clock: time_machine.Coordinates,
    failure: Exception | None,
) -> None:
    breakers.trip(breakers.of_account(account.pk), "test")
    read(account)
    assert teller.asked == []
    clock.shift(60)
    teller.failure = failure
    read(account)
    breaker = breakers.of_account(account.pk)
    assert (len(teller.asked), breaker.state, breaker.probe_until) == (1, "half_open", None)


def test_an_account_that_never_traded_is_not_asked(
    scripted: Callable[..., Account], teller: Teller
) -> None:
    assert (read(scripted()), teller.asked) == (0, [])


def test_reconciliation_reads_it_and_goes_on_without(account: Account, teller: Teller) -> None:
    teller.failure = QueryFailedError("timed out")
    assert reconcile.reconcile_account(account) == []
    teller.failure = None
    teller.pay("-1")
    reconcile.reconcile_account(account)
    assert FundingPayment.objects.get().amount == D(-1)


def test_it_counts_in_the_day_it_was_paid(account: Account, teller: Teller) -> None:
    before = days.today(account, AT).realised
    teller.pay("-2.5", AT - HOUR)
    teller.pay("0.5")
    teller.pay("-100", AT - timedelta(days=1))
    read(account)
    assert days.today(account, AT).realised == before - 2
    row = day_results.with_day(Account.objects.filter(pk=account.pk), AT).get()
    assert day_results.result(row) == before - 2


def test_it_belongs_to_the_strategy_that_alone_held_the_position(
    account: Account, teller: Teller, clock: time_machine.Coordinates
) -> None:
    traded(account, "sell", at=AT - 2 * HOUR)
    alone, second = StrategyFactory.create(), StrategyFactory.create()
    traded(account, strategy=alone, at=AT)
    traded(account, strategy=second, at=AT + 2 * HOUR)
    clock.shift(5 * HOUR)
    for hours in (-1, 1, 3):
        teller.pay("-1", AT + hours * HOUR)
    read(account)
    holders = FundingPayment.objects.order_by("at").values_list("strategy", flat=True)
    assert list(holders) == [None, alone.pk, None]


# --- the pages ------------------------------------------------------------------------------------


def paid(account: Account, amount: str, **columns: Any) -> FundingPayment:
    at = datetime.now(AT.tzinfo)
    given = {"payment_id": f"f{amount}", "symbol": PERPETUAL, "currency": "USDT"} | columns
    return FundingPayment.objects.create(
        account=account, amount=D(amount), **({"at": at, "recorded_at": at} | given)
    )


def test_the_page_shows_it_by_account_strategy_and_symbol(admin_client: Client) -> None:
    account, strategy = AccountFactory.create(name="main"), StrategyFactory.create(slug="trend")
    order = OrderFactory.create(account=account, symbol=PERPETUAL, side="buy", state="filled")
    FillFactory.create(order=order, realised_pnl=D(7))
    paid(account, "-1.5", strategy=strategy)
    paid(account, "0.25", symbol="ETH/USDT:USDT")
    address = reverse("admin:performance")
    (report,) = admin_client.get(address).context["reports"]
    assert (report.realised, report.funding) == (D(7), D("-1.25"))
    groups = {
        label: {row.name: (row.funding, row.fills) for row in rows}
        for label, rows in report.groups.items()
    }
    assert groups == {
        "Account": {"main": (D("-1.25"), 1)},
        "Strategy": {
            "by hand": (D(0), 1),
            "trend": (D("-1.5"), 0),
            "several, or by hand": (D("0.25"), 0),
        },
        "Symbol": {PERPETUAL: (D("-1.5"), 1), "ETH/USDT:USDT": (D("0.25"), 0)},
    }
    (mine,) = admin_client.get(address, {"strategy": "trend"}).context["reports"]
    assert (mine.realised, mine.funding, mine.drawdown) == (D(0), D("-1.5"), D(0))


def test_the_csv_has_payments_among_the_trades(admin_client: Client) -> None:
    account = AccountFactory.create(name="main")
    paid(account, "-1.5", payment_id="=cmd()")
    FillFactory.create(order=OrderFactory.create(account=account, state="filled"))
    answer = admin_client.get(reverse("admin:performance"), {"format": "csv"})
    text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
    first, second = csv.DictReader(text.splitlines())
    assert (first["kind"], second["kind"]) == ("funding", "trade")
    assert (first["realised_pnl"], first["fee_currency"], first["quantity"]) == ("-1.5", "USDT", "")
    assert (first["trade_id"], first["account"]) == ("'=cmd()", "main")


def test_a_position_shows_its_own(admin_client: Client) -> None:
    position = PositionFactory.create(symbol=PERPETUAL)
    paid(position.account, "-1.5")
    paid(position.account, "-0.5", payment_id="again")
    paid(position.account, "-9", symbol="ETH/USDT:USDT")
    paid(AccountFactory.create(), "-40")
    for name, arguments in (("changelist", []), ("change", [position.pk])):
        page = admin_client.get(reverse(f"admin:execution_position_{name}", args=arguments))
        assert "−2<" in page.content.decode() or "-2<" in page.content.decode()


@pytest.mark.parametrize(
    ("environment", "minutes", "shown"),
    [
        ("dry_run", 60, "+5.00"),
        ("sandbox", 4, "+5.00"),
        ("sandbox", 6, "not known"),
        ("sandbox", -6, "not known"),
        ("sandbox", None, "not known"),
    ],
)
def test_a_position_shows_what_it_has_gained_or_that_nobody_knows(
    admin_client: Client, environment: str, minutes: int | None, shown: str
) -> None:
    position = PositionFactory.create(
        account__environment=environment, quantity=D("0.01"), average_price=D(60000)
    )
    PositionFactory.create(symbol="ETH/USDT", quantity=D(0), average_price=None)
    now = timezone.now()
    if minutes is not None:
        Instrument.objects.create(
            account=position.account, symbol="BTC/USDT", venue_symbol="BTCUSDT", base="BTC",
            quote="USDT", quantity_step=D("0.001"), price_tick=D(1), refreshed_at=now,
            last_price=D(60500), last_price_at=now - timedelta(minutes=minutes),
        )  # fmt: skip
    page = admin_client.get(reverse("admin:execution_position_changelist")).content.decode()
    cells = re.findall(r"field-unrealised[^>]*>(.*?)</td>", page, re.DOTALL)
    texts = [re.sub(r"<[^>]+>", "", cell).strip() for cell in cells]
    assert sorted(texts) == sorted([shown, "–"])


def test_the_weekly_summary_counts_in_the_accounts_currency() -> None:
    account = AccountFactory.create(name="main")
    priced(account, "ETH/BTC", "0.05", last_rate=D(60000))
    for symbol, result in (("ETH/BTC", "-0.05"), ("BTC/USDT", "100")):
        order = OrderFactory.create(account=account, symbol=symbol)
        FillFactory.create(order=order, realised_pnl=D(result), recorded_at=AT)
    lines = weekly.summary(AT - timedelta(days=7), AT + HOUR).text.splitlines()
    assert lines[0] == "main: -2900 USDT in 2 fills"


def test_the_weekly_summary_tells_it(clock: time_machine.Coordinates) -> None:
    account, other = AccountFactory.create(name="main"), AccountFactory.create(name="other")
    paid(account, "-1.5")
    paid(account, "0.25", payment_id="second", currency="USDC")
    paid(other, "-40", at=AT - timedelta(days=8))
    FillFactory.create(
        order=OrderFactory.create(account=account, state="filled"), realised_pnl=D(12)
    )
    lines = weekly.summary(AT - timedelta(days=7), AT + HOUR).text.splitlines()
    assert lines[:2] == ["main: funding +0.25 USDC", "main: +12 USDT in 1 fills, funding -1.5 USDT"]


def test_others_accounts_payments_are_not_seen() -> None:
    mine, theirs = AccountFactory.create(), AccountFactory.create()
    paid(mine, "-1")
    paid(theirs, "-40")
    client = with_rights("view_fill", "view_order")
    restrict(User.objects.latest("pk"), [mine], reason="one desk only")
    (report,) = client.get(reverse("admin:performance")).context["reports"]
    assert report.funding == D(-1)
