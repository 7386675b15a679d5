"""Approval mode: orders that wait for a person, what becomes of them, and that they hold up nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.models import Account
from brokers.types import VenueStatus
from execution import (
    account_tasks,
    approvals,
    bearer,
    commands,
    differences,
    intake,
    manual,
    periodic_tasks,
    restored,
    tasks,
)
from execution.alerts import Action, Alert
from execution.approvals import NotDecided
from execution.halting import Mode, press
from execution.models import Order, Position, Route, Signal, Strategy
from execution.models.strategies import MANUAL
from execution.second_channel import take_out
from execution.states import OrderState, SignalState
from execution.watching import OWN_ALERT
from fks_site import dashboard
from risk import audit, switch
from risk.channels import Channel, Event, Notice, Severity
from risk.limits import set_limit
from risk.models import AuditEvent, Proposal, TradingState
from risk.types import LimitMode, ReasonCode
from tests.brokers.scripted import Script, rest, script_of
from tests.factories import (
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    UserFactory,
    allow_trading,
)
from tests.threads import together

pytestmark = pytest.mark.django_db
S = OrderState
D = Decimal
LANE = "BTC/USDT"
GOAL: dict[str, Any] = {"market_position": "long", "quantity": None}
REDUCING, HALTED = TradingState.State.REDUCING, TradingState.State.HALTED


@pytest.fixture
def route(scripted: Callable[..., Account]) -> Route:
    allow_trading()
    strategy = StrategyFactory.create(slug="trend", needs_approval=True)
    return RouteFactory.create(account=scripted(), strategy=strategy)


@pytest.fixture
def script(route: Route) -> Script:
    return script_of(route.account)


@pytest.fixture
def maria() -> User:
    user: User = UserFactory.create(username="maria", is_superuser=True)
    return user


def send(route: Route, action: str = "buy", auth: str = "token", **alert: Any) -> Signal:
    """A signal of the route's strategy, decided by a worker."""
    fields = {"symbol": LANE, "action": action} | alert
    if action != "close":
        fields = {"quantity": "0.01"} | fields
    fields = {name: value for name, value in fields.items() if value is not None}
    symbol = fields["symbol"]
    signal = SignalFactory.create(
        strategy=route.strategy, action=action, symbol=symbol, alert=fields, auth=auth
    )
    tasks.process_signal(str(signal.pk))
    signal.refresh_from_db()
    return signal


def waiting(route: Route, action: str = "buy", **alert: Any) -> Order:
    """The order of a signal, as it waits for approval."""
    order = Order.objects.get(signal=send(route, action, **alert))
    assert (order.state, order.reason) == (S.AWAITING_APPROVAL, "")
    return order


def approve(order: Order, user: User) -> Order:
    """``user`` approves, and a worker does its part."""
    with audit.acting(audit.Actor(user.username)):
        commands.decide_on_order(order, user, approve=True, note="looks right")
    order.refresh_from_db()
    return order


def ended(order: Order) -> tuple[str, str]:
    order.refresh_from_db()
    return order.state, order.reason


# --- waiting --------------------------------------------------------------------------------------


def test_an_order_waits_with_its_reservation_and_in_no_lane(route: Route, script: Script) -> None:
    signal = send(route)
    order = Order.objects.get(signal=signal)
    assert (order.state, order.quantity, order.reserved_value) == (
        S.AWAITING_APPROVAL,
        D("0.01"),
        600,
    )
    assert order.approve_by == order.created_at + timedelta(seconds=120)
    assert order.journal.get().to_state == S.AWAITING_APPROVAL
    assert signal.state == SignalState.WORKING
    assert script.sent == []
    tasks.run_lane(route.account.pk, LANE)
    assert script.sent == []


def test_it_is_told_as_an_alarm_at_once(route: Route) -> None:
    channel = Channel.objects.create(name="desk", least_severity=Severity.ALARM)
    order = waiting(route)
    notice = Notice.objects.get()
    assert (notice.channel, notice.event) == (channel, Event.APPROVAL_WANTED)
    assert notice.due_at == notice.at
    assert notice.title == f"Awaiting approval: buy 0.01 BTC/USDT on {route.account.name}"
    assert order.approve_by is not None
    assert "trend asks for it, worth 600 USDT: " in notice.text
    assert f"approve or reject it by {order.approve_by:%H:%M:%S} UTC" in notice.text


def test_an_entry_waits_no_longer_than_its_alert_is_good_for(route: Route) -> None:
    Strategy.objects.update(approval_seconds=900)
    route.strategy.refresh_from_db()
    order = waiting(route)
    assert order.approve_by == order.expires_at


def test_exits_go_out_at_once_unless_they_have_to_wait_too(route: Route, script: Script) -> None:
    PositionFactory.create(account=route.account, quantity="0.01")
    assert Order.objects.get(signal=send(route, "close")).state == S.FILLED
    Strategy.objects.update(exits_need_approval=True)
    route.strategy.refresh_from_db()
    PositionFactory.create(account=route.account, symbol="ETH/USDT", quantity="0.01")
    order = waiting(route, "close", symbol="ETH/USDT")
    assert (order.role, order.expires_at) == ("exit", None)
    assert order.approve_by == order.created_at + timedelta(seconds=120)
    assert len(script.sent) == 1


def test_targets_that_fks_watches_never_wait(route: Route) -> None:
    Strategy.objects.update(exits_need_approval=True)
    route.strategy.refresh_from_db()
    PositionFactory.create(account=route.account, quantity="0.01")
    signal = send(route, "close", auth=OWN_ALERT)
    assert Order.objects.get(signal=signal).state == S.FILLED


def test_the_alerts_behind_it_are_decided_and_sent(route: Route, script: Script) -> None:
    """The queue of alerts and the lane go on: here a close of what another alert had opened."""
    PositionFactory.create(account=route.account, quantity="0.03")
    first, second = waiting(route), waiting(route)
    exit_ = Order.objects.get(signal=send(route, "sell", quantity="0.02"))
    assert exit_.state == S.FILLED
    assert [request.side for request in script.sent] == ["sell"]
    assert ended(first) == ended(second) == (S.AWAITING_APPROVAL, "")


def test_what_waits_counts_against_every_limit(route: Route) -> None:
    set_limit("max_position_value", D(1200), reason="test")
    waiting(route)
    waiting(route)
    third = Order.objects.get(signal=send(route))
    assert (third.state, third.reason) == (S.DENIED, ReasonCode.MAX_POSITION_VALUE)


def test_what_waits_is_counted_as_margin_whatever_the_venue_said_since(route: Route) -> None:
    set_limit("max_margin_share", D("0.5"), reason="test")
    order = waiting(route)
    later = order.created_at + timedelta(seconds=1)
    Account.objects.update(balances={"USDT": {"total": "1500", "free": "1500"}}, balances_at=later)
    with time_machine.travel(later + timedelta(seconds=1), tick=True):
        second = Order.objects.get(signal=send(route))
    assert (second.state, second.reason) == (S.DENIED, ReasonCode.MAX_MARGIN_SHARE)


def test_who_waits_for_an_answer_is_told_that_it_is_working(route: Route) -> None:
    from execution.waiting import outcome_of

    outcome = outcome_of(send(route).pk)
    assert outcome is not None
    assert (outcome["status"], outcome["orders"][0]["status"]) == ("working", "awaiting_approval")


def test_the_dry_run_says_that_it_would_wait(route: Route) -> None:
    from execution.admin import lab
    from execution.dry_run import decision_on

    alert = Alert(symbol=LANE, action=Action.BUY, quantity=D("0.01"))
    told = decision_on(route.strategy, alert)
    assert (told["orders"][0]["would_be_sent"], told["orders"][0]["needs_approval"]) == (True, True)
    assert (
        lab._headline(told) == "1 of 1 orders would be sent, 1 of them once a person has approved"
    )
    assert not Order.objects.exists()


# --- approved -------------------------------------------------------------------------------------


def test_an_approved_order_is_judged_anew_and_sent(
    route: Route, script: Script, maria: User, eager: None
) -> None:
    order = waiting(route)
    script.price = D(60060)
    approve(order, maria)
    assert (order.state, order.filled_quantity) == (S.FILLED, D("0.01"))
    assert (order.reference_price, order.reserved_value) == (60060, D("600.6"))
    assert [row.event for row in order.journal.order_by("id")] == [
        "create",
        "approve",
        "release",
        "claim",
        "fill",
    ]
    approved = order.journal.get(event="approve")
    assert (approved.actor, approved.detail) == ("maria", "approved by maria: looks right")
    assert {"approved_price", "max_order_value"} <= {one["rule"] for one in order.verdicts}
    assert Signal.objects.get().state == SignalState.EXECUTED


def test_the_audit_trail_has_who_and_why(route: Route, maria: User) -> None:
    order = waiting(route)
    approve(order, maria)
    row = AuditEvent.objects.get(kind="order.approved")
    assert (row.actor, row.reason, row.subject) == ("maria", "looks right", f"order {order.pk}")
    assert row.before == {"state": "awaiting_approval"}
    assert row.after == {"state": "approved", "order": str(order)}
    assert row.correlation_id == str(order.signal_id)


def test_an_order_does_not_count_against_itself(route: Route, maria: User, eager: None) -> None:
    """It fills every limit to the brim: what it reserved is its own."""
    set_limit("max_position_value", D(600), reason="test")
    for rule in ("max_open_orders", "max_symbol_orders", "repeated_execution"):
        set_limit(rule, D(1), reason="test")
    set_limit("duplicate_order", D(60), reason="test")
    for rule in ("max_account_exposure", "max_strategy_exposure", "max_gross_exposure"):
        set_limit(rule, D(600), reason="test")
    set_limit("max_margin_share", D("0.0006"), reason="test")
    order = waiting(route)
    approve(order, maria)
    assert ended(order) == (S.FILLED, "")


def test_what_is_sent_is_never_more_than_was_approved(
    route: Route, script: Script, maria: User, eager: None
) -> None:
    Route.objects.update(sizing=Route.Sizing.FIXED_PERCENT, percent="0.01")
    order = waiting(route, quantity=None)
    assert order.quantity == D("0.16666")
    script.price = D(59500)
    approve(order, maria)
    assert (order.state, order.filled_quantity) == (S.FILLED, D("0.16666"))
    assert order.sizing[-1]["label"] == "capped at what was approved"


def test_what_is_sent_is_less_where_that_has_become_the_size(
    route: Route, script: Script, maria: User, eager: None
) -> None:
    Route.objects.update(sizing=Route.Sizing.FIXED_PERCENT, percent="0.01")
    order = waiting(route, quantity=None)
    script.price = D(60500)
    approve(order, maria)
    assert (order.state, order.filled_quantity) == (S.FILLED, D("0.16528"))


def test_the_collar_follows_the_market_of_the_moment_it_is_sent(
    route: Route, script: Script, maria: User, eager: None
) -> None:
    set_limit("price_collar", D("0.05"), reason="test")
    order = waiting(route)
    assert order.price == D(63000)
    script.price = D(60100)
    approve(order, maria)
    assert (order.type, order.price) == ("limit", D(63105))


def halted(route: Route, _script: Script) -> None:
    switch.change(HALTED, reason="stop")


def reducing(route: Route, _script: Script) -> None:
    strategy = TradingState.Scope.STRATEGY
    switch.change(REDUCING, scope=strategy, key=route.strategy.slug, reason="careful")


def lower_limit(_route: Route, _script: Script) -> None:
    set_limit("max_order_value", D(599), reason="less")


def no_limit(_route: Route, _script: Script) -> None:
    set_limit("max_order_value", D(1), mode=LimitMode.OFF, reason="none")


def drifted(_route: Route, script: Script) -> None:
    script.price = D("60600.01")


def own_drift(route: Route, script: Script) -> None:
    Strategy.objects.update(max_drift="0.001")
    script.price = D("60060.01")


def disabled(_route: Route, _script: Script) -> None:
    Strategy.objects.update(is_enabled=False)


def no_route(_route: Route, _script: Script) -> None:
    Route.objects.update(is_enabled=False)


def inactive(_route: Route, _script: Script) -> None:
    Account.objects.update(is_active=False)


def unreachable(_route: Route, script: Script) -> None:
    script.quote_failure = QueryFailedError("no answer")


def turned_over(route: Route, _script: Script) -> None:
    PositionFactory.create(account=route.account, quantity="-0.05")


def in_doubt(route: Route, _script: Script) -> None:
    kind = differences.Kind.POSITION
    differences.note(route.account, [differences.Seen(kind, LANE, LANE, "1", "2", "off")])


def confidence_asked(_route: Route, _script: Script) -> None:
    Strategy.objects.update(min_confidence="0.6", requires_confidence=True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (halted, ReasonCode.TRADING_HALTED),
        (reducing, ReasonCode.REDUCE_ONLY),
        (lower_limit, ReasonCode.MAX_ORDER_VALUE),
        (no_limit, ReasonCode.NO_LIMIT_SET),
        (drifted, ReasonCode.PRICE_DRIFT),
        (own_drift, ReasonCode.PRICE_DRIFT),
        (disabled, ReasonCode.STRATEGY_DISABLED),
        (no_route, ReasonCode.NO_ROUTE),
        (inactive, ReasonCode.ACCOUNT_INACTIVE),
        (unreachable, ReasonCode.VENUE_UNREACHABLE),
        (turned_over, ReasonCode.APPROVAL_OUTDATED),
        (in_doubt, ReasonCode.DRIFT),
        (confidence_asked, ReasonCode.CONFIDENCE_MISSING),
    ],
)
def test_what_changed_meanwhile_denies_it(
    route: Route,
    script: Script,
    maria: User,
    eager: None,
    change: Callable[[Route, Script], None],
    code: ReasonCode,
) -> None:
    order = waiting(route, price="60000")
    change(route, script)
    approve(order, maria)
    assert ended(order) == (S.DENIED, code)
    assert order.detail
    assert script.sent == []
    signal = Signal.objects.get(pk=order.signal_id)
    assert (signal.state, signal.reason) == (SignalState.DENIED, code)


def test_a_market_that_moved_within_the_bound_is_no_reason(
    route: Route, script: Script, maria: User, eager: None
) -> None:
    order = waiting(route)
    script.price = D(60600)
    approve(order, maria)
    assert ended(order) == (S.FILLED, "")


def test_an_alert_that_got_stale_meanwhile_expires(
    route: Route, script: Script, maria: User, eager: None
) -> None:
    order = waiting(route)
    Strategy.objects.update(max_age=30)
    with time_machine.travel(timezone.now() + timedelta(seconds=60), tick=True):
        approve(order, maria)
    assert ended(order) == (S.EXPIRED, ReasonCode.STALE)
    assert script.sent == []


def test_an_exit_is_sent_however_long_the_person_took(
    route: Route, script: Script, maria: User, eager: None
) -> None:
    Strategy.objects.update(exits_need_approval=True, approval_seconds=3600)
    route.strategy.refresh_from_db()
    PositionFactory.create(account=route.account, quantity="0.01")
    order = waiting(route, "sell")
    assert order.role == "exit"
    script.price = D(50000)
    with time_machine.travel(timezone.now() + timedelta(seconds=3000), tick=True):
        approve(order, maria)
    assert ended(order) == (S.FILLED, "")


def test_a_defect_denies_it_visibly(
    route: Route, maria: User, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = waiting(route)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("execution.judging.fill_in", broken)
    approve(order, maria)
    assert ended(order) == (S.DENIED, ReasonCode.INTERNAL_ERROR)


def test_a_lost_message_is_found_by_the_sweep(route: Route, maria: User, script: Script) -> None:
    order = waiting(route)
    with audit.acting(audit.Actor("maria")):
        approvals.approve(order, maria, "")
    assert ended(order) == (S.APPROVED, "")
    assert approvals.approved() == [order.pk]
    tasks.release_order(str(order.pk))
    assert ended(order) == (S.FILLED, "")
    tasks.release_order(str(order.pk))
    assert len(script.sent) == 1


def test_the_sweep_releases_what_is_approved(
    route: Route, maria: User, script: Script, eager: None
) -> None:
    order = waiting(route)
    approvals.approve(order, maria, "")
    periodic_tasks.sweep()
    assert ended(order) == (S.FILLED, "")
    assert len(script.sent) == 1


# --- ended without being sent ---------------------------------------------------------------------


def test_a_rejected_order_ends_with_the_persons_reason(
    route: Route, script: Script, maria: User
) -> None:
    order = waiting(route)
    with audit.acting(audit.Actor("maria")):
        commands.decide_on_order(order, maria, approve=False, note="not before the news")
    assert ended(order) == (S.DENIED, ReasonCode.APPROVAL_REJECTED)
    assert order.detail == "rejected by maria: not before the news"
    row = AuditEvent.objects.get(kind="order.rejected")
    assert (row.actor, row.reason) == ("maria", "not before the news")
    signal = Signal.objects.get()
    assert (signal.state, signal.reason) == (SignalState.DENIED, ReasonCode.APPROVAL_REJECTED)
    assert script.sent == []


def test_nobodys_word_in_time_ends_it(route: Route, script: Script, eager: None) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        order = waiting(route)
        clock.shift(119)
        periodic_tasks.sweep()
        assert ended(order) == (S.AWAITING_APPROVAL, "")
        clock.shift(2)
        periodic_tasks.sweep()
    assert ended(order) == (S.EXPIRED, ReasonCode.APPROVAL_EXPIRED)
    assert order.detail == "nobody approved it in time"
    signal = Signal.objects.get()
    assert (signal.state, signal.reason) == (SignalState.EXPIRED, ReasonCode.APPROVAL_EXPIRED)
    row = AuditEvent.objects.get(kind="order.approval_expired")
    assert (row.actor, row.after["state"]) == ("system", "expired")
    assert script.sent == []


def test_after_its_time_nobody_can_approve_it_any_more(route: Route, maria: User) -> None:
    order = waiting(route)
    with (
        time_machine.travel(timezone.now() + timedelta(seconds=121), tick=True),
        pytest.raises(NotDecided, match="nobody approved it in time") as caught,
    ):
        approvals.approve(order, maria, "")
    assert caught.value.code == "APPROVAL_EXPIRED"
    assert ended(order) == (S.AWAITING_APPROVAL, "")


@pytest.mark.parametrize("approved", [False, True])
def test_the_kill_switch_cancels_what_waits(
    route: Route, maria: User, script: Script, eager: None, approved: bool
) -> None:
    order = waiting(route)
    if approved:
        approvals.approve(order, maria, "")
    press(Mode.CANCEL_ALL, scope=TradingState.Scope.GLOBAL, key="", reason="stop")
    account_tasks.wind_down(route.account.pk)
    assert ended(order) == (S.CANCELED, ReasonCode.CANCELED_BY_OPERATOR)
    assert script.sent == []


def test_an_operator_cancels_what_waits(route: Route, nudges: list[Any]) -> None:
    order = waiting(route)
    commands.cancel(order, "changed my mind")
    assert ended(order) == (S.CANCELED, ReasonCode.CANCELED_BY_OPERATOR)
    assert Signal.objects.get().state == SignalState.IGNORED


def test_an_alert_that_closes_everything_cancels_entries_that_wait(
    route: Route, eager: None
) -> None:
    PositionFactory.create(account=route.account, quantity="0.03")
    order = waiting(route)
    closing = send(route, "close")
    assert ended(order) == (S.CANCELED, ReasonCode.CANCELED_BY_SIGNAL)
    tasks.process_signal(str(closing.pk))
    assert Position.objects.get().quantity == 0


EXITS: list[tuple[str, dict[str, Any]]] = [
    ("close", {}),
    ("sell", {"reduce_only": True}),
    ("sell", {"reduce_only": True, "quantity": None}),
    ("sell", {"quantity": "50", "quantity_type": "percent_of_position"}),
]


@pytest.mark.parametrize("exits_wait", [False, True])
@pytest.mark.parametrize(("action", "alert"), EXITS)
def test_nobody_can_agree_to_an_entry_whose_exit_has_come(
    route: Route, eager: None, action: str, alert: dict[str, Any], exits_wait: bool
) -> None:
    Strategy.objects.update(exits_need_approval=exits_wait)
    route.strategy.refresh_from_db()
    entry = waiting(route)
    leaving = send(route, action, **alert)
    assert (leaving.state, leaving.reason) == (SignalState.IGNORED, "NOTHING_TO_CLOSE")
    assert ended(entry) == (S.CANCELED, "CANCELED_BY_SIGNAL")
    assert entry.detail == f"cancel asked for by alert {leaving.pk}"


def test_an_exit_leaves_alone_what_waits_on_its_own_side_or_for_another_strategy(
    route: Route, eager: None
) -> None:
    entry = waiting(route)
    other = StrategyFactory.create(slug="other")
    send(RouteFactory.create(account=route.account, strategy=other), "sell", reduce_only=True)
    send(route, "buy", reduce_only=True)
    assert ended(entry) == (S.AWAITING_APPROVAL, "")


def test_an_alert_that_cancels_cancels_what_waits(route: Route, eager: None) -> None:
    order = waiting(route)
    send(route, "cancel")
    assert ended(order) == (S.CANCELED, ReasonCode.CANCELED_BY_SIGNAL)


def test_a_restored_order_is_looked_for_and_never_sent(route: Route, script: Script) -> None:
    order = waiting(route)
    restored.hold_everything("2026-01-01")
    order.refresh_from_db()
    assert (order.state, order.reason) == (S.UNKNOWN, ReasonCode.VENUE_UNREACHABLE)
    switch.change(TradingState.State.ACTIVE, reason="compared")
    for minute in (1, 2, 3):
        with time_machine.travel(timezone.now() + timedelta(minutes=minute), tick=True):
            tasks.check_order(str(order.pk))
    assert ended(order)[0] == S.NOT_PLACED
    assert script.sent == []


# --- one person decides ---------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_of_two_who_press_at_once_one_decides(route: Route, maria: User) -> None:
    otto = UserFactory.create(username="otto", is_superuser=True)
    outcomes = set()
    for _ in range(20):
        order = waiting(route)

        def press_(user: User, approves: bool, pk: Any = order.pk) -> str:
            row = Order.objects.get(pk=pk)
            act = approvals.approve if approves else approvals.reject
            try:
                with audit.acting(audit.Actor(user.username)):
                    act(row, user, "")
            except NotDecided as error:
                return error.code
            return "decided"

        answers = together(lambda: press_(maria, True), lambda: press_(otto, False))
        assert sorted(answers) == ["NOT_WAITING", "decided"]
        order.refresh_from_db()
        winner = "maria" if answers[0] == "decided" else "otto"
        assert order.state == (S.APPROVED if winner == "maria" else S.DENIED)
        deciding = AuditEvent.objects.get(subject=f"order {order.pk}")
        assert (deciding.actor, order.journal.count()) == (winner, 2)
        outcomes.add(winner)
        commands.cancel(order, "clean up") if order.state == S.APPROVED else None
    assert outcomes


@pytest.mark.django_db(transaction=True)
def test_an_approval_and_the_expiry_exclude_each_other(route: Route, maria: User) -> None:
    for _ in range(10):
        order = waiting(route)
        soon = timezone.now() + timedelta(milliseconds=30)
        Order.objects.filter(pk=order.pk).update(approve_by=soon)

        def press_(pk: Any = order.pk) -> str:
            try:
                approvals.approve(Order.objects.get(pk=pk), maria, "")
            except NotDecided as error:
                return error.code
            return "decided"

        def expire_(until: datetime = soon + timedelta(milliseconds=20)) -> str:
            found: list[Order] = []
            while timezone.now() < until:
                found += approvals.expire()
            found += approvals.expire()
            return str(len(found))

        pressed, expired = together(press_, expire_)
        order.refresh_from_db()
        expected = S.APPROVED if pressed == "decided" else S.EXPIRED
        assert order.state == expected
        assert expired == ("0" if pressed == "decided" else "1")
        commands.cancel(order, "clean up") if order.state == S.APPROVED else None


@pytest.mark.django_db(transaction=True)
def test_two_workers_release_it_once(route: Route, maria: User, script: Script) -> None:
    order = waiting(route)
    approvals.approve(order, maria, "")
    together(*[lambda: tasks.release_order(str(order.pk))] * 4)
    assert ended(order) == (S.FILLED, "")
    assert len(script.sent) == 1
    assert order.journal.filter(event="release").count() == 1


@pytest.mark.parametrize(
    "rule", ["max_position_value", "max_account_exposure", "max_strategy_exposure"]
)
def test_who_is_approved_first_goes_first_when_a_limit_was_lowered(
    route: Route, maria: User, eager: None, rule: str
) -> None:
    """Six wait and room for three is left: what only waits is in nobody's way."""
    orders = [waiting(route) for _ in range(6)]
    set_limit(rule, D(1800), reason="less")
    for order in orders:
        approve(order, maria)
    denied = (S.DENIED, ReasonCode(rule.upper()))
    assert [ended(order) for order in orders] == [(S.FILLED, "")] * 3 + [denied] * 3


def test_a_new_alert_does_not_take_the_room_of_what_waits(
    route: Route, maria: User, eager: None
) -> None:
    set_limit("max_position_value", D(1200), reason="test")
    first, second = waiting(route), waiting(route)
    late = Order.objects.get(signal=send(route))
    assert (late.state, late.reason) == (S.DENIED, ReasonCode.MAX_POSITION_VALUE)
    for order in (second, first):
        approve(order, maria)
        assert ended(order) == (S.FILLED, "")


@pytest.mark.django_db(transaction=True)
def test_orders_approved_at_once_stay_within_a_limit_that_was_lowered_meanwhile(
    route: Route, maria: User, script: Script
) -> None:
    """Six wait, room for three is left, and all six are let go by six workers at one moment."""
    orders = [waiting(route) for _ in range(6)]
    set_limit("max_position_value", D(1800), reason="less")
    for order in orders:
        approvals.approve(order, maria, "")
    together(*[lambda pk=order.pk: tasks.release_order(str(pk)) for order in orders])
    for order in orders:
        tasks.run_lane(order.account_id, LANE)
        tasks.release_order(str(order.pk))
    ends = sorted(ended(order) for order in orders)
    assert ends == [(S.DENIED, ReasonCode.MAX_POSITION_VALUE)] * 3 + [(S.FILLED, "")] * 3
    assert Position.objects.get().quantity == D("0.03")


def test_nobody_decides_on_the_order_they_placed(
    route: Route, maria: User, nudged: list[str]
) -> None:
    manual_strategy, _ = Strategy.objects.get_or_create(slug=MANUAL)
    Strategy.objects.filter(pk=manual_strategy.pk).update(needs_approval=True)
    alert = Alert(symbol=LANE, action=Action.BUY, quantity=D("0.01"), account=route.account.name)
    with audit.acting(audit.Actor("maria")):
        manual.submit(alert, reason="a hunch")
    tasks.process_signal(nudged[0])
    order = Order.objects.get()
    assert order.state == S.AWAITING_APPROVAL
    for act in (approvals.approve, approvals.reject):
        with pytest.raises(NotDecided) as caught:
            act(order, maria, "")
        assert caught.value.code == "OWN_ORDER"
    otto = UserFactory.create(username="otto")
    approvals.approve(order, otto, "")
    assert order.state == S.APPROVED


def test_nobody_decides_on_what_they_posted_with_a_token(
    route: Route, maria: User, client: Client, new_process: None
) -> None:
    Strategy.objects.filter(pk=route.strategy.pk).update(auth=Strategy.Auth.JWT)
    route.strategy.senders.add(maria)
    body = {"symbol": LANE, "action": "buy", "quantity": "0.01", "posted_by": "1"}
    answer = client.post(
        f"/webhook/{route.strategy.slug}",
        body,
        content_type="application/json",
        headers={"Authorization": f"Bearer {bearer.token_for(maria)}"},
    )
    signal = Signal.objects.get(pk=answer.json()["signal_id"])
    assert signal.alert["posted_by"] == str(maria.pk)
    tasks.process_signal(str(signal.pk))
    order = Order.objects.get()
    assert order.state == S.AWAITING_APPROVAL
    for act in (approvals.approve, approvals.reject):
        with pytest.raises(NotDecided) as caught:
            act(order, maria, "")
        assert caught.value.code == "OWN_ORDER"
    approvals.approve(order, UserFactory.create(username="otto"), "")
    assert order.state == S.APPROVED


@pytest.mark.parametrize(
    ("auth", "is_own"),
    [(Strategy.Auth.JWT, True), (Strategy.Auth.TOKEN, False)],
    ids=["posted by a person", "sent by a machine"],
)
def test_what_a_person_posted_is_the_order_of_who_let_it_in(
    auth: Strategy.Auth, is_own: bool, route: Route, maria: User, nudged: list[str]
) -> None:
    """The quarantine does not keep whose token it came with."""
    Strategy.objects.filter(pk=route.strategy.pk).update(auth=auth)
    body = f'{{"symbol": "{LANE}", "action": "buy", "quantity": "0.01"}}'
    row = intake.quarantine(route.strategy.pk, body, None, "INVALID", "mended since")
    row.strategy.refresh_from_db()
    otto = UserFactory.create(username="otto", is_superuser=True)
    for user in (maria, otto):  # the second finds what the first let in
        with audit.acting(audit.Actor(user.get_username())):
            accepted = take_out(row, reason="it was meant so")
    tasks.process_signal(str(accepted.signal_id))
    order = Order.objects.get()
    if is_own:
        with pytest.raises(NotDecided) as caught:
            approvals.approve(order, maria, "")
        assert caught.value.code == "OWN_ORDER"
    approvals.approve(order, otto if is_own else maria, "")
    assert order.state == S.APPROVED


# --- positions that turn over, targets, stops -----------------------------------------------------


def test_a_reversal_closes_at_once_and_its_other_side_waits(
    route: Route, maria: User, script: Script, eager: None
) -> None:
    script.capabilities = replace(script.capabilities, short_selling=True)
    PositionFactory.create(account=route.account, quantity="0.02")
    signal = send(route, "sell", quantity="0.05")
    tasks.process_signal(str(signal.pk))
    closed, opened = Order.objects.filter(signal=signal).order_by("id")
    assert (closed.state, closed.filled_quantity) == (S.FILLED, D("0.02"))
    assert (opened.state, opened.quantity) == (S.AWAITING_APPROVAL, D("0.03"))
    signal.refresh_from_db()
    assert signal.state == SignalState.WORKING
    approve(opened, maria)
    assert (opened.state, opened.filled_quantity) == (S.FILLED, D("0.03"))
    assert Position.objects.get().quantity == D("-0.03")


def test_a_reversal_whose_exit_waits_too_holds_up_nothing(
    route: Route, maria: User, script: Script, eager: None
) -> None:
    script.capabilities = replace(script.capabilities, short_selling=True)
    Strategy.objects.update(exits_need_approval=True)
    route.strategy.refresh_from_db()
    PositionFactory.create(account=route.account, quantity="0.02")
    turning = send(route, "sell", quantity="0.05")
    first = Order.objects.get(signal=turning)
    assert (first.state, first.reverses, turning.state) == (
        S.AWAITING_APPROVAL,
        True,
        SignalState.WORKING,
    )
    behind = waiting(route, "buy")
    approve(first, maria)
    assert first.state == S.FILLED
    tasks.process_signal(str(turning.pk))
    second = Order.objects.get(signal=turning, role="entry")
    assert (second.state, second.quantity) == (S.AWAITING_APPROVAL, D("0.03"))
    approve(second, maria)
    assert Position.objects.get().quantity == D("-0.03")
    turning.refresh_from_db()
    assert turning.state == SignalState.EXECUTED
    approve(behind, maria)
    assert ended(behind) == (S.DENIED, ReasonCode.APPROVAL_OUTDATED)


def test_two_targets_approved_one_after_the_other_do_not_add_up(
    route: Route, maria: User, eager: None
) -> None:
    first = waiting(route, market_position_size="0.01", **GOAL)
    second = waiting(route, market_position_size="0.02", **GOAL)
    assert (first.quantity, second.quantity) == (D("0.01"), D("0.02"))
    approve(first, maria)
    approve(second, maria)
    assert second.filled_quantity == D("0.01")
    assert Position.objects.get().quantity == D("0.02")


@pytest.fixture
def agreed(route: Route, maria: User, script: Script, eager: None) -> Order:
    """A limit order toward 0.02 that a person has agreed to, and that rests."""
    script.outcomes.append(rest)
    order = waiting(route, **GOAL, market_position_size="0.02", order_type="limit", price="59000")
    return approve(order, maria)


def test_a_target_takes_the_place_of_what_somebody_agreed_to_once_it_is_approved_itself(
    route: Route, maria: User, agreed: Order
) -> None:
    larger = waiting(route, **GOAL, market_position_size="0.03")
    assert ended(agreed) == (S.OPEN, "")
    assert agreed.cancel_reason == ""
    approve(larger, maria)
    periodic_tasks.sweep()
    assert ended(agreed) == (S.CANCELED, ReasonCode.CANCELED_BY_SIGNAL)
    assert ended(larger) == (S.FILLED, "")
    assert Position.objects.get().quantity == D("0.03")


def test_a_target_nobody_agrees_to_changes_nothing(
    route: Route, maria: User, agreed: Order
) -> None:
    larger = waiting(route, **GOAL, market_position_size="0.03")
    with audit.acting(audit.Actor("maria")):
        commands.decide_on_order(larger, maria, approve=False, note="no")
    periodic_tasks.sweep()
    assert ended(agreed) == (S.OPEN, "")


def test_a_sale_to_a_smaller_target_takes_back_the_purchase_at_once(
    route: Route, agreed: Order
) -> None:
    """Exits go out at once: what rests would buy more than the sender holds."""
    signal = send(route, "sell", **GOAL, market_position_size="0.01")
    assert ended(agreed) == (S.CANCELED, ReasonCode.CANCELED_BY_SIGNAL)
    tasks.process_signal(str(signal.pk))
    order = Order.objects.get(signal=signal)
    assert (order.state, order.side, order.quantity) == (S.AWAITING_APPROVAL, "buy", D("0.01"))


def test_a_target_waits_for_what_is_under_way(
    route: Route, maria: User, script: Script, eager: None
) -> None:
    """What is approved while its size depends on an order just being sent stays approved."""
    order = waiting(route, market_position="long", market_position_size="0.02", quantity=None)
    other = OrderFactory.create(account=route.account, state=S.UNKNOWN, strategy=route.strategy)
    approve(order, maria)
    assert ended(order) == (S.APPROVED, "")
    assert order.detail == "approved by maria: looks right"
    Order.objects.filter(pk=other.pk).update(state=S.CANCELED)
    periodic_tasks.sweep()
    assert ended(order) == (S.FILLED, "")


def test_a_close_clears_its_way_only_once_it_is_approved(
    route: Route, maria: User, script: Script, eager: None
) -> None:
    """Its resting entries stay at the venue until a person agreed that everything goes."""
    Strategy.objects.update(exits_need_approval=True)
    route.strategy.refresh_from_db()
    PositionFactory.create(account=route.account, quantity="0.02")
    Strategy.objects.update(needs_approval=False)
    route.strategy.refresh_from_db()
    script.outcomes.append(rest)
    resting = Order.objects.get(signal=send(route, order_type="limit", price="59000"))
    assert resting.state == S.OPEN
    Strategy.objects.update(needs_approval=True)
    route.strategy.refresh_from_db()
    close = waiting(route, "close")
    assert ended(resting) == (S.OPEN, "")
    approve(close, maria)
    periodic_tasks.sweep()
    assert ended(resting) == (S.CANCELED, ReasonCode.CANCELED_BY_SIGNAL)
    assert ended(close) == (S.FILLED, "")
    assert script.reports[resting.identity].status is VenueStatus.CANCELED


# --- the API --------------------------------------------------------------------------------------


def client_of(*rights: str) -> Client:
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client = Client()
    client.force_login(user)
    return client


def post(client: Client, order: Order, verb: str, body: dict[str, str]) -> Any:
    address = f"/api/v1/orders/{order.pk}/{verb}"
    return client.post(address, body, content_type="application/json")


def test_the_api_approves_and_rejects(route: Route, nudges: list[Any]) -> None:
    client = client_of("view_order", "approve_order")
    first, second = waiting(route), waiting(route)
    answer = post(client, first, "approve", {})
    assert (answer.status_code, answer.json()["state"]) == (202, "approved")
    answer = post(client, second, "reject", {"reason": "no"})
    assert (answer.status_code, answer.json()["state"]) == (202, "denied")
    assert answer.json()["reason"] == "APPROVAL_REJECTED"
    again = post(client, second, "approve", {})
    assert (again.status_code, again.json()["code"]) == (409, "NOT_WAITING")
    assert answer.json()["approve_by"]


def test_the_api_asks_for_the_right_and_for_a_reason_to_reject(route: Route) -> None:
    order = waiting(route)
    assert post(client_of("view_order", "change_order"), order, "approve", {}).status_code == 403
    client = client_of("view_order", "approve_order")
    assert post(client, order, "reject", {}).status_code == 400
    assert ended(order) == (S.AWAITING_APPROVAL, "")


# --- the page -------------------------------------------------------------------------------------


def test_the_page_says_what_waits_why_and_how_long(route: Route) -> None:
    Strategy.objects.update(min_confidence=None)
    set_limit("max_spread", D("0.01"), mode=LimitMode.OBSERVE, reason="test")
    with time_machine.travel(timezone.now(), tick=False) as clock:
        order = waiting(route, comment="breakout of the range", stop_loss="58000")
        client = client_of("view_order", "view_signal", "approve_order")
        clock.shift(1)
        page = client.get(reverse("admin:approvals")).content.decode()
    assert "Buy" in page
    assert "breakout of the range" in page
    assert "58000" in page
    assert "119 s left" in page
    assert reverse("admin:decide_approval", args=[order.pk, "approve"]) in page
    viewer = client_of("view_order", "view_signal")
    page = viewer.get(reverse("admin:approvals")).content.decode()
    assert reverse("admin:decide_approval", args=[order.pk, "approve"]) not in page
    assert client_of("view_order").get(reverse("admin:approvals")).status_code == 403


def test_the_page_names_proposals_that_wait(route: Route, maria: User) -> None:
    now = timezone.now()
    Proposal.objects.create(
        kind="limit",
        subject="limit max_order_value (everything)",
        payload={},
        before={},
        after={},
        reason="bigger",
        proposed_by="otto",
        proposed_at=now,
        expires_at=now + timedelta(hours=24),
    )
    client = Client()
    client.force_login(maria)
    page = client.get(reverse("admin:approvals")).content.decode()
    assert "limit max_order_value (everything)" in page
    assert "See what changes, and decide" in page


def test_the_page_decides(route: Route, nudges: list[Any]) -> None:
    client = client_of("view_order", "view_signal", "approve_order")
    first, second = waiting(route), waiting(route)
    asked = client.get(reverse("admin:decide_approval", args=[first.pk, "approve"]))
    assert "never larger than shown" in asked.content.decode()
    assert ended(first) == (S.AWAITING_APPROVAL, "")
    client.post(reverse("admin:decide_approval", args=[first.pk, "approve"]), {"reason": ""})
    assert ended(first) == (S.APPROVED, "")
    rejecting = reverse("admin:decide_approval", args=[second.pk, "reject"])
    assert client.post(rejecting, {"reason": ""}).status_code == 200
    assert ended(second) == (S.AWAITING_APPROVAL, "")
    done = client.post(rejecting, {"reason": "too late at night"}, follow=True)
    assert ended(second) == (S.DENIED, ReasonCode.APPROVAL_REJECTED)
    assert "rejected" in done.content.decode()
    again = client.post(rejecting, {"reason": "once more"}, follow=True)
    assert "it waits no longer: denied" in again.content.decode()


def test_without_the_right_the_page_decides_nothing(route: Route) -> None:
    order = waiting(route)
    client = client_of("view_order", "view_signal", "change_order")
    address = reverse("admin:decide_approval", args=[order.pk, "approve"])
    assert client.get(address).status_code == client.post(address, {}).status_code == 403
    assert ended(order) == (S.AWAITING_APPROVAL, "")


def test_the_home_page_and_the_menu_count_what_waits(route: Route, maria: User) -> None:
    waiting(route)
    cache.clear()
    assert dashboard.gather(timezone.now()).awaiting == 1
    client = Client()
    client.force_login(maria)
    page = client.get(reverse("admin:index")).content.decode()
    assert "1 order waits for approval" in page
