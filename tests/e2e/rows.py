"""Rows for the admin's pages to show, texts an outsider can set among them hostile."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from axes.models import AccessAttempt, AccessLog
from django.contrib.auth.models import Group
from django.utils import timezone

from brokers.accounts import create_account
from brokers.models import Instrument, SymbolAlias
from execution.models import (
    Adoption,
    Alarm,
    Difference,
    Order,
    Protection,
    QuarantinedBody,
    SpreadWatch,
)
from execution.states import OrderState, SignalState
from risk import audit, breakers, notices, switch
from risk.channels import Channel, Event
from risk.models import (
    ClientAddress,
    IPAllowlist,
    LimitHit,
    Proposal,
    RateLimit,
    RiskReport,
    Safeguards,
    TradingState,
)
from tests.e2e.browser import HOSTILE
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    SignalFactory,
    allow_trading,
)

GROUP, SHARES = "night shift", "shares"
"""A group that is no role; an account that a person logs in at its venue."""


def hostile_order() -> Order:
    """A working order with a history, its texts hostile."""
    signal = SignalFactory.create(
        state=SignalState.WORKING,
        body=HOSTILE,
        symbol="BTC/USDT",
        alert={"symbol": HOSTILE, "action": "buy", "extras": {HOSTILE: HOSTILE}},
        detail=HOSTILE,
    )
    order = OrderFactory.create(
        signal=signal,
        account=AccountFactory.create(name="paper"),
        state=OrderState.OPEN,
        detail=HOSTILE,
        symbol=HOSTILE[:60],
        verdicts=[{"rule": HOSTILE, "passed": True, "mode": "enforce", "numbers": {"a": HOSTILE}}],
        sizing=[{"label": HOSTILE, "formula": HOSTILE, "result": "1"}],
    )
    FillFactory.create(order=order, trade_id=HOSTILE)
    PositionFactory.create(account=order.account, symbol=HOSTILE[:60])
    order.journal.create(
        at=order.created_at, event="create", to_state="open", actor="x", evidence={"a": HOSTILE}
    )
    return order


def a_row_of_everything(order: Order) -> None:
    """Beside ``order`` and its story: one row at least of what each page shows."""
    allow_trading()
    switch.change(TradingState.State.REDUCING, reason="a test")
    breakers.trip(breakers.of_account(order.account_id), "maintenance")
    audit.record("strategy.changed", "a test", before={"a": 1}, after={"a": 2})
    notices.write(Event.TEST, notices.News("a test"), [Channel.objects.create(name="desk")])
    _waiting_and_lost(order)
    _beside(order)
    _settings(order)
    _people()


def foreign_position(order: Order) -> Difference:
    """The venue holds more than the book says."""
    return _difference(order, "position", ours="0.01", theirs="0.03")


def foreign_order(order: Order) -> Difference:
    """Somebody else's order at the venue."""
    return _difference(order, "foreign_order", ours="", theirs="buy 1")


def naked_protection(order: Order) -> Protection:
    """Of a position whose stop the venue refused."""
    return Protection.objects.create(
        account=order.account,
        symbol=order.symbol,
        entry=order,
        stop_price=Decimal(50_000),
        naked_since=timezone.now(),
    )


def locked_out() -> ClientAddress:
    """An address that failed too often at the webhooks."""
    now = timezone.now()
    return ClientAddress.objects.create(
        door="webhook",
        network="192.0.2.7",
        tokens=0,
        is_empty=True,
        failures=30,
        lockouts=1,
        locked_until=now + timedelta(minutes=5),
        updated_at=now,
    )


def failed_log_in() -> AccessAttempt:
    """Failures of one name from one address."""
    return AccessAttempt.objects.create(
        username="olivia", ip_address="192.0.2.7", user_agent="x", failures_since_start=5
    )


def _difference(order: Order, kind: str, *, ours: str, theirs: str) -> Difference:
    now = timezone.now()
    return Difference.objects.create(
        account=order.account,
        symbol=order.symbol,
        kind=kind,
        key=f"{kind} {order.symbol}"[:100],
        ours=ours,
        theirs=theirs,
        detail="a test",
        first_seen_at=now,
        last_seen_at=now,
    )


def _waiting_and_lost(order: Order) -> None:
    assert order.signal is not None
    strategy, now = order.signal.strategy, timezone.now()
    OrderFactory.create(
        signal=SignalFactory.create(strategy=strategy, state=SignalState.WORKING),
        strategy=strategy,
        state=OrderState.AWAITING_APPROVAL,
        approve_by=now + timedelta(hours=1),
        verdicts=[{"rule": "max_spread", "passed": False, "mode": "observe", "detail": "wide"}],
    )
    for state in (OrderState.UNKNOWN, OrderState.NEEDS_OPERATOR):
        lost = OrderFactory.create(state=state, unknown_since=now, account=order.account)
    told = {"symbol": "BTC/USDT", "side": "buy", "quantity": "0.01", "client_order_id": "by hand"}
    Adoption.objects.create(
        order=lost, broker_order_id="V77", state=Adoption.State.FOUND, told=told, reason="seen",
        asked_by="anna", asked_at=now, next_look_at=now, give_up_at=now,
    )  # fmt: skip
    QuarantinedBody.objects.create(
        strategy=strategy, received_at=now, body="{", code="BAD", detail="not JSON"
    )


def _beside(order: Order) -> None:
    now = timezone.now()
    foreign_position(order)
    naked_protection(order)
    Alarm.objects.create(kind=Alarm.Kind.GAP, key="a test", detail="a test", raised_at=now)
    LimitHit.objects.create(
        at=now, kind="denied", rule="max_order_value", scope="all", account=order.account,
        symbol=order.symbol, order_id=order.pk, detail="a test",
    )  # fmt: skip
    Instrument.objects.create(
        account=order.account, symbol="BTC/USDT", venue_symbol="BTCUSDT", base="BTC",
        quote="USDT", quantity_step=Decimal("0.001"), price_tick=Decimal("0.1"), refreshed_at=now,
    )  # fmt: skip
    result = {"control": "kill switch", "scope": "all", "passed": True, "seen": "refused"}
    RiskReport.objects.create(at=now, passed=True, actor="anna", results=[result])


def _settings(order: Order) -> None:
    create_account(
        SHARES, broker="schwab", environment="live", options={"account": "12345678"},
        credentials={"api_key": "app-key", "api_secret": "app-secret"},
    )  # fmt: skip
    SymbolAlias.objects.create(alias="BTCUSD", symbol="BTC/USDT")
    watch = SpreadWatch.objects.create(symbol="BTC/USDT")
    watch.accounts.set([order.account, AccountFactory.create()])
    IPAllowlist.objects.create(name="office").networks.create(cidr="192.0.2.0/24")
    RateLimit.objects.get_or_create(pk=1)
    Safeguards.objects.get_or_create(pk=1)
    now = timezone.now()
    Proposal.objects.create(
        kind="safeguards", subject="safeguards", payload={}, before={"two_person": True},
        after={"two_person": False}, reason="a test", proposed_by="anna", proposed_at=now,
        expires_at=now + timedelta(hours=1),
    )  # fmt: skip


def _people() -> None:
    locked_out()
    failed_log_in()
    AccessLog.objects.create(username="olivia", ip_address="192.0.2.7", user_agent="x")
    Group.objects.get_or_create(name=GROUP)
