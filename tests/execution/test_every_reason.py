"""Every reason code, reached by real rows: an alert comes in, and its order or signal ends so.

One scenario each; the table must be complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brokers.errors import (
    ConfigurationError,
    CredentialError,
    LoginNeededError,
    QueryFailedError,
    QuoteUnavailableError,
)
from brokers.models import Account
from brokers.types import Environment, ExecutionResult, Outcome, VenueStatus
from execution import approvals, commands, differences, pipeline, tasks
from execution.models import Order, Route, Signal, Strategy
from execution.states import OrderState
from risk import breakers, switch
from risk.limits import set_limit
from risk.models import TradingState
from risk.types import LimitMode
from risk.types import ReasonCode as R
from tests.brokers.scripted import (
    Script,
    ScriptedPlugin,
    fill_whole,
    report_of,
    rest,
    script_of,
    swallow,
)
from tests.factories import (
    FillFactory,
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    UserFactory,
    allow_trading,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("eager")]
LANE = "BTC/USDT"
D = Decimal
NOON = datetime(2026, 6, 3, 12, tzinfo=UTC)  # a Wednesday


@dataclass
class Desk:
    """One strategy with one route to a venue that follows a script."""

    route: Route
    script: Script

    @property
    def account(self) -> Account:
        return self.route.account

    def alert(self, action: str = "buy", *, auth: str = "token", **alert: Any) -> Signal:
        """An alert, worked off."""
        given = {"symbol": LANE, "action": action, "quantity": "0.01"} | alert
        fields = {name: value for name, value in given.items() if value is not None}
        signal = SignalFactory.create(
            strategy=Strategy.objects.get(pk=self.route.strategy_id),
            action=action,
            symbol=fields["symbol"],
            alert=fields,
            auth=auth,
        )
        tasks.process_signal(str(signal.pk))
        return Signal.objects.get(pk=signal.pk)

    def said(self, action: str = "buy", **alert: Any) -> str:
        """What an alert ends with."""
        return self.alert(action, **alert).reason

    def order(self, action: str = "buy", **alert: Any) -> Order:
        return Order.objects.get(signal=self.alert(action, **alert))

    def strategy(self, **columns: Any) -> None:
        Strategy.objects.filter(pk=self.route.strategy_id).update(**columns)

    def sizing(self, sizing: Route.Sizing, percent: str | None = "0.02") -> None:
        Route.objects.filter(pk=self.route.pk).update(
            sizing=sizing, percent=percent, quantity=None, atr_multiple=2
        )

    def hold(self, quantity: str = "0.01", symbol: str = LANE, **columns: Any) -> None:
        PositionFactory.create(account=self.account, symbol=symbol, quantity=quantity, **columns)

    def limit(self, rule: str, value: str, **parameters: str) -> None:
        set_limit(rule, D(value), parameters=parameters, reason="test")


@pytest.fixture
def desk(scripted: Callable[..., Account]) -> Iterator[Desk]:
    allow_trading()
    with time_machine.travel(NOON, tick=True):
        route = RouteFactory.create(account=scripted(), strategy=StrategyFactory.create())
        yield Desk(route, script_of(route.account))


def reason_of(order: Order) -> str:
    order.refresh_from_db()
    return str(order.reason)


# --- scenarios: the alert itself ------------------------------------------------------------------


def stale(desk: Desk) -> str:
    return desk.said(sent_at=(NOON - timedelta(minutes=10)).isoformat())


def from_the_future(desk: Desk) -> str:
    return desk.said(sent_at=(NOON + timedelta(minutes=5)).isoformat())


def low_confidence(desk: Desk) -> str:
    desk.strategy(min_confidence="0.6")
    return desk.said(confidence="0.59")


def confidence_missing(desk: Desk) -> str:
    desk.strategy(min_confidence="0.6", requires_confidence=True)
    return desk.said()


def poor_reward_risk(desk: Desk) -> str:
    desk.strategy(min_reward_risk="2")
    target = [{"price": "61999", "percent": "100"}]
    return desk.said(stop_loss="59000", take_profit=target)


def reward_risk_missing(desk: Desk) -> str:
    desk.strategy(min_reward_risk="2", requires_reward_risk=True)
    return desk.said()


def strategy_disabled(desk: Desk) -> str:
    desk.strategy(is_enabled=False)
    return desk.said()


def throttled(desk: Desk) -> str:
    desk.strategy(most_alerts=1)
    desk.alert()
    return desk.said()


def no_route(desk: Desk) -> str:
    Route.objects.update(is_enabled=False)
    return desk.said()


def execution_not_allowed(desk: Desk) -> str:
    desk.strategy(allowed_executions="iceberg, ladder")
    return desk.said(execution="twap")


def no_venue_fits(desk: Desk) -> str:
    other = RouteFactory.create(strategy=desk.route.strategy)
    Route.objects.update(group="best")
    desk.script.fees = None
    Account.objects.filter(pk=other.account_id).update(is_active=False)
    return desk.said()


def nothing_to_close(desk: Desk) -> str:
    return desk.said("close", quantity=None)


def nothing_to_cancel(desk: Desk) -> str:
    return desk.said("cancel")


def already_at_target(desk: Desk) -> str:
    desk.hold("0.01")
    return desk.said(quantity=None, market_position="long", market_position_size="0.01")


def not_flat(desk: Desk) -> str:
    """The first half of a reversal is refused by the venue, so there is no second."""
    desk.script.capabilities = replace(desk.script.capabilities, short_selling=True)
    desk.hold("0.01")
    desk.script.outcomes.append(ExecutionResult(Outcome.REJECTED, detail="no"))
    signal = desk.alert("sell", quantity="0.03")
    tasks.process_signal(str(signal.pk))
    return reason_of(Order.objects.get(signal=signal, role="entry"))


# --- scenarios: account and venue -----------------------------------------------------------------


def account_inactive(desk: Desk) -> str:
    Account.objects.update(is_active=False)
    return desk.said()


def live_trading_off(desk: Desk) -> str:
    Account.objects.update(environment=Environment.LIVE)
    return desk.said()


def drift(desk: Desk) -> str:
    seen = differences.Seen(differences.Kind.POSITION, LANE, LANE, "1", "2", "off")
    differences.note(desk.account, [seen])
    return desk.said()


def misconfigured(desk: Desk) -> str:
    desk.script.init_failure = ConfigurationError("no such exchange")
    return desk.said()


def credentials_refused(desk: Desk) -> str:
    desk.script.init_failure = CredentialError("wrong key")
    return desk.said()


def key_may_withdraw(desk: Desk) -> str:
    Account.objects.update(is_key_refused=True)
    return desk.said()


def login_needed(desk: Desk) -> str:
    desk.script.failure = LoginNeededError("nobody has logged in at the venue")
    return desk.said()


def unreachable(desk: Desk) -> str:
    desk.script.failure = QueryFailedError("no answer")
    return desk.said()


def rate_limited(desk: Desk) -> str:
    desk.script.quote_failure = QueryFailedError("asked too often", code="RATE_LIMITED")
    return desk.said()


def unknown_symbol(desk: Desk) -> str:
    desk.script.unlisted.add("XYZ/USDT")
    return desk.said(symbol="XYZ/USDT")


def delayed_data(desk: Desk) -> str:
    return desk.said(symbol="BINANCE_DLY:BTCUSDT")


def not_supported(desk: Desk) -> str:
    desk.script.capabilities = replace(desk.script.capabilities, post_only=False)
    return desk.said(order_type="limit", price="59000", post_only=True)


def reference_unavailable(desk: Desk) -> str:
    desk.script.quote_failure = QuoteUnavailableError("no trades today")
    return desk.said()


def equity_unknown(desk: Desk) -> str:
    desk.sizing(Route.Sizing.FIXED_PERCENT)
    account = Account.objects.get()

    def no_balances(*_: object) -> None:
        raise QueryFailedError("no answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("execution.facts.balances_of", no_balances)
        assert account.balances_at is None
        return desk.said(quantity=None)


def currency_mismatch(desk: Desk) -> str:
    desk.script.unlisted |= {"BTC/EUR", "EUR/USDT", "USDT/EUR"}
    return desk.said(symbol="ETH/EUR")


# --- scenarios: size and prices -------------------------------------------------------------------


def size_missing(desk: Desk) -> str:
    Route.objects.update(quantity=None)
    return desk.said(quantity=None)


def size_too_small(desk: Desk) -> str:
    return desk.said(quantity="0.000001")


def size_too_large(desk: Desk) -> str:
    return desk.said(quantity="1" + "0" * 19)


def stop_loss_missing(desk: Desk) -> str:
    desk.sizing(Route.Sizing.RISK)
    return desk.said(quantity=None)


def stop_loss_invalid(desk: Desk) -> str:
    desk.sizing(Route.Sizing.RISK)
    return desk.said(quantity=None, stop_loss="61000")


def take_profit_invalid(desk: Desk) -> str:
    targets = [{"price": price, "percent": "50"} for price in ("61000", "50000")]
    return desk.said(stop_loss="59000", take_profit=targets)


def price_missing(desk: Desk) -> str:
    desk.strategy(max_drift="0.01")
    return desk.said()


def price_drift(desk: Desk) -> str:
    desk.strategy(max_drift="0.01")
    return desk.said(price="59000")


# --- scenarios: limits ----------------------------------------------------------------------------


def no_limit_set(desk: Desk) -> str:
    set_limit("max_order_value", D(1), mode=LimitMode.OFF, reason="test")
    return desk.said()


def limited(rule: str, value: str, **parameters: str) -> Callable[[Desk], str]:
    """An order of 600 USDT against a limit that is a little too small for it."""

    def scenario(desk: Desk) -> str:
        desk.limit(rule, value, **parameters)
        return desk.said()

    return scenario


def after_a_first_order(rule: str, value: str, **parameters: str) -> Callable[[Desk], str]:
    """The limit leaves room for one of two orders that rest at the venue."""

    def scenario(desk: Desk) -> str:
        desk.limit(rule, value, **parameters)
        desk.script.outcomes.append(rest)
        first = desk.alert(order_type="limit", price="59999")
        assert first.reason == ""
        return desk.said(order_type="limit", price="59998")

    return scenario


def risk_per_trade(desk: Desk) -> str:
    """10,000 a piece at risk, 1 % of a million allowed."""
    desk.limit("risk_per_trade", "0.01")
    return desk.said(quantity="1.01", stop_loss="50000")


def lost(desk: Desk, *results: str) -> None:
    for result in results:
        order = OrderFactory.create(
            account=desk.account,
            strategy=desk.route.strategy,
            role="exit",
            side="sell",
            state=OrderState.FILLED,
            filled_quantity="0.01",
        )
        FillFactory.create(order=order, realised_pnl=D(result), recorded_at=timezone.now())


def daily_loss(desk: Desk) -> str:
    desk.limit("daily_loss", "100")
    lost(desk, "-100")
    return desk.said()


def max_drawdown(desk: Desk) -> str:
    desk.limit("max_drawdown", "100")
    lost(desk, "300")
    assert desk.said() == ""
    lost(desk, "-100")
    return desk.said()


def loss_streak(desk: Desk) -> str:
    desk.limit("loss_streak", "3")
    lost(desk, "-1", "-1", "-1")
    return desk.said()


def price_collar(desk: Desk) -> str:
    desk.limit("price_collar", "0.01")
    return desk.said(order_type="limit", price="60600.01")


def duplicate_order(desk: Desk) -> str:
    desk.limit("duplicate_order", "5")
    desk.alert(idempotency_key="one")
    return desk.said(idempotency_key="two")


def self_match(desk: Desk) -> str:
    desk.limit("self_match", "1")
    desk.script.outcomes.append(rest)
    desk.alert("sell", order_type="limit", price="60001")
    return desk.said(order_type="limit", price="60001")


def old_quote(desk: Desk) -> str:
    desk.limit("max_quote_age", "5")
    with quoting(at=NOON - timedelta(seconds=30)):
        return desk.said()


def wide_spread(desk: Desk) -> str:
    desk.limit("max_spread", "0.01")
    with quoting(bid=D(59000), ask=D(61000)):
        return desk.said()


@contextmanager
def quoting(**fields: Any) -> Iterator[None]:
    """The venue's quotes with some of their fields replaced."""
    plain = ScriptedPlugin.fetch_data

    def fetch(plugin: Any, symbol: str, hint: Decimal | None = None) -> Any:
        return replace(plain(plugin, symbol, hint), **fields)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedPlugin, "fetch_data", fetch)
        yield


def price_jump(desk: Desk) -> str:
    desk.limit("max_price_jump", "0.1")
    desk.alert()
    desk.script.price = D(67000)
    return desk.said()


def trading_hours(desk: Desk) -> str:
    desk.limit("trading_hours", "0", zone="UTC", opens="13:00", closes="14:00")
    return desk.said()


def reject_streak(desk: Desk) -> str:
    desk.limit("reject_streak", "2")
    no = ExecutionResult(Outcome.REJECTED, detail="no")
    desk.script.outcomes.extend([no, no])
    desk.alert()
    desk.alert()
    return desk.said()


def message_rate(desk: Desk) -> str:
    """It waits for its turn until its alert is too old, and then says what it waited for."""
    desk.limit("message_rate", "1", window="3600")
    desk.alert()
    order = desk.order()
    assert order.state == OrderState.PENDING
    with time_machine.travel(NOON + timedelta(seconds=400), tick=True):
        tasks.run_lane(desk.account.pk, LANE)
    order.refresh_from_db()
    assert order.state == OrderState.EXPIRED
    return order.reason


# --- scenarios: switches and people ---------------------------------------------------------------


def trading_halted(desk: Desk) -> str:
    switch.change(TradingState.State.HALTED, reason="stop")
    return desk.said()


def reduce_only(desk: Desk) -> str:
    switch.change(TradingState.State.REDUCING, reason="careful")
    return desk.said()


def breaker_open(desk: Desk) -> str:
    breakers.trip(breakers.of_account(desk.account.pk), "test")
    return desk.said()


def approval_rejected(desk: Desk) -> str:
    desk.strategy(needs_approval=True)
    order = desk.order()
    commands.decide_on_order(order, UserFactory.create(), approve=False, note="no")
    return reason_of(order)


def approval_expired(desk: Desk) -> str:
    desk.strategy(needs_approval=True)
    order = desk.order()
    with time_machine.travel(NOON + timedelta(seconds=200), tick=True):
        approvals.expire()
    return reason_of(order)


def approval_outdated(desk: Desk) -> str:
    desk.strategy(needs_approval=True)
    order = desk.order()
    desk.hold("-0.05")
    commands.decide_on_order(order, UserFactory.create(), approve=True, note="")
    return reason_of(order)


# --- scenarios: the life of an order --------------------------------------------------------------


def expired_before_sending(desk: Desk) -> str:
    Account.objects.update(reconciled_at=None)
    order = desk.order()
    with time_machine.travel(NOON + timedelta(seconds=400), tick=True):
        tasks.run_lane(desk.account.pk, LANE)
    return reason_of(order)


def venue_rejected(desk: Desk) -> str:
    desk.script.outcomes.append(ExecutionResult(Outcome.REJECTED, detail="no"))
    return reason_of(desk.order())


def not_placed(desk: Desk) -> str:
    desk.script.outcomes.append(swallow)
    order = desk.order()
    for minute in (6, 7, 8):
        with time_machine.travel(NOON + timedelta(minutes=minute), tick=True):
            tasks.check_order(str(order.pk))
    return reason_of(order)


def adopted(desk: Desk, **changes: Any) -> str:
    """What an operator is told who names an order at the venue for one of unknown fate."""
    desk.script.outcomes.append(swallow)
    order = desk.order()
    report = replace(report_of(order, VenueStatus.OPEN), **changes)
    desk.script.answers.append(report if changes else None)
    adoption = commands.adopt(order, "V77", "seen at the venue")
    adoption.refresh_from_db()
    return adoption.code


def no_such_order(desk: Desk) -> str:
    return adopted(desk)


def other_order(desk: Desk) -> str:
    return adopted(desk, broker_order_id="V77", symbol="ETH/USDT")


def refused_at_once(order: Order) -> str:
    with pytest.raises(commands.Conflict) as conflict:
        commands.adopt(order, "V77", "seen at the venue")
    return str(conflict.value.get_codes())


def already_ours(desk: Desk) -> str:
    Order.objects.filter(pk=desk.order().pk).update(broker_order_id="V77")
    desk.script.outcomes.append(swallow)
    return refused_at_once(desk.order())


def fate_known(desk: Desk) -> str:
    return refused_at_once(desk.order())


def canceled_by_operator(desk: Desk) -> str:
    desk.script.outcomes.append(rest)
    order = desk.order(order_type="limit", price="59000")
    commands.cancel(order, "changed my mind")
    return reason_of(order)


def canceled_by_signal(desk: Desk) -> str:
    desk.script.outcomes.append(rest)
    order = desk.order(order_type="limit", price="59000")
    desk.alert("cancel")
    return reason_of(order)


def replaced(desk: Desk) -> str:
    """The stop moves with the second entry: the first stop gives way to another."""
    desk.script.outcomes.extend([fill_whole, rest, fill_whole, rest])
    desk.alert(stop_loss="58000")
    stop = Order.objects.get(role=Order.Role.STOP_LOSS)
    desk.alert(stop_loss="59000")
    tasks.guard(desk.account.pk, LANE)
    return reason_of(stop)


def internal_error(desk: Desk) -> str:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "decide_locked", broken)
        signal = desk.alert()
        for _ in range(2):
            tasks.process_signal(str(signal.pk))
    signal.refresh_from_db()
    return signal.reason


SCENARIOS: dict[R, Callable[[Desk], str]] = {
    R.STALE: stale,
    R.FROM_THE_FUTURE: from_the_future,
    R.LOW_CONFIDENCE: low_confidence,
    R.CONFIDENCE_MISSING: confidence_missing,
    R.POOR_REWARD_RISK: poor_reward_risk,
    R.REWARD_RISK_MISSING: reward_risk_missing,
    R.STRATEGY_DISABLED: strategy_disabled,
    R.THROTTLED: throttled,
    R.NO_ROUTE: no_route,
    R.NO_VENUE_FITS: no_venue_fits,
    R.EXECUTION_NOT_ALLOWED: execution_not_allowed,
    R.NOTHING_TO_CLOSE: nothing_to_close,
    R.NOTHING_TO_CANCEL: nothing_to_cancel,
    R.ALREADY_AT_TARGET: already_at_target,
    R.NOT_FLAT: not_flat,
    R.ACCOUNT_INACTIVE: account_inactive,
    R.LIVE_TRADING_OFF: live_trading_off,
    R.DRIFT: drift,
    R.ACCOUNT_MISCONFIGURED: misconfigured,
    R.CREDENTIALS_REFUSED: credentials_refused,
    R.KEY_MAY_WITHDRAW: key_may_withdraw,
    R.LOGIN_NEEDED: login_needed,
    R.VENUE_UNREACHABLE: unreachable,
    R.RATE_LIMITED: rate_limited,
    R.UNKNOWN_SYMBOL: unknown_symbol,
    R.DELAYED_DATA: delayed_data,
    R.NOT_SUPPORTED: not_supported,
    R.REFERENCE_UNAVAILABLE: reference_unavailable,
    R.EQUITY_UNKNOWN: equity_unknown,
    R.CURRENCY_MISMATCH: currency_mismatch,
    R.SIZE_MISSING: size_missing,
    R.SIZE_TOO_SMALL: size_too_small,
    R.SIZE_TOO_LARGE: size_too_large,
    R.STOP_LOSS_MISSING: stop_loss_missing,
    R.STOP_LOSS_INVALID: stop_loss_invalid,
    R.TAKE_PROFIT_INVALID: take_profit_invalid,
    R.PRICE_MISSING: price_missing,
    R.PRICE_DRIFT: price_drift,
    R.NO_LIMIT_SET: no_limit_set,
    R.MAX_ORDER_VALUE: limited("max_order_value", "599.99"),
    R.MAX_POSITION_VALUE: limited("max_position_value", "599.99"),
    R.MAX_OPEN_ORDERS: after_a_first_order("max_open_orders", "1"),
    R.MAX_CAPITAL_SHARE: limited("max_capital_share", "0.000599"),
    R.RISK_PER_TRADE: risk_per_trade,
    R.DAILY_LOSS: daily_loss,
    R.MAX_ORDER_QUANTITY: limited("max_order_quantity", "0.009"),
    R.PRICE_COLLAR: price_collar,
    R.DUPLICATE_ORDER: duplicate_order,
    R.SELF_MATCH: self_match,
    R.MAX_QUOTE_AGE: old_quote,
    R.MAX_SPREAD: wide_spread,
    R.MAX_PRICE_JUMP: price_jump,
    R.TRADING_HOURS: trading_hours,
    R.MAX_SYMBOL_ORDERS: after_a_first_order("max_symbol_orders", "1"),
    R.MAX_ACCOUNT_EXPOSURE: after_a_first_order("max_account_exposure", "1199"),
    R.MAX_STRATEGY_EXPOSURE: after_a_first_order("max_strategy_exposure", "1199"),
    R.MAX_GROSS_EXPOSURE: after_a_first_order("max_gross_exposure", "1199"),
    R.MAX_NET_EXPOSURE: after_a_first_order("max_net_exposure", "1199"),
    R.MAX_GROUP_EXPOSURE: after_a_first_order("max_group_exposure", "1199", symbols="BTC"),
    R.MAX_LEVERAGE: after_a_first_order("max_leverage", "0.001"),
    R.MAX_MARGIN_SHARE: limited("max_margin_share", "0.000599"),
    R.MAX_DRAWDOWN: max_drawdown,
    R.LOSS_STREAK: loss_streak,
    R.REPEATED_EXECUTION: after_a_first_order("repeated_execution", "1"),
    R.REJECT_STREAK: reject_streak,
    R.MESSAGE_RATE: message_rate,
    R.TRADING_HALTED: trading_halted,
    R.REDUCE_ONLY: reduce_only,
    R.BREAKER_OPEN: breaker_open,
    R.APPROVAL_REJECTED: approval_rejected,
    R.APPROVAL_EXPIRED: approval_expired,
    R.APPROVAL_OUTDATED: approval_outdated,
    R.EXPIRED_BEFORE_SENDING: expired_before_sending,
    R.VENUE_REJECTED: venue_rejected,
    R.NOT_PLACED: not_placed,
    R.NO_SUCH_ORDER: no_such_order,
    R.OTHER_ORDER: other_order,
    R.ALREADY_OURS: already_ours,
    R.FATE_KNOWN: fate_known,
    R.CANCELED_BY_OPERATOR: canceled_by_operator,
    R.CANCELED_BY_SIGNAL: canceled_by_signal,
    R.REPLACED: replaced,
    R.INTERNAL_ERROR: internal_error,
}


@pytest.mark.parametrize("code", SCENARIOS, ids=str)
def test_a_code_is_reached(desk: Desk, code: R) -> None:
    assert SCENARIOS[code](desk) == code.value


def test_every_code_has_its_scenario() -> None:
    assert set(SCENARIOS) == set(R)
