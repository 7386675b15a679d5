"""Of a group of accounts one takes each entry, by price after fees; exits go where the position is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.models import Account, SymbolAlias
from brokers.types import BookLevel, OrderBook, TradingFees, VenueStatus
from execution import dry_run, fills, periodic_tasks, pipeline, quotes, routing, tasks
from execution.models import Order, Route, RoutingDecision, Signal, Strategy
from execution.states import OrderState, SignalState
from risk import breakers, switch
from risk.models import TradingState
from risk.types import ReasonCode as R
from tests.brokers.scripted import Script, report_of, rest, script_of, swallow, trade
from tests.execution.trading import LANE, held, process, send
from tests.factories import (
    PositionFactory,
    RouteFactory,
    StrategyFactory,
    UserFactory,
    allow_trading,
)
from tests.threads import beside, together

D = Decimal
Accounts = Callable[..., Account]
eagerly = pytest.mark.usefixtures("eager")


@dataclass
class Group:
    """A strategy whose routes to ``a`` (60000), ``b`` (59990) and ``c`` (60010) are one group."""

    strategy: Strategy
    accounts: dict[str, Account]

    def script(self, name: str) -> Script:
        return script_of(self.accounts[name])

    def buy(self, **alert: Any) -> Signal:
        return process(send(self.strategy, **{"quantity": "0.01"} | alert))

    def do(self, action: str, **alert: Any) -> Signal:
        return process(send(self.strategy, action, **alert))

    def holdings(self) -> dict[str, Decimal]:
        found = {name: held(account) for name, account in self.accounts.items()}
        return {name: quantity for name, quantity in found.items() if quantity}

    def hold(self, name: str, quantity: str) -> None:
        PositionFactory.create(account=self.accounts[name], symbol=LANE, quantity=quantity)


@pytest.fixture
def group(scripted: Accounts) -> Group:
    allow_trading()
    strategy = StrategyFactory.create(slug="best")
    accounts = {}
    for name, price in (("a", 60000), ("b", 59990), ("c", 60010)):
        accounts[name] = scripted(name=name)
        RouteFactory.create(strategy=strategy, account=accounts[name], group="best")
        script_of(accounts[name]).price = D(price)
    return Group(strategy, accounts)


def taken_by(signal: Signal) -> list[str]:
    return [order.account.name for order in Order.objects.filter(signal=signal).order_by("id")]


def why(signal: Signal) -> dict[str, str]:
    """Why each account was left out, by name."""
    decision = RoutingDecision.objects.get(signal=signal)
    return {one["account"]: one["code"] for one in decision.candidates if "code" in one}


# --- entries: price, depth, fees ------------------------------------------------------------------


@pytest.mark.django_db
@eagerly
def test_the_cheapest_account_takes_a_purchase_and_nobody_else_gets_an_order(group: Group) -> None:
    signal = group.buy()
    assert (signal.state, taken_by(signal)) == (SignalState.EXECUTED, ["b"])
    assert group.holdings() == {"b": D("0.01")}
    assert [len(group.script(name).sent) for name in "abc"] == [0, 1, 0]


@pytest.mark.django_db
@eagerly
def test_each_entry_is_compared_anew(group: Group) -> None:
    group.buy()
    group.script("c").price = D(59000)
    assert taken_by(group.buy()) == ["c"]
    assert group.holdings() == {"b": D("0.01"), "c": D("0.01")}


@pytest.mark.django_db
@eagerly
def test_the_comparison_is_kept_with_every_accounts_numbers(group: Group) -> None:
    group.script("a").fees = TradingFees(D(0), D("0.001"))
    decision = RoutingDecision.objects.get(signal=group.buy())
    assert (decision.group, decision.reason) == ("best", "")
    assert decision.detail == "b has the best price after fees"
    assert [one["account"] for one in decision.candidates] == ["b", "c", "a"]
    assert decision.candidates[2] == {
        "account": "a",
        "venue": "scripted",
        "symbol": LANE,
        "quantity": "0.01",
        "best": "60000",
        "price": "60000",
        "fee_rate": "0.001",
        "net": "60060",
        "why": "0.1167 % worse after fees",
    }


@pytest.mark.django_db
@eagerly
def test_fees_decide_between_prices(group: Group) -> None:
    group.script("b").fees = TradingFees(D(0), D("0.001"))
    assert taken_by(group.buy()) == ["a"]


@pytest.mark.django_db
@eagerly
def test_what_the_operator_says_of_fees_counts_before_the_venues_own(group: Group) -> None:
    Account.objects.filter(name="b").update(maker_fee=D("0.001"), taker_fee=D("0.001"))
    assert taken_by(group.buy()) == ["a"]


@pytest.mark.django_db
@eagerly
def test_the_depth_for_the_size_decides_before_the_best_price(group: Group) -> None:
    shallow = (BookLevel(D(59990), D("0.001")), BookLevel(D(61000), D(5)))
    group.script("b").book = OrderBook(LANE, shallow, shallow, timezone.now())
    assert taken_by(group.buy(quantity="0.001")) == ["b"]
    assert taken_by(group.buy(quantity="0.01")) == ["a"]


@pytest.mark.django_db
@eagerly
def test_a_short_sale_goes_where_most_is_paid(group: Group) -> None:
    assert taken_by(group.do("sell", quantity="0.01")) == ["c"]


@pytest.mark.django_db
@eagerly
def test_of_equal_prices_the_first_name_wins(group: Group) -> None:
    for name in "abc":
        group.script(name).price = D(60000)
    decision = RoutingDecision.objects.get(signal=group.buy())
    assert [one["account"] for one in decision.candidates] == ["a", "b", "c"]
    assert decision.candidates[1]["why"] == "as good"
    assert group.holdings() == {"a": D("0.01")}


@pytest.mark.django_db
@eagerly
def test_routes_outside_the_group_take_every_alert_beside_it(
    group: Group, scripted: Accounts
) -> None:
    RouteFactory.create(strategy=group.strategy, account=scripted(name="d"))
    assert sorted(taken_by(group.buy())) == ["b", "d"]


@pytest.mark.django_db
@eagerly
def test_two_groups_each_choose_one(group: Group, scripted: Accounts) -> None:
    for name, price in (("x", 60000), ("y", 59000)):
        account = scripted(name=name)
        RouteFactory.create(strategy=group.strategy, account=account, group="other")
        script_of(account).price = D(price)
    assert sorted(taken_by(group.buy())) == ["b", "y"]


# --- health: who is left out ----------------------------------------------------------------------


def _switch_off(group: Group) -> R:
    Account.objects.filter(name="b").update(is_active=False)
    return R.ACCOUNT_INACTIVE


def _halt(group: Group) -> R:
    scope = TradingState.Scope.ACCOUNT
    switch.change(TradingState.State.HALTED, scope=scope, key="b", reason="test")
    return R.TRADING_HALTED


def _trip(group: Group) -> R:
    breakers.trip(breakers.of_account(group.accounts["b"].pk), "test")
    return R.BREAKER_OPEN


def _leave_unreconciled(group: Group) -> R:
    Account.objects.filter(name="b").update(reconciled_at=None)
    return R.DRIFT


def _reconcile_long_ago(group: Group) -> R:
    Account.objects.filter(name="b").update(reconciled_at=timezone.now() - timedelta(minutes=6))
    return R.DRIFT


def _fall_silent(group: Group) -> R:
    group.script("b").failure = QueryFailedError("no answer")
    return R.VENUE_UNREACHABLE


def _hide_fees(group: Group) -> R:
    group.script("b").fees = None
    return R.ACCOUNT_MISCONFIGURED


def _empty_the_book(group: Group) -> R:
    thin = (BookLevel(D(59990), D("0.001")),)
    group.script("b").book = OrderBook(LANE, thin, thin, timezone.now())
    return R.SIZE_TOO_LARGE


def _let_the_book_age(group: Group) -> R:
    Account.objects.filter(name="b").update(environment=Account.Environment.SANDBOX)
    deep, then = (BookLevel(D(59990), D(100)),), timezone.now() - timedelta(seconds=11)
    group.script("b").book = OrderBook(LANE, deep, deep, then)
    return R.MAX_QUOTE_AGE


def _unlist(group: Group) -> R:
    group.script("b").unlisted.add(LANE)
    return R.UNKNOWN_SYMBOL


def _size_it_too_small(group: Group) -> R:
    route = Route.objects.filter(account__name="b")
    route.update(sizing=Route.Sizing.FIXED_PERCENT, percent=D("0.000001"), quantity=None)
    return R.SIZE_TOO_SMALL


def _break(group: Group) -> R:
    group.script("b").failure = KeyError("a defect of the plugin")
    return R.INTERNAL_ERROR


@pytest.mark.django_db
@eagerly
@pytest.mark.parametrize(
    "spoil",
    [
        _switch_off, _halt, _trip, _leave_unreconciled, _reconcile_long_ago, _fall_silent, _hide_fees,
        _empty_the_book, _let_the_book_age, _unlist, _break,
    ],
)  # fmt: skip
def test_an_account_that_cannot_take_it_is_left_out_and_named(
    group: Group, spoil: Callable[[Group], R]
) -> None:
    code = spoil(group)
    signal = group.buy()
    assert taken_by(signal) == ["a"]
    assert why(signal) == {"b": code.value}


@pytest.mark.django_db
@eagerly
def test_an_order_below_the_minimum_of_its_account_is_left_out(group: Group) -> None:
    code = _size_it_too_small(group)
    signal = process(send(group.strategy))
    assert taken_by(signal) == ["a"]
    assert why(signal) == {"b": code.value}


@pytest.mark.django_db
@eagerly
def test_prices_in_other_money_are_not_compared(group: Group) -> None:
    SymbolAlias.objects.create(account=group.accounts["b"], alias=LANE, symbol="BTC/EUR")
    signal = group.buy()
    assert taken_by(signal) == ["a"]
    assert why(signal) == {"b": R.CURRENCY_MISMATCH}


@pytest.mark.django_db
@eagerly
def test_when_nobody_can_take_it_the_alert_is_denied_with_every_reason(group: Group) -> None:
    _fall_silent(group)
    group.script("a").fees = None
    group.script("c").unlisted.add(LANE)
    signal = group.buy()
    assert (signal.state, signal.reason) == (SignalState.DENIED, R.NO_VENUE_FITS)
    order = Order.objects.get(signal=signal)
    assert (order.account.name, order.state) == ("a", OrderState.DENIED)
    assert order.detail == "none of 3 in the group can take it; the comparison says why"
    assert why(signal) == {
        "a": "ACCOUNT_MISCONFIGURED",
        "b": "VENUE_UNREACHABLE",
        "c": "UNKNOWN_SYMBOL",
    }


@pytest.mark.django_db
@eagerly
def test_a_reason_all_share_is_the_alerts_own(group: Group) -> None:
    for name in "abc":
        group.script(name).failure = QueryFailedError("no answer")
    assert group.buy().reason == R.VENUE_UNREACHABLE


@pytest.mark.django_db(transaction=True)
def test_a_venue_that_does_not_answer_in_time_is_left_out(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotes, "DEADLINE", 0.8)
    hung, script = threading.Event(), group.script("b")
    monkeypatch.setattr(
        type(script), "refuse_when_failing", lambda one: one is script and hung.wait(20)
    )
    signal = send(group.strategy, quantity="0.01")
    try:
        pipeline.decide(signal)
    finally:
        hung.set()
    assert taken_by(signal) == ["a"]
    decision = RoutingDecision.objects.get(signal=signal)
    late = next(one for one in decision.candidates if one["account"] == "b")
    assert late["why"] == "no answer within 0.8 s"


# --- once chosen it stays -------------------------------------------------------------------------


@pytest.mark.django_db
@eagerly
def test_a_decision_begun_again_keeps_the_account(group: Group) -> None:
    """The worker died after the choice: meanwhile another account has become cheaper."""
    signal = send(group.strategy, quantity="0.01")
    RoutingDecision.objects.create(
        signal=signal,
        group="best",
        parts={str(group.accounts["c"].pk): {}},
        detail="c has the best price after fees",
        at=timezone.now(),
    )
    assert taken_by(process(signal)) == ["c"]
    assert process(signal).state == SignalState.EXECUTED
    assert group.holdings() == {"c": D("0.01")}


@pytest.mark.django_db
@eagerly
def test_an_order_of_unknown_fate_is_never_tried_at_another_account(group: Group) -> None:
    group.script("b").outcomes.append(swallow)
    signal = group.buy()
    periodic_tasks.sweep()
    tasks.process_signal(str(signal.pk))
    assert taken_by(signal) == ["b"]
    assert [len(group.script(name).sent) for name in "abc"] == [0, 1, 0]


@pytest.mark.django_db(transaction=True)
def test_workers_that_decide_at_once_choose_one_account(group: Group) -> None:
    signals = [send(group.strategy, quantity="0.01") for _ in range(5)]
    for signal in signals:
        together(*[lambda signal=signal: pipeline.decide(signal) for _ in range(4)])
        assert len(taken_by(signal)) == 1
    assert RoutingDecision.objects.count() == 5


# --- exits ----------------------------------------------------------------------------------------


@pytest.mark.django_db
@eagerly
@pytest.mark.parametrize(
    "alert", [{"action": "close"}, {"action": "sell", "quantity": "0.01"}], ids=["close", "sell"]
)
def test_an_exit_goes_where_the_position_is_whatever_the_prices(
    group: Group, alert: dict[str, str]
) -> None:
    group.hold("a", "0.01")
    group.script("c").price = D(99000)
    signal = group.do(**alert)
    assert (taken_by(signal), group.holdings()) == (["a"], {})
    decision = RoutingDecision.objects.get(signal=signal)
    assert (decision.detail, decision.candidates) == ("it goes where the position is: a", [])


@pytest.mark.django_db
@eagerly
def test_an_exit_needs_no_quote_of_anybody(group: Group) -> None:
    group.hold("b", "0.01")
    for name in "abc":
        group.script(name).quote_failure = QueryFailedError("no answer")
    assert taken_by(group.do("close")) == ["b"]
    assert group.holdings() == {}


@pytest.mark.django_db
@eagerly
def test_a_close_reaches_every_account_that_holds_some(group: Group) -> None:
    group.hold("a", "0.01")
    group.hold("c", "0.02")
    assert sorted(taken_by(group.do("close"))) == ["a", "c"]
    assert group.holdings() == {}


@pytest.mark.django_db
@eagerly
def test_a_sale_is_shared_out_over_the_accounts_that_hold_some(group: Group) -> None:
    group.hold("a", "0.01")
    group.hold("c", "0.03")
    signal = group.do("sell", quantity="0.035")
    quantities = Order.objects.filter(signal=signal).values_list("account__name", "quantity")
    assert dict(quantities) == {"c": D("0.03"), "a": D("0.005")}
    assert group.holdings() == {"a": D("0.005")}


@pytest.mark.django_db
@eagerly
def test_a_close_cancels_the_entry_that_rests_where_it_was_sent(group: Group) -> None:
    group.script("b").outcomes.append(rest)
    entry = group.buy(order_type="limit", price="50000")
    signal = group.do("close")
    assert (taken_by(entry), taken_by(signal)) == (["b"], ["b"])
    assert Order.objects.get(signal=entry).state == OrderState.CANCELED
    assert signal.reason == R.NOTHING_TO_CLOSE


@pytest.mark.django_db
@eagerly
@pytest.mark.parametrize(
    "alert",
    [{"action": "close"}, {"action": "sell", "quantity": "0.01", "market_position": "flat"}],
    ids=["close", "flat"],
)
def test_what_wants_no_position_cancels_entries_also_where_nothing_is_held_yet(
    group: Group, alert: dict[str, str]
) -> None:
    group.script("b").outcomes.append(rest)
    entry = group.buy(order_type="limit", price="50000")
    group.hold("a", "0.01")
    group.do(**alert)
    assert Order.objects.get(signal=entry).state == OrderState.CANCELED
    assert group.holdings() == {}


@pytest.mark.django_db(transaction=True)
def test_a_close_closes_what_is_decided_while_it_reads_its_own_market(
    group: Group, nudges: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry has compared its prices when the close overtakes it, and is through first."""
    group.hold("a", "0.01")
    entry, close = send(group.strategy, quantity="0.01"), send(group.strategy, "close")
    read, compared, routed = pipeline.open_legs, threading.Event(), threading.Event()

    def slowly(signal: Signal, alert: Any) -> Any:
        found = read(signal, alert)
        if signal == entry:
            compared.set()
            assert routed.wait(20)
        else:
            routed.set()
            buying.result(20)
        return found

    monkeypatch.setattr(pipeline, "open_legs", slowly)
    buying = beside(lambda: pipeline.decide(entry))
    assert compared.wait(20)
    pipeline.decide(close)
    for _ in range(3):
        for account in group.accounts.values():
            tasks.run_lane(account.pk, LANE)
        process(close)
    assert group.holdings() == {}


@pytest.mark.django_db
@eagerly
def test_a_fill_while_positions_are_read_counts_once(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted twice, all would be sold where half of it is."""
    group.hold("a", "0.01")
    group.script("b").outcomes.append(swallow)
    entry = Order.objects.get(signal=group.buy())
    filled = report_of(entry, VenueStatus.FILLED, trade("t1", "0.01"))
    read = routing.alive_in

    def then_it_fills(leg: Any) -> list[Order]:
        lane = read(leg)
        if leg.account == entry.account:
            fills.apply_report(Order.objects.get(pk=entry.pk), filled, source="test")
        return lane

    monkeypatch.setattr(routing, "alive_in", then_it_fills)
    group.do("sell", quantity="0.02")
    assert group.holdings() == {}


@pytest.mark.django_db
@eagerly
def test_a_close_with_nothing_held_says_so_once(group: Group) -> None:
    signal = group.do("close")
    assert (signal.state, signal.reason) == (SignalState.IGNORED, R.NOTHING_TO_CLOSE)
    assert taken_by(signal) == ["a"]


@pytest.mark.django_db
@eagerly
def test_a_target_is_one_for_the_whole_group(group: Group) -> None:
    long = {"market_position": "long"}
    group.do("buy", market_position_size="0.01", **long)
    group.script("a").price = D(59000)
    group.do("buy", market_position_size="0.03", **long)
    assert group.holdings() == {"b": D("0.01"), "a": D("0.02")}
    group.do("sell", market_position_size="0.005", **long)
    assert group.holdings() == {"b": D("0.005")}
    group.do("sell", market_position="flat")
    assert group.holdings() == {}


@pytest.mark.django_db
@eagerly
def test_a_cancel_reaches_every_account_of_the_group(group: Group) -> None:
    group.script("b").outcomes.append(rest)
    entry = group.buy(order_type="limit", price="50000")
    assert group.do("cancel").state == SignalState.EXECUTED
    assert Order.objects.get(signal=entry).state == OrderState.CANCELED


# --- what people see ------------------------------------------------------------------------------


@pytest.mark.django_db
@eagerly
def test_the_story_shows_the_comparison(group: Group, client: Client) -> None:
    _hide_fees(group)
    signal = group.buy()
    client.force_login(UserFactory.create(is_superuser=True))
    page = client.get(reverse("admin:execution_signal_change", args=[signal.pk]), follow=True)
    text = page.content.decode()
    assert "Why this account" in text
    assert "a has the best price after fees" in text
    assert "ACCOUNT_MISCONFIGURED" in text
    order = Order.objects.get(signal=signal)
    page = client.get(reverse("admin:execution_order_change", args=[order.pk]), follow=True)
    assert "Why this account" in page.content.decode()


@pytest.mark.django_db
@eagerly
def test_a_dry_run_compares_and_keeps_nothing(group: Group) -> None:
    body = b'{"symbol": "BTC/USDT", "action": "buy", "quantity": "0.01"}'
    result = dry_run.dry_run(group.strategy, body)
    assert [order["account"] for order in result["orders"]] == ["b"]
    assert result["routing"][0]["detail"] == "b has the best price after fees"
    assert not RoutingDecision.objects.exists()
    assert not Signal.objects.exists()
