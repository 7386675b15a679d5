"""The arbitrage monitor: gaps after fees, seen and told, never traded."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from brokers.errors import QueryFailedError
from brokers.models import Account, SymbolAlias
from brokers.types import Quote, TradingFees
from execution import periodic_tasks, spreads
from execution.models import Order, Signal, SpreadWatch
from execution.spreads import Seen
from risk import breakers
from risk.channels import Channel, Event, Notice
from risk.models import AuditEvent
from tests.brokers.scripted import script_of
from tests.factories import UserFactory
from tests.threads import together

D = Decimal
Accounts = Callable[..., Account]
FREE = TradingFees(D(0), D(0))


@pytest.fixture
def watch(scripted: Accounts) -> SpreadWatch:
    """BTC/USDT on ``cheap`` (60000) and ``dear`` (60600): 1 % apart, free of fees."""
    found = SpreadWatch.objects.create(symbol="BTC/USDT", is_enabled=True)
    for name, price in (("cheap", 60000), ("dear", 60600)):
        account = scripted(name=name)
        script_of(account).price = D(price)
        found.accounts.add(account)
    return found


def script(name: str) -> object:
    return script_of(Account.objects.get(name=name))


def looked(watch: SpreadWatch) -> SpreadWatch:
    spreads.look(watch.pk)
    watch.refresh_from_db()
    return watch


def channel() -> Channel:
    return Channel.objects.create(name="desk", service="json")


# --- the gap --------------------------------------------------------------------------------------


def seen(name: str, bid: str, ask: str, taker: str = "0") -> Seen:
    quote = Quote("BTC/USDT", D(bid), D(ask), D(bid), timezone.now())
    return Seen(name, quote, D(taker))


def test_the_widest_gap_is_after_both_fees() -> None:
    gap = spreads.widest([seen("a", "99", "100", "0.001"), seen("b", "102", "103", "0.002")])
    assert gap == spreads.Gap(D("0.01694305"), "a", "b")  # 102 × 0.998 ÷ (100 × 1.001) − 1


def test_where_every_pair_loses_the_gap_is_negative() -> None:
    gap = spreads.widest([seen("a", "99.9", "100"), seen("b", "99.9", "100")])
    assert gap == spreads.Gap(D("-0.00100000"), "a", "b")


def test_one_quote_makes_no_gap() -> None:
    assert spreads.widest([seen("a", "99", "100")]) is None


prices = st.decimals("1", "1000", places=2)


@given(st.lists(st.tuples(prices, prices, st.decimals("0", "0.01", places=4)), max_size=5))
def test_no_other_pair_would_bring_more(rows: list[tuple[Decimal, Decimal, Decimal]]) -> None:
    all_seen = [
        seen(f"n{index}", str(min(row[:2])), str(max(row[:2])), str(row[2]))
        for index, row in enumerate(rows)
    ]
    gap = spreads.widest(all_seen)
    for buy in all_seen:
        for sell in all_seen:
            if buy is not sell:
                assert gap is not None
                assert sell.proceeds / buy.cost - 1 <= gap.net + D("1E-8")


# --- a look ---------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_look_keeps_what_every_account_told(watch: SpreadWatch) -> None:
    Account.objects.filter(name="dear").update(maker_fee=D(0), taker_fee=D("0.002"))
    looked(watch)
    assert (watch.net, watch.buy_on, watch.sell_on) == (D("0.00798"), "cheap", "dear")
    dear = watch.quotes[1]
    assert (dear["account"], dear["bid"], dear["sells_at"]) == ("dear", "60600", "60478.8")


@pytest.mark.django_db
def test_nothing_is_ever_traded(watch: SpreadWatch) -> None:
    looked(watch)
    assert not Order.objects.exists()
    assert not Signal.objects.exists()
    assert [script_of(account).sent for account in watch.accounts.all()] == [[], []]


def _fall_silent(account: Account) -> str:
    script_of(account).failure = QueryFailedError("no answer")
    return "VENUE_UNREACHABLE"


def _hide_fees(account: Account) -> str:
    script_of(account).fees = None
    return "ACCOUNT_MISCONFIGURED"


def _trip(account: Account) -> str:
    breakers.trip(breakers.of_account(account.pk), "test")
    return "BREAKER_OPEN"


def _quote_in_other_dollars(account: Account) -> str:
    SymbolAlias.objects.create(account=account, alias="BTC/USDT", symbol="BTC/USD")
    return "CURRENCY_MISMATCH"


@pytest.mark.django_db
@pytest.mark.parametrize("spoil", [_fall_silent, _hide_fees, _trip, _quote_in_other_dollars])
def test_an_account_without_a_usable_quote_is_left_out_and_named(
    watch: SpreadWatch, spoil: Callable[[Account], str]
) -> None:
    code = spoil(Account.objects.get(name="dear"))
    looked(watch)
    assert (watch.net, watch.buy_on, watch.quotes[1]["code"]) == (None, "", code)


@pytest.mark.django_db
def test_what_is_switched_off_is_not_asked(watch: SpreadWatch) -> None:
    SpreadWatch.objects.update(is_enabled=False)
    assert spreads.due(timezone.now()) == []
    assert spreads.look(watch.pk) is None
    Account.objects.filter(name="dear").update(is_active=False)
    SpreadWatch.objects.update(is_enabled=True)
    assert [one["account"] for one in looked(watch).quotes] == ["cheap"]


@pytest.mark.usefixtures("standing_clock")
@pytest.mark.django_db
def test_a_look_is_due_when_its_seconds_have_passed(watch: SpreadWatch) -> None:
    assert spreads.due(timezone.now()) == [watch.pk]
    looked(watch)
    assert spreads.due(timezone.now() + timedelta(seconds=29)) == []
    assert spreads.due(timezone.now() + timedelta(seconds=31)) == [watch.pk]


@pytest.mark.django_db(transaction=True)
def test_of_two_looks_at_once_one_is_made(watch: SpreadWatch) -> None:
    found = together(*[lambda: spreads.look(watch.pk) for _ in range(2)])
    made = [one for one in found if one is not None]
    assert made
    assert all(one.net == D("0.01") for one in made)


@pytest.mark.django_db
@pytest.mark.usefixtures("eager")
def test_the_periodic_task_looks_at_what_is_due(watch: SpreadWatch) -> None:
    periodic_tasks.look_at_spreads()
    watch.refresh_from_db()
    assert watch.net == D("0.01")


# --- telling people -------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_gap_over_the_threshold_is_told_once_in_a_while(watch: SpreadWatch) -> None:
    channel()
    start = timezone.now()
    for seconds, told in ((0, 1), (60, 1), (1799, 1), (1801, 2)):
        with time_machine.travel(start + timedelta(seconds=seconds), tick=False):
            looked(watch)
        assert Notice.objects.filter(event=Event.SPREAD_SEEN).count() == told
    notice = Notice.objects.first()
    assert notice is not None
    assert notice.title == "BTC/USDT: 1 % between cheap and dear"
    assert "FKS trades nothing on this." in notice.text


@pytest.mark.django_db
def test_a_gap_no_wider_than_the_threshold_is_not_told(watch: SpreadWatch) -> None:
    channel()
    SpreadWatch.objects.update(threshold=D("0.01"))
    looked(watch)
    assert not Notice.objects.exists()
    assert watch.told_at is None


# --- page, API ------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_page_shows_the_gap_and_its_quotes(watch: SpreadWatch, client: Client) -> None:
    _hide_fees(Account.objects.get(name="dear"))
    looked(watch)
    client.force_login(UserFactory.create(is_superuser=True))
    page = client.get(reverse("admin:execution_spreadwatch_change", args=[watch.pk]), follow=True)
    assert "ACCOUNT_MISCONFIGURED" in page.content.decode()
    script_of(Account.objects.get(name="dear")).fees = FREE
    looked(watch)
    listed = client.get(reverse("admin:execution_spreadwatch_changelist"), follow=True)
    assert "1 %" in listed.content.decode()


@pytest.mark.django_db
def test_a_watch_is_made_on_the_page_with_a_reason(scripted: Accounts, client: Client) -> None:
    client.force_login(UserFactory.create(is_superuser=True))
    one, other = scripted(name="x"), scripted(name="y")
    form = {
        "symbol": "ETH/USDT", "is_enabled": "on", "accounts": [one.pk], "threshold": "0.003",
        "every": "10", "quiet": "600", "reason": "we look at ether",
    }  # fmt: skip
    add = reverse("admin:execution_spreadwatch_add")
    refused = client.post(add, form, follow=True)
    assert "choose two accounts or more" in refused.content.decode()
    client.post(add, form | {"accounts": [one.pk, other.pk]}, follow=True)
    made = SpreadWatch.objects.get()
    assert (made.symbol, made.threshold, made.accounts.count()) == ("ETH/USDT", D("0.003"), 2)
    assert AuditEvent.objects.filter(kind__startswith="spread.", reason="we look at ether").exists()


@pytest.mark.django_db
def test_the_api_tells_the_last_look(watch: SpreadWatch, client: Client) -> None:
    looked(watch)
    client.force_login(UserFactory.create(is_superuser=True))
    answer = json.loads(client.get("/api/v1/spreads").content)
    (row,) = answer["results"]
    assert (row["symbol"], D(row["net"]), row["buy_on"]) == ("BTC/USDT", D("0.01"), "cheap")
    assert [one["bid"] for one in row["quotes"]] == ["60000", "60600"]
