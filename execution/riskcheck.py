"""The self-test of the controls: each limit in force around its own value, and the way from a signal to
a denial on a scratch strategy. Everything it does is rolled back; only its report stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import timezone

from brokers.models import Account
from brokers.types import Environment
from execution import approvals, pipeline
from execution.ids import uuid7
from execution.models import Order, Position, Route, Signal, Strategy
from execution.states import OrderState, SignalState
from risk import audit, breakers, limits, selftest
from risk.models import RiskLimit, RiskReport, TradingState
from risk.selftest import Result
from risk.types import Limit, LimitMode, ReasonCode

SYMBOL = "SELFTEST/USDT"
PRICE = Decimal(100)
ROOM = Decimal(1000)


@dataclass(slots=True)
class Scratch:
    """A strategy on a paper account of its own, allowed to trade 10 pieces at 100."""

    account: Account = field(init=False)
    strategy: Strategy = field(init=False)

    def __post_init__(self) -> None:
        name = f"riskcheck-{uuid7().hex[-12:]}"
        self.account = Account.objects.create(
            name=name,
            broker="paper",
            environment=Environment.DRY_RUN.value,
            options={"prices": {SYMBOL: str(PRICE)}, "spread_bps": "0"},
            reconciled_at=timezone.now(),
        )
        self.strategy = Strategy.objects.create(slug=name)
        Route.objects.create(strategy=self.strategy, account=self.account, quantity=Decimal(1))
        TradingState.objects.all().delete()
        RiskLimit.objects.update(mode=RiskLimit.Mode.OFF)
        for rule in ("max_order_value", "max_position_value"):
            self.limit(rule, ROOM)

    def limit(self, rule: str, value: Decimal, mode: LimitMode = LimitMode.ENFORCE) -> None:
        limits.set_limit(rule, value, account=self.account, mode=mode, reason="riskcheck")

    def hold(self, quantity: Decimal) -> None:
        Position.objects.create(
            account=self.account,
            symbol=SYMBOL,
            quantity=quantity,
            average_price=PRICE,
            updated_at=timezone.now(),
        )

    def switch(self, state: TradingState.State) -> None:
        TradingState.objects.create(
            scope=TradingState.Scope.STRATEGY,
            key=self.strategy.slug,
            state=state,
            changed_at=timezone.now(),
        )

    def outcome(self, action: str = "buy", **alert: Any) -> str:
        """The reason one signal is refused for, empty when it becomes an order."""
        signal = Signal.objects.create(
            id=uuid7(),
            strategy=self.strategy,
            received_at=timezone.now(),
            auth=Strategy.Auth.TOKEN,
            body="{}",
            symbol=SYMBOL,
            action=action,
            alert={"symbol": SYMBOL, "action": action} | alert,
            state=SignalState.RECEIVED,
        )
        pipeline.decide(signal)
        signal.refresh_from_db()
        order = Order.objects.filter(signal=signal).first()
        if order is not None and order.state == OrderState.PENDING:
            return ""
        return (order.reason if order else signal.reason) or signal.state


def _no_limit(scratch: Scratch) -> str:
    RiskLimit.objects.update(mode=RiskLimit.Mode.OFF)
    return scratch.outcome()


def _observed(scratch: Scratch) -> str:
    scratch.limit("max_open_orders", Decimal(0), LimitMode.OBSERVE)
    return scratch.outcome()


def _too_large(scratch: Scratch) -> str:
    scratch.limit("max_position_value", ROOM * 2)
    return scratch.outcome(quantity="10.1")


def _many(scratch: Scratch) -> str:
    for _ in range(10):
        if early := scratch.outcome():
            return f"{early} before the limit"
    return scratch.outcome()


def _stale(scratch: Scratch) -> str:
    sent_at = timezone.now() - timedelta(seconds=scratch.strategy.max_age + 60)
    return scratch.outcome(sent_at=sent_at.isoformat())


def _disabled(scratch: Scratch) -> str:
    scratch.strategy.is_enabled = False
    scratch.strategy.save()
    return scratch.outcome()


def _inactive(scratch: Scratch) -> str:
    Account.objects.filter(pk=scratch.account.pk).update(is_active=False)
    return scratch.outcome()


def _doubtful(scratch: Scratch) -> str:
    scratch.strategy.min_confidence, scratch.strategy.requires_confidence = Decimal("0.6"), True
    scratch.strategy.save()
    return scratch.outcome(confidence="0.59")


def _breaker(scratch: Scratch) -> str:
    breakers.trip(breakers.of_account(scratch.account.pk), "riskcheck")
    return scratch.outcome()


def _halted(scratch: Scratch) -> str:
    scratch.switch(TradingState.State.HALTED)
    return scratch.outcome()


def _reducing(scratch: Scratch) -> str:
    scratch.switch(TradingState.State.REDUCING)
    return scratch.outcome()


def _unapproved(scratch: Scratch) -> str:
    """Nobody says anything: it must wait, and then end."""
    scratch.strategy.needs_approval = True
    scratch.strategy.save()
    if (early := scratch.outcome()) != SignalState.WORKING:
        return early
    orders = Order.objects.filter(account=scratch.account)
    orders.update(approve_by=timezone.now())
    approvals.expire()
    return orders.get().reason


def _leaving(scratch: Scratch) -> str:
    scratch.hold(Decimal(100))
    scratch.limit("daily_loss", Decimal(0))
    scratch.switch(TradingState.State.REDUCING)
    return scratch.outcome("close")


_PATHS: tuple[tuple[str, Callable[[Scratch], str], ReasonCode | None], ...] = (
    ("an entry within its limits", lambda scratch: scratch.outcome(quantity="10"), None),
    ("an observed limit", _observed, None),
    ("an exit past the limits, reduce only", _leaving, None),
    ("no limit set", _no_limit, ReasonCode.NO_LIMIT_SET),
    ("one order too large", _too_large, ReasonCode.MAX_ORDER_VALUE),
    ("one order too many for the position", _many, ReasonCode.MAX_POSITION_VALUE),
    ("an alert too old", _stale, ReasonCode.STALE),
    ("a disabled strategy", _disabled, ReasonCode.STRATEGY_DISABLED),
    ("an account that is switched off", _inactive, ReasonCode.ACCOUNT_INACTIVE),
    ("too little confidence", _doubtful, ReasonCode.LOW_CONFIDENCE),
    ("an open breaker", _breaker, ReasonCode.BREAKER_OPEN),
    ("an order nobody approved", _unapproved, ReasonCode.APPROVAL_EXPIRED),
    ("the kill switch: halted", _halted, ReasonCode.TRADING_HALTED),
    ("the kill switch: reduce only", _reducing, ReasonCode.REDUCE_ONLY),
)  # fmt: skip


def run() -> RiskReport:
    """Test every control, keep the report, and return it."""
    results = [*(_path(*one) for one in _PATHS), *map(selftest.test, _limits())]
    return RiskReport.objects.create(
        at=timezone.now(),
        passed=all(one.passed for one in results),
        actor=audit.current_actor().name,
        results=[
            {
                "control": one.control,
                "scope": one.scope,
                "passed": one.passed,
                "detail": one.detail,
            }
            for one in results
        ],
    )


def _limits() -> list[Limit]:
    rows = RiskLimit.objects.exclude(mode=RiskLimit.Mode.OFF).select_related("policy__account")
    return [
        Limit(row.rule, row.value, LimitMode(row.mode), str(row.policy), row.parameters)
        for row in rows.order_by("rule", "pk")
    ]


def _path(name: str, act: Callable[[Scratch], str], expected: ReasonCode | None) -> Result:
    with transaction.atomic():
        found = act(Scratch())
        transaction.set_rollback(True)
    wanted = "" if expected is None else expected.value
    said = f"denied with {found}" if found else "became an order"
    return Result(name, "scratch strategy", found == wanted, said)
