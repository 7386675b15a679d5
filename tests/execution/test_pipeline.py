"""Deciding signals: facts, size, risk, rows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.test import override_settings
from django.utils import timezone
from prometheus_client import REGISTRY

from brokers.errors import BrokerError, QueryFailedError, QuoteUnavailableError
from brokers.models import Account, SymbolAlias
from execution import dispatch, dispositions, pipeline
from execution.models import Order, Position, Route, Signal, Strategy
from execution.pipeline import Decision, Step
from execution.states import TERMINAL, OrderState, SignalState
from risk import breakers, switch
from risk.models import TradingState
from risk.types import ReasonCode
from tests.brokers.scripted import Script, script_of
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    allow_trading,
)
from tests.threads import together

pytestmark = pytest.mark.django_db
S = OrderState
LANE = "BTC/USDT"
Accounts = Callable[..., Account]


@pytest.fixture
def route(scripted: Accounts) -> Route:
    allow_trading()
    return RouteFactory.create(account=scripted())


@pytest.fixture
def script(route: Route) -> Script:
    return script_of(route.account)


def signal_for(strategy: Strategy, action: str = "buy", **alert: object) -> Signal:
    fields = {"symbol": LANE, "action": action} | alert
    return SignalFactory.create(
        strategy=strategy, action=action, symbol=fields["symbol"], alert=fields
    )


def decide(signal: Signal) -> Decision:
    decision = pipeline.decide(Signal.objects.select_related("strategy").get(pk=signal.pk))
    signal.refresh_from_db()
    return decision


def denied(signal: Signal) -> Order:
    """The refused order of a signal: visible, with its reason on both rows."""
    order = Order.objects.get(signal=signal)
    assert order.state == S.DENIED
    assert order.finished_at is not None
    assert order.detail
    assert order.verdicts
    assert order.journal.get().to_state == S.DENIED
    assert (signal.state, signal.reason, signal.detail) == (
        SignalState.DENIED,
        order.reason,
        order.detail,
    )
    return order


# --- accepted -------------------------------------------------------------------------------------


def test_a_buy_becomes_one_pending_order_with_its_arithmetic(route: Route) -> None:
    signal = signal_for(route.strategy, quantity="0.0123456")

    decision = decide(signal)

    order = Order.objects.get(signal=signal)
    assert decision == Decision(Step.DECIDED, lanes=((route.account.pk, LANE),))
    assert (order.state, order.side, order.role) == (S.PENDING, "buy", "entry")
    assert (order.quantity, order.reference_price) == (Decimal("0.01234"), 60000)
    assert order.reserved_value == Decimal("740.4")
    assert order.client_order_id == f"x-{order.id.hex}"
    assert [step["label"] for step in order.sizing] == ["quantity asked for", "rounded down"]
    assert {"max_order_value", "max_position_value"} <= {one["rule"] for one in order.verdicts}
    assert order.expires_at == signal.received_at + timedelta(seconds=300)
    assert order.journal.get().actor == f"strategy {route.strategy.slug}"
    assert (signal.state, signal.finished_at) == (SignalState.WORKING, None)
    assert signal.decided_at is not None


def test_an_alias_of_the_account_comes_before_one_for_all(route: Route) -> None:
    SymbolAlias.objects.create(alias="MY", symbol="ETH/USDT")
    SymbolAlias.objects.create(alias="MY", symbol="SOL/USDT", account=route.account)
    decide(signal_for(route.strategy, symbol="my", quantity="1"))
    assert Order.objects.get().symbol == "SOL/USDT"


def test_a_close_sells_exactly_what_is_held_and_never_expires(route: Route) -> None:
    PositionFactory.create(account=route.account, quantity="0.02345")
    decide(signal_for(route.strategy, "close"))
    order = Order.objects.get()
    assert (order.side, order.role, order.quantity) == ("sell", "exit", Decimal("0.02345"))
    assert order.expires_at is None


def test_a_close_of_a_short_buys(route: Route) -> None:
    PositionFactory.create(account=route.account, quantity="-0.02")
    decide(signal_for(route.strategy, "close"))
    assert (Order.objects.get().side, Order.objects.get().quantity) == ("buy", Decimal("0.02"))


def test_an_exit_passes_the_limits_of_entries(route: Route) -> None:
    allow_trading(max_order_value="1", max_position_value="1")
    PositionFactory.create(account=route.account, quantity="1")
    decide(signal_for(route.strategy, "close"))
    assert Order.objects.get().state == S.PENDING


@pytest.mark.parametrize("error", [QueryFailedError("timeout"), QuoteUnavailableError("no book")])
def test_an_exit_goes_on_without_a_venue_that_answers(
    route: Route, script: Script, error: Exception
) -> None:
    decide(signal_for(route.strategy, quantity="0.01"))
    dispatch.run_lane(route.account.pk, LANE)
    if isinstance(error, QuoteUnavailableError):
        script.quote_failure = error
    else:
        script.failure = error
    route.account.instruments.update(refreshed_at=timezone.now() - timedelta(hours=2))
    decide(signal_for(route.strategy, "close"))
    order = Order.objects.get(role="exit")
    assert (order.state, order.quantity, order.reference_price) == (
        S.PENDING,
        Decimal("0.01"),
        60000,
    )


def test_an_exit_waits_in_its_lane_while_the_breaker_is_open(route: Route) -> None:
    decide(signal_for(route.strategy, quantity="0.01"))
    dispatch.run_lane(route.account.pk, LANE)
    breakers.trip(breakers.of_account(route.account.pk), "test")
    decide(signal_for(route.strategy, "close"))
    assert Order.objects.get(role="exit").state == S.PENDING


# --- refusals -------------------------------------------------------------------------------------


def test_nothing_to_close_is_ignored(route: Route) -> None:
    signal = signal_for(route.strategy, "close")
    decide(signal)
    assert (signal.state, signal.reason) == (SignalState.IGNORED, ReasonCode.NOTHING_TO_CLOSE)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"is_active": False}, ReasonCode.ACCOUNT_INACTIVE),
        ({"environment": "live"}, ReasonCode.LIVE_TRADING_OFF),
        ({"quote_currency": "EUR"}, ReasonCode.CURRENCY_MISMATCH),
    ],
)
def test_an_account_that_may_not_trade(
    route: Route, columns: dict[str, object], reason: ReasonCode
) -> None:
    Account.objects.update(**columns)
    script_of(route.account).unlisted = {"USDT/EUR", "EUR/USDT"}
    signal = signal_for(route.strategy, quantity="0.01")
    decide(signal)
    assert denied(signal).reason == reason


@override_settings(FKS_LIVE_TRADING=True)
def test_a_live_account_trades_where_live_trading_is_on(route: Route) -> None:
    Account.objects.update(environment="live")
    decide(signal_for(route.strategy, quantity="0.01"))
    assert Order.objects.get().state == S.PENDING


@pytest.mark.parametrize(
    ("symbol", "reason"),
    [("BTCUSD.P", ReasonCode.UNKNOWN_SYMBOL), ("NASDAQ_DL:AAPL", ReasonCode.DELAYED_DATA)],
)
def test_a_symbol_that_means_nothing_here(route: Route, symbol: str, reason: ReasonCode) -> None:
    signal = signal_for(route.strategy, symbol=symbol, quantity="0.01")
    decide(signal)
    assert denied(signal).reason == reason


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (QueryFailedError("timeout"), ReasonCode.VENUE_UNREACHABLE),
        (QuoteUnavailableError("no book"), ReasonCode.REFERENCE_UNAVAILABLE),
        (BrokerError("odd", code="HOUSE_CODE"), ReasonCode.INTERNAL_ERROR),
        (KeyError("lastPrice"), ReasonCode.INTERNAL_ERROR),
    ],
)
def test_a_venue_that_does_not_answer(
    route: Route, script: Script, failure: Exception, reason: ReasonCode
) -> None:
    script.failure = failure
    signal = signal_for(route.strategy, quantity="0.01")
    decide(signal)
    assert denied(signal).reason == reason


def test_a_code_of_the_plugins_own_is_named_in_the_text(route: Route, script: Script) -> None:
    script.failure = BrokerError("odd", code="HOUSE_CODE")
    signal = signal_for(route.strategy, quantity="0.01")
    decide(signal)
    assert signal.detail == "HOUSE_CODE: odd"


def test_an_open_breaker_denies_entries(route: Route) -> None:
    breakers.trip(breakers.of_account(route.account.pk), "test")
    signal = signal_for(route.strategy, quantity="0.01")
    decide(signal)
    assert denied(signal).reason == ReasonCode.BREAKER_OPEN


@pytest.mark.parametrize(
    ("state", "reason"),
    [("halted", ReasonCode.TRADING_HALTED), ("reducing", ReasonCode.REDUCE_ONLY)],
)
def test_the_kill_switch(route: Route, state: str, reason: ReasonCode) -> None:
    switch.change(TradingState.State(state), reason="outage")
    signal = signal_for(route.strategy, quantity="0.01")
    decide(signal)
    assert denied(signal).reason == reason


def test_a_refusal_keeps_its_numbers(route: Route) -> None:
    allow_trading(max_order_value="500")
    signal = signal_for(route.strategy, quantity="0.01")
    decide(signal)
    order = denied(signal)
    verdict = next(one for one in order.verdicts if not one["passed"])
    assert (order.reason, verdict["rule"]) == (ReasonCode.MAX_ORDER_VALUE, "max_order_value")
    assert (verdict["numbers"]["measured"], verdict["numbers"]["allowed"]) == ("600", "500")


def test_without_a_limit_nothing_is_opened(scripted: Accounts) -> None:
    route = RouteFactory.create(account=scripted())
    signal = signal_for(route.strategy, quantity="0.01")
    decide(signal)
    assert denied(signal).reason == ReasonCode.NO_LIMIT_SET


def test_what_the_venue_cannot_do_is_refused_before_it_is_sent(
    route: Route, script: Script
) -> None:
    PositionFactory.create(account=route.account)
    signal = signal_for(
        route.strategy, order_type="limit", price="50000", quantity="0.001", post_only=True
    )
    script.capabilities = replace(script.capabilities, post_only=False)
    decide(signal)
    assert denied(signal).reason == ReasonCode.NOT_SUPPORTED


def test_a_strategy_without_a_route(route: Route) -> None:
    Route.objects.update(is_enabled=False)
    signal = signal_for(route.strategy, quantity="0.01")
    assert decide(signal) == Decision(Step.DECIDED)
    assert (signal.state, signal.reason) == (SignalState.DENIED, ReasonCode.NO_ROUTE)
    assert not Order.objects.exists()


def test_a_disabled_strategy(route: Route) -> None:
    Strategy.objects.update(is_enabled=False)
    signal = signal_for(route.strategy, quantity="0.01")
    decide(signal)
    assert (signal.state, signal.reason) == (SignalState.DENIED, ReasonCode.STRATEGY_DISABLED)


@pytest.mark.parametrize(
    ("action", "received", "sent", "state", "reason"),
    [
        ("buy", 0, 301, SignalState.EXPIRED, ReasonCode.STALE),
        ("close", 0, 301, SignalState.EXPIRED, ReasonCode.STALE),
        ("buy", 301, 301, SignalState.EXPIRED, ReasonCode.STALE),
        ("close", 301, 301, SignalState.IGNORED, ReasonCode.NOTHING_TO_CLOSE),
        ("buy", 0, -61, SignalState.DENIED, ReasonCode.FROM_THE_FUTURE),
        ("buy", 301, 250, SignalState.EXPIRED, ReasonCode.STALE),
    ],
)
def test_alerts_of_the_wrong_time(
    route: Route, action: str, received: int, sent: int, state: SignalState, reason: ReasonCode
) -> None:
    """``received`` and ``sent``: how many seconds ago."""
    now = timezone.now()
    sent_at = now - timedelta(seconds=sent)
    signal = signal_for(route.strategy, action, quantity="0.01", sent_at=sent_at.isoformat())
    Signal.objects.update(received_at=now - timedelta(seconds=received))
    decide(signal)
    assert (signal.state, signal.reason) == (state, reason)


@pytest.mark.parametrize(
    ("sent", "enabled", "routed"),
    [(0, True, True), (301, True, True), (0, False, True), (0, True, False)],
    ids=["carried out", "stale", "disabled", "no route"],
)
def test_every_decision_is_measured_once(
    route: Route, sent: int, enabled: bool, routed: bool
) -> None:
    names = ("processing_duration_seconds_count", "fks_decide_seconds_count")
    Strategy.objects.update(is_enabled=enabled)
    Route.objects.update(is_enabled=routed)
    sent_at = timezone.now() - timedelta(seconds=sent)
    signal = signal_for(route.strategy, quantity="0.01", sent_at=sent_at.isoformat())
    before = [REGISTRY.get_sample_value(name) or 0.0 for name in names]

    assert decide(signal).step is Step.DECIDED
    assert decide(signal).step is Step.GONE

    assert [REGISTRY.get_sample_value(name) for name in names] == [one + 1 for one in before]


# --- waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(set(S) - TERMINAL))
def test_what_a_close_waits_for(route: Route, state: OrderState) -> None:
    """An order that may still change the position, until an operator has to find out about it."""
    PositionFactory.create(account=route.account)
    OrderFactory.create(account=route.account, state=state)
    signal = signal_for(route.strategy, "close")
    expected = Step.DECIDED if state is S.NEEDS_OPERATOR else Step.WAIT
    assert decide(signal).step is expected
    assert (signal.state == SignalState.RECEIVED) is (expected is Step.WAIT)


@pytest.mark.parametrize(
    ("action", "other", "step"),
    [
        ("buy", "sell", Step.WAIT),
        ("sell", "buy", Step.WAIT),
        ("buy", "buy", Step.DECIDED),
        ("sell", "sell", Step.DECIDED),
    ],
)
def test_an_order_waits_for_one_under_way_on_the_other_side(
    route: Route, action: str, other: str, step: Step
) -> None:
    OrderFactory.create(account=route.account, state=S.SUBMITTING, side=other)
    assert decide(signal_for(route.strategy, action, quantity="0.001")).step is step


@pytest.mark.parametrize("state", [S.PENDING, S.SUBMITTING, S.UNKNOWN])
@pytest.mark.parametrize(
    ("held", "leaving", "step"),
    [
        ("0.003", None, Step.DECIDED),
        ("0.003", "0.002", Step.DECIDED),
        ("0.003", "0.00201", Step.WAIT),
        ("0.00099", None, Step.WAIT),
        ("0", None, Step.WAIT),
    ],
)
def test_an_exit_waits_for_no_entry_while_the_position_covers_it(
    route: Route, state: OrderState, held: str, leaving: str | None, step: Step
) -> None:
    PositionFactory.create(account=route.account, quantity=Decimal(held))
    OrderFactory.create(account=route.account, state=state, quantity="0.01")
    if leaving:
        OrderFactory.create(
            account=route.account, state=S.OPEN, side="sell", role="exit", quantity=leaving
        )
    assert decide(signal_for(route.strategy, "sell", quantity="0.001")).step is step


def test_another_symbol_and_another_account_do_not_wait(route: Route, scripted: Accounts) -> None:
    OrderFactory.create(account=route.account, state=S.UNKNOWN, symbol="ETH/USDT", side="sell")
    OrderFactory.create(account=scripted(), state=S.UNKNOWN, side="sell")
    assert decide(signal_for(route.strategy, quantity="0.001")).step is Step.DECIDED


def test_a_signal_that_waits_too_long_to_open_anything_expires(route: Route) -> None:
    OrderFactory.create(account=route.account, state=S.UNKNOWN, side="sell", role="exit")
    signal = signal_for(route.strategy, quantity="0.001")
    assert decide(signal).step is Step.WAIT
    Signal.objects.update(received_at=timezone.now() - timedelta(seconds=301))
    decide(signal)
    assert (signal.state, signal.reason) == (SignalState.EXPIRED, ReasonCode.STALE)


# --- several accounts -----------------------------------------------------------------------------


def test_every_account_gets_its_own_order(route: Route, scripted: Accounts) -> None:
    other = RouteFactory.create(strategy=route.strategy, account=scripted(), quantity="0.5")
    decision = decide(signal_for(route.strategy))
    assert decision.lanes == ((route.account.pk, LANE), (other.account.pk, LANE))
    assert dict(Order.objects.values_list("account", "quantity")) == {
        route.account.pk: Decimal("0.01"),
        other.account.pk: Decimal("0.5"),
    }


@pytest.mark.parametrize(
    "failure", [QueryFailedError("maintenance"), KeyError("a defect of its plugin")]
)
def test_a_broken_account_does_not_stop_the_other(
    route: Route, scripted: Accounts, failure: Exception
) -> None:
    broken = scripted()
    RouteFactory.create(strategy=route.strategy, account=broken)
    script_of(broken).failure = failure
    signal = signal_for(route.strategy)
    assert decide(signal).lanes == ((route.account.pk, LANE),)
    assert dict(Order.objects.values_list("account", "state")) == {
        route.account.pk: S.PENDING,
        broken.pk: S.DENIED,
    }
    assert signal.state == SignalState.WORKING


# --- the end of a signal --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "filled", "disposition", "reason"),
    [
        ([S.FILLED], "0.01", SignalState.EXECUTED, ""),
        ([S.OPEN], "0", SignalState.WORKING, ""),
        ([S.UNKNOWN, S.DENIED], "0", SignalState.WORKING, ""),
        ([S.CANCELED], "0.004", SignalState.EXECUTED, ""),
        ([S.REJECTED, S.DENIED], "0", SignalState.FAILED, "CODE-rejected"),
        ([S.NOT_PLACED], "0", SignalState.FAILED, "CODE-not_placed"),
        ([S.EXPIRED, S.CANCELED], "0", SignalState.EXPIRED, "CODE-expired"),
        ([S.CANCELED], "0", SignalState.IGNORED, "CODE-canceled"),
        ([S.DENIED], "0", SignalState.DENIED, "CODE-denied"),
    ],
)
def test_the_disposition_follows_the_orders(
    route: Route,
    scripted: Accounts,
    states: list[OrderState],
    filled: str,
    disposition: SignalState,
    reason: str,
) -> None:
    signal = SignalFactory.create(strategy=route.strategy, state=SignalState.FAILED)
    Signal.objects.update(state=SignalState.DENIED if disposition is not SignalState.DENIED else "")
    for state in states:
        OrderFactory.create(
            signal=signal,
            account=scripted(),
            state=state,
            filled_quantity=filled,
            reason=f"CODE-{state.value}",
        )
    assert dispositions.settle(signal.pk) == disposition
    signal.refresh_from_db()
    assert (signal.state, signal.reason) == (disposition, reason)
    assert (signal.finished_at is None) == (disposition is SignalState.WORKING)
    assert dispositions.settle(signal.pk) is None


def test_a_signal_that_is_not_decided_is_not_settled(route: Route) -> None:
    signal = signal_for(route.strategy)
    assert dispositions.settle(signal.pk) is None


# --- twice and at once ----------------------------------------------------------------------------


def test_a_signal_is_decided_once(route: Route) -> None:
    signal = signal_for(route.strategy)
    assert decide(signal).step is Step.DECIDED
    assert decide(signal) == Decision(Step.GONE)
    assert Order.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_signal_decided_by_many_at_once_makes_one_order_per_account(scripted: Accounts) -> None:
    allow_trading()
    routes = [RouteFactory.create(account=scripted())]
    routes += [RouteFactory.create(strategy=routes[0].strategy, account=scripted())]
    signal = signal_for(routes[0].strategy)
    steps = [d.step for d in together(*[lambda: pipeline.decide(signal) for _ in range(6)])]
    assert sorted(steps) == [Step.DECIDED] + [Step.GONE] * 5
    assert Order.objects.count() == 2


def decided_in_threads(signals: list[Signal], *, then: Callable[[], object]) -> None:
    """Decide ``signals`` on several threads that share them out, doing ``then`` after each."""
    waiting = list(signals)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                signal = waiting.pop()
            pipeline.decide(signal)
            then()

    together(*[work] * 6)


@pytest.mark.django_db(transaction=True)
def test_room_for_ten_orders_is_taken_by_ten_of_fifty(scripted: Accounts) -> None:
    allow_trading(max_open_orders="10")
    route = RouteFactory.create(account=scripted())
    signals = [signal_for(route.strategy, quantity="0.001") for _ in range(50)]
    decided_in_threads(signals, then=lambda: None)
    assert Order.objects.filter(state=S.PENDING).count() == 10
    refused = Order.objects.filter(state=S.DENIED)
    assert set(refused.values_list("reason", flat=True)) == {ReasonCode.MAX_OPEN_ORDERS}


@pytest.mark.django_db(transaction=True)
def test_room_for_ten_fills_is_taken_by_ten_of_fifty(scripted: Accounts) -> None:
    """The orders fill while others are decided: what moves from an order to the position counts
    the whole time."""
    allow_trading(max_position_value="600")
    route = RouteFactory.create(account=scripted())
    signals = [signal_for(route.strategy, quantity="0.001") for _ in range(50)]
    decided_in_threads(signals, then=lambda: dispatch.run_lane(route.account.pk, LANE))
    dispatch.run_lane(route.account.pk, LANE)
    assert Order.objects.filter(state=S.FILLED).count() == 10
    assert Position.objects.get().quantity == Decimal("0.01")
    refused = Order.objects.filter(state=S.DENIED)
    assert set(refused.values_list("reason", flat=True)) == {ReasonCode.MAX_POSITION_VALUE}


def test_low_confidence_is_the_reason_even_where_no_size_could_be_found() -> None:
    allow_trading()
    route = RouteFactory.create(sizing="risk", quantity=None, percent=Decimal("0.02"))
    signal = SignalFactory.create(
        strategy__min_confidence=Decimal("0.6"),
        alert={"symbol": "BTC/USDT", "action": "buy", "confidence": "0.4"},
    )
    route.strategy = signal.strategy
    route.save()

    pipeline.decide(signal)

    assert Order.objects.get().reason == "LOW_CONFIDENCE"


def reason_of(signal: Signal) -> tuple[str, str]:
    decide(signal)
    order = Order.objects.get(signal=signal)
    return order.reason, order.detail


def test_delayed_data_are_refused_unless_the_strategy_allows_them(route: Route) -> None:
    first = signal_for(route.strategy, symbol="NASDAQ_DL:BTCUSDT", quantity="0.01")
    assert reason_of(first)[0] == ReasonCode.DELAYED_DATA
    route.strategy.allows_delayed = True
    route.strategy.save()

    second = signal_for(route.strategy, symbol="NASDAQ_DLY:BTCUSDT", quantity="0.01")
    decide(second)

    assert Order.objects.get(signal=second).state == OrderState.PENDING


def test_an_unknown_symbol_is_refused_with_what_may_have_been_meant(route: Route) -> None:
    decide(signal_for(route.strategy, quantity="0.01"))

    reason, detail = reason_of(signal_for(route.strategy, symbol="BTC-USTD!", quantity="0.01"))

    assert reason == ReasonCode.UNKNOWN_SYMBOL
    assert detail.endswith("; did you mean BTC/USDT?")


def test_a_market_that_ran_away_from_the_alerts_price(route: Route) -> None:
    route.strategy.max_drift = Decimal("0.005")
    route.strategy.save()
    reason, detail = reason_of(signal_for(route.strategy, price="50000", quantity="0.01"))
    assert reason == ReasonCode.PRICE_DRIFT
    assert "is beyond 0.5 % of the alert's 50000" in detail


def test_the_senders_own_limit_of_age_is_kept(route: Route) -> None:
    old = (timezone.now() - timedelta(seconds=100)).isoformat()
    signal = signal_for(route.strategy, quantity="0.01", sent_at=old, max_age=60)

    decide(signal)

    assert (signal.state, signal.reason) == (SignalState.EXPIRED, ReasonCode.STALE)
    assert signal.detail == "the alert was 100 s old when it arrived; the most is 60 s"


def test_a_long_limit_of_the_sender_does_not_stretch_the_strategys(route: Route) -> None:
    old = (timezone.now() - timedelta(seconds=400)).isoformat()
    signal = signal_for(route.strategy, quantity="0.01", sent_at=old, max_age=86_400)
    decide(signal)
    assert signal.reason == ReasonCode.STALE
