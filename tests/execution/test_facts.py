"""What risk gets to know: from the venue, and from our own rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from brokers.errors import BrokerError, QueryFailedError, UnknownSymbolError
from brokers.models import Account
from brokers.models import Instrument as InstrumentRow
from brokers.recent_quotes import RECENT
from brokers.sessions import plugin_for
from brokers.types import BalanceReport, OrderType
from execution import facts
from execution.alerts import Action, Alert
from execution.states import TERMINAL, WORKING, OrderState
from risk import breakers
from risk.book import Book
from risk.types import Facts, ReasonCode, Refusal
from tests.brokers.scripted import Script, ScriptedPlugin, script_of
from tests.factories import OrderFactory, PositionFactory, StrategyFactory

pytestmark = pytest.mark.django_db
LANE = "BTC/USDT"
D = Decimal
Accounts = Callable[..., Account]
BUY = Alert(symbol=LANE, action=Action.BUY)


@pytest.fixture
def account(scripted: Accounts) -> Account:
    return scripted()


def read(account: Account, *, is_exit: bool = False, alert: Alert = BUY) -> facts.Market:
    return facts.read_market(account, alert.symbol, alert, is_exit=is_exit)


def complete(account: Account) -> Facts:
    return facts.complete(read(account), StrategyFactory.create())


def test_the_market_as_the_venue_tells_it(account: Account) -> None:
    market = read(account)
    assert (market.quote.last, market.instrument.symbol) == (60000, LANE)
    assert (market.equity, market.to_account_currency) == (1_000_000, 1)


def test_equity_is_cash_and_the_traded_coin_only(account: Account, script: Script) -> None:
    script.balances = {"USDT": D(100), "USDC": D(50), "BTC": D("0.01"), "ETH": D(7)}
    assert read(account).equity == 750


def test_what_an_account_is_counted_in_is_not_counted_twice(
    account: Account, script: Script
) -> None:
    """USD/JPY on an account in dollars: its dollars are cash, and no coin it has bought."""
    Account.objects.filter(pk=account.pk).update(quote_currency="BTC")
    account.refresh_from_db()
    script.balances = {"BTC": D(3)}
    assert read(account).equity == 3


def test_equity_is_no_more_than_the_account_was_worth(account: Account, script: Script) -> None:
    """Of a short the proceeds are in the cash, and what is owed is not; what an open contract has lost
    is in no balance."""
    script.balances = {"USDT": D(30_000), "ETH": D(-10)}
    assert read(account).equity == 30_000
    account.equity = D(10_000)
    assert read(account).equity == 10_000
    account.equity = D(40_000)
    assert read(account).equity == 30_000


def test_equity_is_not_known_while_the_venue_is_silent(
    account: Account, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise QueryFailedError("timeout")

    monkeypatch.setattr("tests.brokers.scripted.ScriptedPlugin.balances", silent)
    assert read(account).equity is None


def test_balances_are_read_again_when_they_are_old(account: Account, script: Script) -> None:
    read(account)
    script.balances = {"USDT": D(5)}
    assert read(account).equity == 1_000_000
    with time_machine.travel(timezone.now() + timedelta(seconds=91), tick=False):
        assert read(account).equity == 5


def test_the_rules_of_a_symbol_are_kept_for_an_hour(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(account)
    asked: list[str] = []
    instrument = type(plugin_for(account)).instrument

    def counting(plugin: object, symbol: str) -> object:
        asked.append(symbol)
        return instrument(plugin, symbol)  # type: ignore[arg-type]

    monkeypatch.setattr("tests.brokers.scripted.ScriptedPlugin.instrument", counting)
    read(account)
    assert asked == []
    InstrumentRow.objects.update(refreshed_at=timezone.now() - timedelta(hours=1))
    read(account)
    assert asked == [LANE]
    assert InstrumentRow.objects.count() == 1


@pytest.fixture
def told(scripted: Accounts) -> tuple[Account, Account, list[Decimal]]:
    """Two accounts of a venue that tells everybody the same prices: here 60000, then 61000."""
    first, second = scripted(), scripted()
    for one, price in ((first, D(60000)), (second, D(61000))):
        script_of(one).shares_quotes_as, script_of(one).price = "the venue", price
    return first, second, [D(60000), D(61000)]


def test_accounts_of_a_venue_share_the_price_of_a_market_order(
    told: tuple[Account, Account, list[Decimal]],
) -> None:
    first, second, prices = told
    assert read(first).quote == read(second).quote
    RECENT.forget()
    assert [read(second).quote.last, read(first).quote.last] == [prices[1], prices[1]]


def test_a_limit_order_is_judged_by_a_price_of_its_own(
    told: tuple[Account, Account, list[Decimal]],
) -> None:
    first, second, prices = told
    limit = Alert(symbol=LANE, action=Action.BUY, order_type=OrderType.LIMIT, price=D(59000))
    assert [read(one, alert=limit).quote.last for one in (first, second)] == prices


def test_whoever_shares_a_price_has_its_own_breaker(
    told: tuple[Account, Account, list[Decimal]],
) -> None:
    """A breaker that is not closed wants its account's own answer: another's proves nothing of it."""
    first, second, prices = told
    read(first)
    breaker = breakers.of_account(second.pk)
    breakers.trip(breaker, "test")
    with pytest.raises(Refusal) as refused:
        read(second)
    assert refused.value.code is ReasonCode.BREAKER_OPEN
    type(breaker).objects.update(opened_at=timezone.now() - timedelta(hours=1))
    assert read(second).quote.last == prices[1]
    breaker.refresh_from_db()
    assert breaker.state == breaker.State.CLOSED


def test_a_failed_question_is_its_accounts_failure_alone(
    told: tuple[Account, Account, list[Decimal]],
) -> None:
    first, second, prices = told
    script_of(first).quote_failure = QueryFailedError("timeout")
    with pytest.raises(QueryFailedError):
        read(first)
    assert read(second).quote.last == prices[1]
    assert [breakers.of_account(one.pk).failures for one in (first, second)] == [1, 0]


def test_balances_are_as_of_when_they_were_asked_for(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        asked_at = timezone.now()

        def slow(_plugin: object) -> list[BalanceReport]:
            clock.shift(5)
            return [BalanceReport("USDT", D(100), D(100))]

        monkeypatch.setattr(ScriptedPlugin, "balances", slow)
        facts.refresh_balances(account, plugin_for(account))
        account.refresh_from_db()
        assert account.balances_at == asked_at


def test_what_was_read_before_the_clock_was_set_back_is_read_again(
    account: Account, script: Script
) -> None:
    read(account)
    script.balances = {"USDT": D(5)}
    with time_machine.travel(timezone.now() - timedelta(hours=2), tick=False):
        assert read(account).equity == 5
        assert InstrumentRow.objects.get().refreshed_at == timezone.now()


def test_an_exit_makes_do_with_old_rules_and_an_old_price(account: Account, script: Script) -> None:
    read(account)
    PositionFactory.create(account=account, average_price="59000")
    InstrumentRow.objects.update(refreshed_at=timezone.now() - timedelta(hours=2))
    script.failure = QueryFailedError("timeout")
    with pytest.raises(QueryFailedError):
        read(account)
    market = read(account, is_exit=True)
    assert (market.quote.last, market.instrument.symbol, market.is_told) == (59000, LANE, False)


def test_an_exit_goes_on_where_a_price_is_refused_as_of_an_unknown_symbol(
    account: Account, script: Script
) -> None:
    read(account)
    PositionFactory.create(account=account, average_price="59000")
    script.quote_failure = UnknownSymbolError("the venue does not list it")
    with pytest.raises(UnknownSymbolError):
        read(account)
    assert read(account, is_exit=True).quote.last == 59000


def test_what_an_exit_makes_do_with_is_noted_nowhere(account: Account, script: Script) -> None:
    """The daily loss would be judged by a price nobody named."""
    read(account)
    long_ago = timezone.now() - timedelta(hours=2)
    InstrumentRow.objects.update(last_price_at=long_ago)
    script.quote_failure = QueryFailedError("timeout")
    alert = Alert(symbol=LANE, action=Action.CLOSE, price=D(58000))
    assert read(account, is_exit=True, alert=alert).quote.last == 58000
    row = InstrumentRow.objects.get()
    assert (row.last_price, row.last_rate, row.last_price_at) == (60000, 1, long_ago)


def test_an_exit_without_a_rate_makes_do_with_the_last(account: Account, script: Script) -> None:
    script.price = D("1.1")
    euros = Alert(symbol="BTC/EUR", action=Action.CLOSE)
    read(account, alert=euros, is_exit=True)
    long_ago = timezone.now() - timedelta(hours=2)
    InstrumentRow.objects.update(last_price_at=long_ago)
    script.price, script.unlisted = D(2), {"EUR/USDT", "USDT/EUR"}
    market = read(account, alert=euros, is_exit=True)
    assert (market.quote.last, market.to_account_currency) == (2, D("1.1"))
    assert not market.is_told
    row = InstrumentRow.objects.get()
    assert (row.last_price, row.last_rate, row.last_price_at) == (D("1.1"), D("1.1"), long_ago)


def test_an_exit_without_any_price_or_rules_is_refused(account: Account, script: Script) -> None:
    script.failure = QueryFailedError("timeout")
    with pytest.raises(QueryFailedError):
        read(account, is_exit=True)


def test_the_alerts_own_price_serves_an_exit_first(account: Account, script: Script) -> None:
    read(account)
    PositionFactory.create(account=account, average_price="59000")
    script.failure = QueryFailedError("timeout")
    alert = Alert(symbol=LANE, action=Action.CLOSE, price=D(58000))
    assert read(account, is_exit=True, alert=alert).quote.last == 58000


def test_another_currency_is_counted_at_the_venues_rate(account: Account, script: Script) -> None:
    script.price = D("1.1")
    euros = Alert(symbol="BTC/EUR", action=Action.BUY)
    assert read(account, alert=euros).to_account_currency == D("1.1")
    script.unlisted = {"EUR/USDT"}
    assert read(account, alert=euros).to_account_currency == 1 / D("1.1")


def test_without_a_rate_only_an_exit_goes_on(account: Account, script: Script) -> None:
    script.unlisted = {"EUR/USDT", "USDT/EUR"}
    euros = Alert(symbol="BTC/EUR", action=Action.CLOSE)
    assert read(account, alert=euros, is_exit=True).to_account_currency == 1
    with pytest.raises(Refusal) as refused:
        read(account, alert=Alert(symbol="BTC/EUR", action=Action.BUY))
    assert refused.value.code is ReasonCode.CURRENCY_MISMATCH


def test_a_read_reports_to_the_breaker_and_heeds_it(account: Account, script: Script) -> None:
    script.failure = QueryFailedError("timeout")
    for _ in range(5):
        with pytest.raises(QueryFailedError):
            read(account)
    with pytest.raises(Refusal) as refused:
        read(account)
    assert refused.value.code is ReasonCode.BREAKER_OPEN
    breakers.reset(breakers.of_account(account.pk), "test")
    script.failure = None
    read(account)


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (QueryFailedError("timeout"), ReasonCode.VENUE_UNREACHABLE, "timeout"),
        (BrokerError("no such thing"), ReasonCode.INTERNAL_ERROR, "BROKER_ERROR: no such thing"),
    ],
)
def test_a_plugins_error_as_a_refusal(error: BrokerError, code: ReasonCode, detail: str) -> None:
    refusal = facts.refusal_of(error)
    assert (refusal.code, refusal.detail) == (code, detail)


# --- our own rows ---------------------------------------------------------------------------------


def test_an_untouched_account_has_nothing(account: Account) -> None:
    known = complete(account)
    assert (known.position_quantity, known.working_buy_quantity, known.working_sell_quantity) == (
        0,
        0,
        0,
    )
    assert known.open_orders == 0
    assert known.book == Book(account.pk)


def test_the_position_of_the_symbol_and_account_counts(
    account: Account, scripted: Accounts
) -> None:
    PositionFactory.create(account=account, quantity="-0.5")
    PositionFactory.create(account=account, symbol="ETH/USDT", quantity="7")
    PositionFactory.create(account=scripted(), quantity="9")
    assert complete(account).position_quantity == D("-0.5")


@pytest.mark.parametrize("state", OrderState)
def test_an_order_counts_until_its_end(account: Account, state: OrderState) -> None:
    OrderFactory.create(account=account, state=state)
    known = complete(account)
    counted = state in WORKING
    assert counted is (state not in TERMINAL)
    assert (known.working_buy_quantity, known.open_orders) == (
        (D("0.01"), 1) if counted else (0, 0)
    )


def test_what_is_filled_already_is_not_working_any_more(account: Account) -> None:
    OrderFactory.create(account=account, state="partially_filled", filled_quantity="0.004")
    OrderFactory.create(account=account, state="open", quantity="1")
    OrderFactory.create(account=account, state="unknown", side="sell", quantity="0.3")
    OrderFactory.create(account=account, state="open", symbol="ETH/USDT", quantity="5")
    known = complete(account)
    assert (known.working_buy_quantity, known.working_sell_quantity) == (D("1.006"), D("0.3"))
    assert known.open_orders == 4


def test_position_and_orders_are_read_in_one_statement(account: Account) -> None:
    market, strategy = read(account), StrategyFactory.create()
    with CaptureQueriesContext(connection) as queries:
        facts.complete(market, strategy)
    assert len(queries) == 1
