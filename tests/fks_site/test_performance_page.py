"""The performance page and its CSV."""

from __future__ import annotations

import csv
from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from brokers.models import Account, Instrument
from brokers.types import VenueStatus
from execution import fills
from execution.models import Difference, Fill, FundingPayment, Order, Strategy
from execution.states import OrderState
from fks_site import holdings
from tests.brokers.scripted import report_of, trade
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    SignalFactory,
    StrategyFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db


def fill(account: Account, side: str, realised: str, **fields: object) -> Fill:
    order = OrderFactory.create(account=account, side=side, state=OrderState.FILLED)
    return FillFactory.create(order=order, realised_pnl=Decimal(realised), **fields)


def report(client: Client, **query: str) -> list[str]:
    """The first report's cards as text."""
    (shown, *_) = client.get(reverse("admin:performance"), query).context["reports"]
    found = shown.figures
    return [str(one) for one in (shown.realised, found.trips, found.win_rate, shown.drawdown)]


@pytest.fixture
def account() -> Account:
    return AccountFactory.create(name="main")


def test_round_trips_and_the_curve(admin_client: Client, account: Account) -> None:
    for side, realised in [("buy", "-1"), ("sell", "11"), ("buy", "-1"), ("sell", "-4")]:
        fill(account, side, realised)
    assert report(admin_client) == ["5", "2", "0.5", "5"]
    page = admin_client.get(reverse("admin:performance")).content.decode()
    assert 'aria-label="From -1 to 5 USDT, lowest -1, highest 10"' in page


def test_what_was_bought_before_the_period_ends_a_trip_in_it(
    admin_client: Client, account: Account
) -> None:
    fill(account, "buy", "-1", recorded_at=timezone.now() - timedelta(days=40))
    fill(account, "sell", "11")
    assert report(admin_client) == ["11", "1", "1", "0"]
    assert report(admin_client, days="all") == ["10", "1", "1", "1"]


def test_what_another_strategy_holds_does_not_hide_a_strategys_result(
    admin_client: Client, account: Account
) -> None:
    def of(strategy: Strategy, side: str, realised: str, **fields: object) -> None:
        made = fill(account, side, realised, **fields)
        Order.objects.filter(pk=made.order_id).update(strategy=strategy)

    holds, trades = StrategyFactory.create(slug="holds"), StrategyFactory.create(slug="trades")
    long_ago = timezone.now() - timedelta(days=40)
    of(holds, "buy", "-1", quantity=Decimal(5), recorded_at=long_ago)
    for realised in ("11", "-4"):
        of(trades, "buy", "-1")
        of(trades, "sell", realised)
    for days in ("30", "all"):
        (shown,) = admin_client.get(reverse("admin:performance"), {"days": days}).context["reports"]
        found = {row.name: row.figures for row in shown.groups["Strategy"]}
        assert (found["trades"].trips, found["trades"].wins, found["trades"].result) == (2, 1, 5)
        assert all(figures.trips == 0 for name, figures in found.items() if name != "trades")


@pytest.mark.parametrize("days_ago", [1, 40])
@pytest.mark.parametrize("others", [False, True])
def test_a_strategys_part_ends_with_the_position_whoever_closed_it(
    admin_client: Client, account: Account, days_ago: int, others: bool
) -> None:
    """A flatten closed what ``trend`` had bought; ``holds`` bought anew since, and never sold."""

    def of(strategy: Strategy | None, side: str, realised: str, quantity: str = "1") -> None:
        order = OrderFactory.create(
            account=account, side=side, strategy=strategy, quantity=Decimal(quantity), state="open"
        )
        done = trade(f"T{order.pk}", quantity, "60000")
        fills.apply_report(order, report_of(order, VenueStatus.FILLED, done), source="test")
        Fill.objects.filter(order=order).update(realised_pnl=Decimal(realised))

    trend, holds = (StrategyFactory.create(slug=slug) for slug in ("trend", "holds"))
    of(trend, "buy", "-1")
    of(None, "sell", "50")
    if others:
        of(holds, "buy", "-3", "5")
    Fill.objects.update(recorded_at=timezone.now() - timedelta(days=days_ago))
    for _ in range(10):
        of(trend, "buy", "-1")
        of(trend, "sell", "101")

    before = (1, -1) if days_ago < 30 else (0, 0)
    for query in ({}, {"strategy": "trend"}):
        (shown,) = admin_client.get(reverse("admin:performance"), query).context["reports"]
        found = {row.name: row.figures for row in shown.groups["Strategy"]}
        trips, result = 10 + before[0], 1000 + before[1]
        assert (found["trend"].trips, found["trend"].result) == (trips, result)
        assert found["trend"].wins == 10
    assert shown.figures == found["trend"]


def took_over(
    account: Account, ours: str, theirs: str, *, state: str = "adopted", **fields: object
) -> Difference:
    return Difference.objects.create(
        account=account, symbol="BTC/USDT", kind=Difference.Kind.POSITION, key="BTC/USDT",
        state=state, ours=ours, theirs=theirs, detail="sold by hand",
        **{name: timezone.now() for name in ("first_seen_at", "last_seen_at", "resolved_at")} | fields,
    )  # fmt: skip


@pytest.mark.parametrize("days_ago", [1, 40])
@pytest.mark.parametrize("is_begun", [False, True], ids=["no position", "a position since"])
def test_what_was_sold_by_hand_and_adopted_ends_its_trip(
    admin_client: Client, account: Account, days_ago: int, is_begun: bool
) -> None:
    """Without it the position would seem to be held for good, and no later trip to end."""
    then = timezone.now() - timedelta(days=days_ago)
    fill(account, "buy", "-1", quantity=Decimal(1), recorded_at=then)
    took_over(account, "1", "0", resolved_at=then + timedelta(minutes=1))
    opened = fill(account, "buy", "-1", quantity=Decimal(5))
    if is_begun:
        PositionFactory.create(account=account, quantity=0, first_fill_id=opened.pk)
    fill(account, "sell", "20", quantity=Decimal(3))
    fill(account, "sell", "-5", quantity=Decimal(2))
    (shown,) = admin_client.get(reverse("admin:performance")).context["reports"]
    assert (shown.figures.trips, shown.figures.wins) == ((2, 1) if days_ago < 30 else (1, 1))
    assert shown.realised == (13 if days_ago < 30 else 14)


def test_what_was_taken_in_to_be_flattened_begins_no_trip_of_the_other_side(
    admin_client: Client, account: Account
) -> None:
    fill(account, "buy", "-1", quantity=Decimal(1))
    took_over(account, "1", "3", state="flattened")
    fill(account, "sell", "4", quantity=Decimal(2))
    assert report(admin_client)[:2] == ["3", "0"]
    fill(account, "sell", "10", quantity=Decimal(1))
    assert report(admin_client)[:3] == ["13", "1", "1"]


def test_what_was_adopted_elsewhere_or_undone_is_no_trip(
    admin_client: Client, account: Account
) -> None:
    took_over(AccountFactory.create(), "1", "0")
    took_over(account, "1", "0", state="gone")
    fill(account, "buy", "-1")
    fill(account, "sell", "4")
    assert report(admin_client)[:2] == ["3", "1"]


def test_paper_is_not_added_to_money(admin_client: Client, account: Account) -> None:
    live = AccountFactory.create(name="live", environment="live")
    fill(account, "sell", "900")
    fill(live, "sell", "-7")
    for of, amount in ((account, "30"), (live, "-2")):
        FundingPayment.objects.create(
            account=of, payment_id="1", symbol="BTC/USDT", amount=Decimal(amount), currency="USDT",
            at=timezone.now(), recorded_at=timezone.now(),
        )  # fmt: skip
    answer = admin_client.get(reverse("admin:performance"))
    found = [(one.environment, one.realised, one.funding) for one in answer.context["reports"]]
    assert found == [("dry_run", 900, 30), ("live", -7, -2)]


def test_the_filter_leaves_others_out(admin_client: Client, account: Account) -> None:
    other = AccountFactory.create(name="other")
    fill(account, "sell", "3")
    fill(other, "sell", "50")
    mine = fill(account, "sell", "2")
    strategy = StrategyFactory.create()
    Order.objects.filter(pk=mine.order_id).update(strategy=strategy)
    assert report(admin_client, account="main")[0] == "5"
    assert report(admin_client, account="other")[0] == "50"
    assert report(admin_client, strategy=strategy.slug)[0] == "2"
    assert (
        admin_client.get(reverse("admin:performance"), {"symbol": "eth/usdt"}).context["reports"]
        == []
    )


@pytest.mark.parametrize("query", [{"days": "x"}, {"account": "nobody"}, {"strategy": "' OR 1"}])
def test_an_address_nobody_can_mean_shows_the_usual(
    admin_client: Client, account: Account, query: dict[str, str]
) -> None:
    fill(account, "sell", "3")
    assert report(admin_client, **query)[0] == "3"


def test_execution_quality_in_numbers(admin_client: Client, account: Account) -> None:
    now = timezone.now()
    for delay, price in ((100, 60060), (300, 60120)):
        OrderFactory.create(
            account=account,
            signal=SignalFactory.create(received_at=now - timedelta(milliseconds=500)),
            side="buy",
            state=OrderState.FILLED,
            reference_price=Decimal(60000),
            average_price=Decimal(price),
            submitted_at=now,
            acknowledged_at=now + timedelta(milliseconds=delay),
        )
    OrderFactory.create(account=account, state=OrderState.REJECTED, reason="VENUE_REJECTED")
    context = admin_client.get(reverse("admin:performance")).context
    (row,) = context["quality"]["Account"]
    assert (row["orders"], row["slippage"]) == (2, Decimal(15))
    assert row["answer_median"] == timedelta(milliseconds=200)
    assert row["whole_p95"] == timedelta(milliseconds=790)
    assert (row["denied"], row["rejected"]) == (0, 1)
    (broker,), (strategy,) = (context["quality"][name] for name in ("Venue", "Strategy"))
    assert (broker["name"], broker["orders"]) == ("paper", 2)
    assert (strategy["name"], strategy["slippage"]) == ("by hand", Decimal(15))
    (refused,) = context["refused"]
    assert (refused["reason"], refused["orders"]) == ("VENUE_REJECTED", 1)


def test_slippage_is_told_against_the_price_the_alert_named(
    admin_client: Client, account: Account
) -> None:
    def filled(side: str, named: str | None, average: int, role: str = "entry") -> None:
        alert = {"symbol": "BTC/USDT", "action": side} | ({"price": named} if named else {})
        OrderFactory.create(
            account=account,
            signal=SignalFactory.create(alert=alert),
            strategy=strategy,
            role=role,
            side=side,
            state=OrderState.FILLED,
            reference_price=Decimal(50000),
            average_price=Decimal(average),
        )

    strategy = StrategyFactory.create(slug="trend")
    account.options["exchange"] = "kraken"
    account.save()
    filled("buy", "50000", 50100)  # 20 worse
    filled("sell", "50000", 50050, "exit")  # 10 better
    filled("sell", "50000", 45000, "stop_loss")  # it guards an entry that named the price
    filled("buy", None, 60000)
    filled("buy", "0", 60000)
    quality = admin_client.get(reverse("admin:performance")).context["quality"]
    for label, name in (("Strategy", "trend"), ("Venue", "kraken"), ("Account", "main")):
        (row,) = quality[label]
        assert (row["name"], row["alert_slippage"], row["alert_priced"]) == (name, 5, 2)
    page = admin_client.get(reverse("admin:performance")).content.decode()
    assert "bps of 2" in page


def test_the_csv_holds_every_trade_and_no_formula(admin_client: Client, account: Account) -> None:
    fill(account, "buy", "-0.5", trade_id="=HYPERLINK(1)")
    fill(account, "sell", "1.25")
    answer = admin_client.get(reverse("admin:performance"), {"format": "csv"})
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
    first, second = csv.DictReader(text.splitlines())
    assert (first["trade_id"], first["realised_pnl"], first["account"]) == (
        "'=HYPERLINK(1)",
        "-0.5",
        "main",
    )
    assert (second["side"], second["quantity"], second["price"]) == ("sell", "0.01", "60000")


def test_as_many_queries_for_many_fills(
    admin_client: Client, account: Account, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(30):
        fill(account, "sell" if number % 2 else "buy", "1")
    with time_machine.travel(
        timezone.now(), tick=False
    ):  # the menu's counts are kept for two seconds
        admin_client.get(reverse("admin:performance"))
        with django_assert_max_num_queries(19):
            admin_client.get(reverse("admin:performance"))


def test_who_may_not_see_fills_is_refused(client: Client) -> None:
    client.force_login(UserFactory.create())
    assert client.get(reverse("admin:performance")).status_code == 403


def test_balances_of_every_account_and_what_is_open(admin_client: Client) -> None:
    now = timezone.now()
    account = AccountFactory.create(
        name="main",
        balances={"USDT": {"total": "900.5"}, "BTC": {"total": "0.02"}, "ETH": {"total": "0"}},
        balances_at=now,
        equity=Decimal("2100.25"),
    )
    other = AccountFactory.create(name="other")
    PositionFactory.create(
        account=account, quantity=Decimal("0.02"), average_price=Decimal(60000), symbol="BTC/USDT"
    )
    PositionFactory.create(account=other, symbol="ETH/USDT")
    Instrument.objects.create(
        account=account, symbol="BTC/USDT", venue_symbol="BTCUSDT", base="BTC", quote="USDT",
        quantity_step=Decimal("0.001"), price_tick=Decimal(1), refreshed_at=now,
        last_price=Decimal(60500), last_price_at=now,
    )  # fmt: skip
    first, second = holdings.of_accounts([account, other], now)
    assert [(one.currency, one.total) for one in first.balances] == [
        ("BTC", Decimal("0.02")),
        ("USDT", Decimal("900.5")),
    ]
    assert (first.unrealised, second.unrealised) == (Decimal(10), None)
    page = admin_client.get(reverse("admin:performance")).content.decode()
    assert "900.5" in page
    assert "+10.00" in page
    page = admin_client.get(reverse("admin:performance"), {"account": "other"}).content.decode()
    assert "900.5" not in page
