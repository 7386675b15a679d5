"""The day of pages and gauges, and the day of the risk rule: one number."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra.django import TestCase
from pytest_django.fixtures import DjangoAssertNumQueries

from brokers.models import Account, Instrument
from execution import day_results, days
from execution.models import AccountDay, FundingPayment
from tests.execution.test_book import priced
from tests.factories import AccountFactory, FillFactory, OrderFactory, PositionFactory

pytestmark = pytest.mark.django_db
D = Decimal
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
AMOUNTS = some.decimals(-1000, 1000, places=2)
RATES = some.sampled_from([D(1), D("1.25"), D("0.008")])
CLOCKS = some.sampled_from(
    [("UTC", time(0)), ("Asia/Tokyo", time(21)), ("America/New_York", time(17))]
)


def shown(account: Account, now: datetime = NOON) -> tuple[Decimal, Decimal | None]:
    row = day_results.with_day(Account.objects.filter(pk=account.pk), now).get()
    return row.realised, row.changed


def results(*accounts: Account, now: datetime = NOON) -> dict[int, Decimal]:
    asked = Account.objects.filter(pk__in=[account.pk for account in accounts])
    return {row.pk: day_results.result(row) for row in day_results.with_day(asked, now)}


def pays(account: Account, amount: Decimal, at: datetime) -> None:
    FundingPayment.objects.create(
        account=account,
        payment_id=f"{at}",
        symbol="BTC/USDT",
        amount=amount,
        currency="USDT",
        at=at,
        recorded_at=at,
    )


class TestOneNumber(TestCase):
    @settings(max_examples=15, deadline=None)
    @given(
        clock=CLOCKS,
        rate=RATES,
        booked=some.lists(some.tuples(some.integers(0, 30), AMOUNTS), max_size=4),
        funding=AMOUNTS,
        prices=some.tuples(some.integers(1, 200), some.integers(1, 200)),
    )
    def test_what_the_rule_compares_is_what_is_shown(
        self,
        clock: tuple[str, time],
        rate: Decimal,
        booked: list[tuple[int, Decimal]],
        funding: Decimal,
        prices: tuple[int, int],
    ) -> None:
        zone, starts = clock
        account = AccountFactory.create(day_zone=zone, day_starts=starts)
        for hours, amount in booked:
            FillFactory.create(
                order=OrderFactory.create(account=account),
                realised_pnl=amount,
                recorded_at=NOON - timedelta(hours=hours),
            )
        pays(account, funding, NOON - timedelta(hours=1))
        PositionFactory.create(account=account, quantity=2, average_price=D(90))
        PositionFactory.create(
            account=account, symbol="ETH/USDT", quantity=D(-3), average_price=D(7)
        )
        priced(account, price=f"{prices[0]}", last_rate=rate)
        priced(account, "ETH/USDT", "5")
        days.today(account, NOON)
        Instrument.objects.filter(symbol="BTC/USDT").update(last_price=prices[1])

        rule = days.today(account, NOON)

        assert shown(account) == (rule.realised, rule.unrealised)
        assert results(account) == {account.pk: rule.result}


def test_a_day_nobody_looked_at_yet_has_changed_nothing() -> None:
    account = AccountFactory.create()
    PositionFactory.create(account=account, quantity=2, average_price=D(90))
    priced(account)
    assert shown(account) == (0, 0)
    assert not AccountDay.objects.exists()


def test_what_cannot_be_priced_is_not_known() -> None:
    account = AccountFactory.create(environment="sandbox")
    assert shown(account) == (0, 0)
    PositionFactory.create(account=account, quantity=D(0))
    assert shown(account) == (0, 0)
    held = PositionFactory.create(account=account, symbol="ETH/USDT")
    FillFactory.create(order__account=account, realised_pnl=D(-7), recorded_at=NOON)
    assert shown(account) == (-7, None)
    assert results(account) == {account.pk: D(-7)}
    priced(account, "ETH/USDT", last_price_at=NOON)
    assert shown(account) == (-7, 0)
    assert shown(account, NOON + timedelta(minutes=6)) == (-7, None)
    assert shown(account, NOON - timedelta(minutes=6))[1] is None
    held.average_price = None
    held.save()
    assert shown(account) == (-7, None)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd"])
def test_a_zone_nobody_knows_is_the_matter_of_its_account_only(zone: str) -> None:
    account, lost = AccountFactory.create(), AccountFactory.create(day_zone=zone)
    for one in (account, lost):
        FillFactory.create(order__account=one, realised_pnl=D(-7), recorded_at=NOON)
    assert shown(account) == (-7, 0)
    assert shown(lost) == (0, None)
    assert results(account, lost) == {account.pk: D(-7), lost.pk: D(0)}


def test_a_rehearsals_price_stands() -> None:
    account = AccountFactory.create()
    PositionFactory.create(account=account)
    priced(account, last_price_at=NOON - timedelta(days=2))
    assert shown(account) == (0, 0)


def test_two_queries_for_many_accounts(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with time_machine.travel(NOON, tick=False):
        accounts = [AccountFactory.create(day_starts=time(hour)) for hour in (0, 9, 17)]
        for number, account in enumerate(accounts):
            FillFactory.create(order__account=account, realised_pnl=D(number), recorded_at=NOON)
        with django_assert_num_queries(2):
            found = results(*accounts)
    assert found == {account.pk: D(number) for number, account in enumerate(accounts)}
