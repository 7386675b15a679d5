"""What fees in a third coin count for, and where they count for nothing it is said."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers.models import Account, Instrument
from brokers.types import VenueStatus
from execution import fee_values, fills
from execution.models import Fill, Position
from execution.states import OrderState
from tests.brokers.scripted import report_of, trade
from tests.execution.test_book import priced
from tests.factories import AccountFactory, OrderFactory, PositionFactory

pytestmark = pytest.mark.django_db
D = Decimal


def traded(account: Account, fee: str, coin: str, **changes: Any) -> Fill:
    """A fill of 0.01 BTC/USDT at 60000 with that fee, booked as the venue reported it."""
    order = OrderFactory.create(account=account, state=OrderState.SUBMITTING, attempt=1, **changes)
    told = replace(trade(order.identity, fee=fee), fee_currency=coin)
    fills.apply_report(order, report_of(order, VenueStatus.FILLED, told), source="test")
    return Fill.objects.get(order=order)


def result() -> tuple[Decimal, Decimal]:
    row = Position.objects.get(symbol="BTC/USDT")
    return row.realised_pnl, row.fees


def test_it_is_valued_by_the_last_price_of_the_coin() -> None:
    account = AccountFactory.create()
    priced(account, "BNB/USDT", "610", last_price_at=timezone.now() - timedelta(days=3))
    fill = traded(account, "0.01", "BNB")
    assert (fill.fee, fill.fee_value, fill.realised_pnl) == (D("0.01"), D("6.1"), D("-6.1"))
    assert result() == (D("-6.1"), D("6.1"))
    assert fee_values.shown(fill) == "0.01 BNB (6.1 USDT)"


def test_a_price_the_other_way_round_serves_as_well() -> None:
    account = AccountFactory.create()
    priced(account, "USDT/TRY", "40")
    assert traded(account, "20", "TRY").fee_value == D("0.5")


def test_without_a_price_it_is_not_counted_and_that_is_said(admin_client: Client) -> None:
    account = AccountFactory.create(name="main")
    fill = traded(account, "0.01", "BNB")
    assert (fill.fee, fill.fee_value, fill.realised_pnl) == (D("0.01"), None, 0)
    assert result() == (0, 0)
    for name, args in (
        ("execution_fill_changelist", []),
        ("execution_fill_change", [fill.pk]),
        ("execution_order_change", [fill.order_id]),
    ):
        page = admin_client.get(reverse(f"admin:{name}", args=args)).content.decode()
        assert "0.01 BNB (not counted)" in page, name
    position = Position.objects.get()
    page = admin_client.get(reverse("admin:execution_position_change", args=[position.pk]))
    assert "0.01 BNB" in page.content.decode()
    page = admin_client.get(reverse("admin:performance")).content.decode()
    assert "because FKS never saw a price of their coin: 0.01 BNB." in page
    assert page.count("not counted: 0.01 BNB") == 3  # by account, strategy and symbol


def test_a_positions_fees_are_added_up_by_coin(admin_client: Client) -> None:
    account = AccountFactory.create()
    for fee, coin in (("0.01", "BNB"), ("0.02", "BNB"), ("3", ""), ("0.6", "USDT")):
        traded(account, fee, coin)

    position = Position.objects.get()
    page = admin_client.get(reverse("admin:execution_position_change", args=[position.pk]))

    assert "0.03 BNB, 3 of a coin the venue did not name<" in page.content.decode()


@pytest.mark.parametrize(
    ("fee", "coin", "value", "realised", "shown"),
    [
        ("0.6", "USDT", None, "-0.6", "0.6 USDT"),
        ("0.0001", "BTC", None, "-6", "0.0001 BTC"),
        ("0", "BNB", None, "0", "0 BNB"),
        ("3", "", None, "0", "3 (not counted)"),
        ("-0.01", "BNB", "-6.1", "6.1", "-0.01 BNB (-6.1 USDT)"),
    ],
)
def test_other_fees_count_as_they_did(
    fee: str, coin: str, value: str | None, realised: str, shown: str
) -> None:
    account = AccountFactory.create()
    priced(account, "BNB/USDT", "610")
    fill = traded(account, fee, coin)
    assert fill.fee_value == (None if value is None else D(value))
    assert fill.realised_pnl == D(realised)
    assert fee_values.shown(fill) == shown


@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize(
    ("symbol", "market_type", "parted", "value"),
    [
        ("BTC/USDT", "spot", "0.00001", None),
        ("BTC/USDT", "margin", "0", D("0.6")),
        ("BTC/USDT", "forex", "0", D("0.6")),
        ("BTC/USDT:USDT", "swap", "0", D("0.6")),
    ],
)
def test_a_fee_in_the_base_shrinks_a_position_only_where_trades_move_coins(
    admin_client: Client,
    symbol: str,
    market_type: str,
    parted: str,
    value: Decimal | None,
    side: str,
) -> None:
    """On a contract, or a pair of currencies at a broker, the account's money pays it."""
    account = AccountFactory.create()
    priced(account, symbol, "60000", market_type=market_type)
    PositionFactory.create(
        account=account, symbol=symbol, quantity=D("0.02"), average_price=D(60000)
    )
    fill = traded(account, "0.00001", "BTC", symbol=symbol, side=side)
    change = D("0.01" if side == "buy" else "-0.01") - D(parted)
    position = Position.objects.get()
    assert position.quantity == D("0.02") + change
    assert (position.realised_pnl, position.fees) == (D("-0.6"), D("0.6"))
    assert (fill.fee, fill.fee_value) == (D("0.00001"), value)
    context = admin_client.get(reverse("admin:performance")).context
    assert next(row.quantity for row in context["open_results"]) == change
    (report,) = context["reports"]
    assert [row.fees for row in report.groups["Symbol"]] == [D("0.6")]


def future(account: Account) -> None:
    """As Interactive Brokers and NinjaTrader name one: the symbol does not say what it is priced in."""
    Instrument.objects.create(
        account=account, symbol="ES 12-26", venue_symbol="ESZ6", base="ES", quote="USD",
        market_type="future", quantity_step=D(50), price_tick=D("0.25"), last_price=D(5000),
        last_price_at=timezone.now(), refreshed_at=timezone.now(),
    )  # fmt: skip


def test_a_futures_fee_counts_although_its_symbol_names_no_money(admin_client: Client) -> None:
    account = AccountFactory.create()
    future(account)
    fill = traded(account, "2.25", "USD", symbol="ES 12-26", quantity=D("0.01"))
    position = Position.objects.get()
    assert (fill.fee_value, fill.realised_pnl) == (D("2.25"), D("-2.25"))
    assert (position.realised_pnl, position.fees) == (D("-2.25"), D("2.25"))
    assert fee_values.shown(fill) == "2.25 USD"
    context = admin_client.get(reverse("admin:performance")).context
    (report,) = context["reports"]
    assert (report.currency, report.realised, report.not_counted) == ("USD", D("-2.25"), "")
    assert [row.fees for row in report.groups["Account"]] == [D("2.25")]
    (row,) = context["open_results"]
    assert (row.currency, row.quantity) == ("USD", D("0.01"))


def test_a_futures_fee_in_other_money_counts_by_its_price() -> None:
    account = AccountFactory.create()
    future(account)
    priced(account, "EUR/USD", "1.2")
    fill = traded(account, "2", "EUR", symbol="ES 12-26", quantity=D("0.01"))
    assert (fill.fee_value, fill.realised_pnl) == (D("2.4"), D("-2.4"))
    assert fee_values.shown(fill) == "2 EUR (2.4)"


def test_the_accounts_own_price_goes_before_a_newer_one_of_another() -> None:
    now = timezone.now()
    mine, others = (AccountFactory.create(environment="sandbox") for _ in range(2))
    paper = AccountFactory.create()
    priced(paper, "BNB/USDT", "1", last_price_at=now)
    priced(others, "BNB/USDT", "620", last_price_at=now)
    assert fee_values.in_quote(mine, "BTC/USDT", D(1), "BNB") == 620
    priced(mine, "BNB/USDT", "600", last_price_at=now - timedelta(hours=1))
    assert fee_values.in_quote(mine, "BTC/USDT", D(1), "BNB") == 600
    assert fee_values.in_quote(mine, "BTC/USDT:USDT", D(1), "BNB") == 600
    assert fee_values.in_quote(mine, "BTC/EUR", D(1), "BNB") is None
    Instrument.objects.update(last_price=None)
    assert fee_values.in_quote(mine, "BTC/USDT", D(1), "BNB") is None


def test_what_is_open_and_what_is_realised_add_up(admin_client: Client) -> None:
    """Bought at 60000 and worth 60000: the fee is lost once, not twice."""
    account = AccountFactory.create(name="main")
    priced(account, "BNB/USDT", "610")
    priced(account, "BTC/USDT", "60000")
    traded(account, "0.01", "BNB")
    context = admin_client.get(reverse("admin:performance")).context
    (row,) = context["open_results"]
    assert row.unrealised == 0
    assert context["reports"][0].realised == D("-6.1")
    assert context["reports"][0].groups["Account"][0].fees == D("6.1")


def test_the_csv_holds_what_it_counted_for(admin_client: Client) -> None:
    account = AccountFactory.create(name="main")
    traded(account, "0.01", "BNB")
    priced(account, "BNB/USDT", "610")
    traded(account, "0.01", "BNB")
    answer = admin_client.get(reverse("admin:performance"), {"format": "csv"})
    lines = b"".join(answer.streaming_content).decode().splitlines()  # type: ignore[attr-defined]
    assert [row["fee_value"] for row in csv.DictReader(lines)] == ["", "6.1"]
