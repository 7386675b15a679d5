"""What accounts are worth over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers.capabilities import Balances
from brokers.models import Account, AccountRestriction
from brokers.registry import registry
from brokers.sessions import plugin_for
from execution import equity, facts
from execution.models import EquitySample
from execution.reconcile import reconcile_account
from tests.brokers.scripted import script_of
from tests.execution.test_book import priced
from tests.factories import AccountFactory, PositionFactory, UserFactory

pytestmark = pytest.mark.django_db
D = Decimal
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def keep(account: Account, *samples: tuple[timedelta, str], now: datetime = NOON) -> None:
    for ago, worth in samples:
        EquitySample.objects.create(account=account, at=now - ago, equity=D(worth))


def totals(account: Account, since: datetime | None, now: datetime = NOON) -> list[Decimal]:
    return [one.total for one in equity.curves([account], since, now)[account.pk]]


def holding(told: dict[str, str], **changes: Any) -> Account:
    """An account that told these totals, at a venue that fills nothing by itself."""
    balances = {name: {"total": total, "free": total} for name, total in told.items()}
    return AccountFactory.create(balances=balances, **changes)


def sampled(account: Account, at: datetime = NOON) -> Decimal | None:
    equity.note(account, plugin_for(account), at)
    newest = EquitySample.objects.filter(account=account).last()
    return newest.equity if newest else None


@pytest.mark.parametrize(
    ("told", "symbol", "quantity", "expected"),
    [
        ({"USDT": "820", "BTC": "2"}, "BTC/USDT", 2, 1020),
        ({"USDT": "1180", "BTC": "-2"}, "BTC/USDT", -2, 980),
        ({"USDT": "1000"}, "BTC/USDT:USDT", 2, 1020),
        ({"USDT": "1000"}, "BTC/USDT:USDT", -2, 980),
        ({"USDT": "1000"}, "ESZ26/USD", 2, 1020),
    ],
)
def test_money_gets_what_was_paid_and_what_was_gained_since(
    told: dict[str, str], symbol: str, quantity: int, expected: int
) -> None:
    """Two of something bought or sold at 90, when its price is 100."""
    account = holding(told)
    PositionFactory.create(account=account, symbol=symbol, quantity=quantity, average_price=D(90))
    priced(account, symbol, price="100", last_price_at=NOON)
    assert sampled(account) == expected
    assert Account.objects.get().equity == expected


@pytest.mark.parametrize(
    ("kind", "expected"), [(Balances.MONEY, 1020), (Balances.WORTH, 1000), (Balances.STATED, None)]
)
def test_what_the_venue_counted_in_is_not_added_again(
    scripted: Callable[..., Account], kind: Balances, expected: int | None
) -> None:
    account = scripted(environment="sandbox")
    script = script_of(account)
    script.capabilities = replace(script.capabilities, balances=kind)
    script.balances = {"USDT": D(1000)}
    PositionFactory.create(account=account, symbol="ESZ26/USD", quantity=2, average_price=D(90))
    priced(account, "ESZ26/USD", price="100", last_price_at=NOON)
    facts.refresh_balances(account, plugin_for(account))
    assert sampled(account) == expected
    assert account.equity == expected


def test_each_venue_says_what_its_balances_count() -> None:
    """From the vendors' own words: docs/brokers/."""
    told = {
        (plugin.name, card.venue): card.capabilities.balances
        for plugin in registry()
        for card in plugin.cards()
    }
    worth = {venue for venue, kind in told.items() if kind is Balances.WORTH}
    assert {name for name, _ in worth} == {"oanda", "bridge"}
    assert {venue for name, venue in worth if name == "bridge"} == {
        "MetaTrader 5", "Interactive Brokers",
    }  # fmt: skip
    stated = {venue for venue, kind in told.items() if kind is Balances.STATED}
    assert stated == {("bridge", "NinjaTrader 8")}


def test_the_equity_of_an_account_is_cash_and_what_its_holdings_took_from_it(
    scripted: Callable[..., Account],
) -> None:
    account = scripted(environment="sandbox", quote_currency="EUR")
    script_of(account).balances = {"EUR": D(1000), "ETH": D(2), "BTC": D(1)}
    for symbol, quantity in (
        ("ETH/USDT", D(2)),
        ("BTC/USDT:USDT", D(3)),
        ("EUR/USD", D(500)),
        ("ESZ26/USD", D(-50)),
    ):
        PositionFactory.create(
            account=account, symbol=symbol, quantity=quantity, average_price=D(90)
        )
    priced(account, "ETH/USDT", last_rate=D("0.5"))
    facts.refresh_balances(account, plugin_for(account))
    assert sampled(account) == 1000 + 2 * 90 * D("0.5")


def test_what_has_no_price_counts_at_what_it_cost() -> None:
    account = holding({"USDT": "820", "BTC": "2"})
    PositionFactory.create(account=account, quantity=2, average_price=D(90))
    assert sampled(account) == 1000


@pytest.mark.parametrize(
    ("price", "age", "expected"),
    [("100", 0, 1040), ("100", 6, 1020), ("70", 0, 980), ("70", 6, 980), (None, 0, 1020)],
)
def test_what_one_position_has_no_price_for_takes_nothing_from_the_others(
    price: str | None, age: int, expected: int
) -> None:
    """Two of each bought at 90, the other is at 100; of an old price a loss counts: it sizes orders."""
    account = holding({"USDT": "1000"})
    for symbol in ("BTC/USDT:USDT", "ETH/USDT:USDT"):
        PositionFactory.create(account=account, symbol=symbol, quantity=2, average_price=D(90))
    priced(account, "BTC/USDT:USDT", price="100", last_price_at=NOON)
    if price is not None:
        told_at = NOON - timedelta(minutes=age)
        priced(account, "ETH/USDT:USDT", price=price, last_price_at=told_at)
    Account.objects.update(environment="live")
    account.refresh_from_db()
    assert equity.worth(account, Balances.MONEY, NOON) == expected


def test_samples_are_ten_minutes_apart() -> None:
    account = holding({"USDT": "1000"})
    for minutes in (0, 1, 9, 10, 11, 20):
        sampled(account, NOON + timedelta(minutes=minutes))
    assert [one.at.minute for one in EquitySample.objects.all()] == [0, 10, 20]


def test_reconciling_an_account_takes_one() -> None:
    account = AccountFactory.create()
    reconcile_account(account)
    account.refresh_from_db()
    assert EquitySample.objects.get().equity == account.equity


def test_a_long_curve_shows_the_first_sample_and_the_last_of_each_stretch() -> None:
    account, other = AccountFactory.create(), AccountFactory.create()
    day, hour, minute = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
    keep(account, (2 * day, "1"), (2 * hour, "2"), (10 * minute, "3"), (minute, "4"))
    keep(other, (minute, "7"))
    assert totals(account, NOON - 7 * day) == [1, 2, 3, 4]
    assert totals(account, NOON - 90 * day) == [1, 2, 3, 4], "since the first, not for 90 days"
    keep(account, (300 * day, "0"))
    assert totals(account, NOON - 7 * day) == [1, 2, 3, 4]
    assert totals(account, None) == [0, 1, 4]
    assert totals(account, NOON - hour) == [3, 4]


def test_the_more_accounts_the_fewer_points_each() -> None:
    minute = timedelta(minutes=1)
    several = [AccountFactory.create() for _ in range(3)]
    for account in several:
        keep(account, *((minute * 10 * n, str(n)) for n in range(600)))
    assert len(totals(several[0], None)) == equity.MOST_POINTS + 1
    with mock.patch.object(equity, "MOST_TOGETHER", 300):
        drawn = equity.curves(several, None, NOON)
    assert [len(one) for one in drawn.values()] == [101, 101, 101]
    assert {(one[0].total, one[-1].total) for one in drawn.values()} == {(D(599), D(0))}


def test_the_page_draws_each_account_over_the_chosen_time(admin_client: Client) -> None:
    now = timezone.now()
    account = AccountFactory.create(name="main")
    day = timedelta(days=1)
    keep(account, (20 * day, "900"), (3 * day, "1000"), (day, "950"), (day / 24, "1100"), now=now)
    keep(AccountFactory.create(name="fresh"), (day, "5"), now=now)
    keep(AccountFactory.create(name="off", is_active=False), (day, "5"), now=now)

    def shown(**query: str) -> list[tuple[str, Decimal, Decimal, bool]]:
        context = admin_client.get(reverse("admin:performance"), query).context
        return [
            (one.account.name, one.last, one.change, one.line is not None)
            for one in context["worths"]
        ]

    fresh = ("fresh", D(5), D(0), False)
    assert shown() == [("main", D(1100), D(200), True), fresh]
    assert shown(days="7") == [("main", D(1100), D(100), True), fresh]
    assert shown(account="main", days="all") == [("main", D(1100), D(200), True)]
    page = admin_client.get(reverse("admin:performance"), {"days": "7"}).content.decode()
    assert "Equity of main" in page
    assert 'aria-label="From 0 to 100 USDT, lowest -50, highest 100"' in page
    assert "One sample makes no curve yet" in page


def shown_together(client: Client) -> list[tuple[str, str, int, Decimal, Decimal]]:
    rows = client.get(reverse("admin:performance")).context["together"]
    return [(one.environment, one.currency, one.accounts, one.last, one.change) for one in rows]


def test_accounts_with_one_kind_of_money_are_drawn_together(admin_client: Client) -> None:
    """Paper is not added to money, nor one currency to another; who comes later adds no money."""
    now, hour = timezone.now(), timedelta(hours=1)
    for name, environment, currency, samples in (
        ("a", "live", "USDT", ((4, "1000"), (2, "1100"), (1, "1050"))),
        ("b", "live", "USDT", ((3, "500"), (1, "530"))),
        ("c", "live", "EUR", ((4, "7"), (1, "8"))),
        ("d", "dry_run", "USDT", ((4, "9"), (1, "10"))),
        ("e", "dry_run", "USDT", ((4, "9"), (2, "4"), (1, "3"))),
    ):
        account = AccountFactory.create(name=name, environment=environment, quote_currency=currency)
        keep(account, *((hours * hour, worth) for hours, worth in samples), now=now)
    assert shown_together(admin_client) == [
        ("dry_run", "USDT", 2, D(13), D(-5)),
        ("live", "USDT", 2, D(1580), D(80)),
    ]
    page = admin_client.get(reverse("admin:performance")).content.decode()
    assert "Equity of 2 accounts in USDT" in page
    assert 'aria-label="From 0 to 80 USDT, lowest 0, highest 100"' in page
    assert 'aria-label="From 0 to -5 USDT, lowest -5, highest 0"' in page


def test_many_accounts_become_a_table_that_leads_to_each(admin_client: Client) -> None:
    now, hour = timezone.now(), timedelta(hours=1)
    for number in range(40):
        account = AccountFactory.create(name=f"account-{number:02}")
        keep(account, (2 * hour, "100"), (hour, str(100 + number)), now=now)
    answer = admin_client.get(reverse("admin:performance"), {"days": "7"})
    names = [one.account.name for one in answer.context["worths"]]
    assert (len(names), names[0], names[-1]) == (40, "account-39", "account-00")
    [together] = answer.context["together"]
    assert (together.accounts, together.last, together.change) == (40, 4780, 780)
    page = answer.content.decode()
    assert page.count("<path") == 41
    assert '<a href="?days=7&amp;account=account-39#equity">account-39</a>' in page
    alone = admin_client.get(reverse("admin:performance"), {"days": "7", "account": names[0]})
    assert [one.account.name for one in alone.context["worths"]] == ["account-39"]
    assert "Equity of account-39: " in alone.content.decode()


def test_whoever_works_with_some_accounts_sees_theirs(client: Client) -> None:
    mine, theirs = AccountFactory.create(name="mine"), AccountFactory.create(name="theirs")
    for account in (mine, theirs):
        keep(account, (timedelta(hours=1), "1"), now=timezone.now())
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    AccountRestriction.objects.create(user=user).accounts.set([mine])
    client.force_login(user)
    context = client.get(reverse("admin:performance")).context
    assert [one.account for one in context["worths"]] == [mine]
