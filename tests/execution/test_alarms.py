"""Alarms: raised once, said once, cleared when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.models import Account
from brokers.types import CancelResult, Outcome, VenueStatus
from execution import account_tasks, alarms, halting, periodic_tasks, protect, reconcile, tasks
from execution.models import Alarm, Order
from execution.states import OrderState
from risk.channels import Channel
from risk.models import AuditEvent, TradingState
from risk.types import ReasonCode
from tests.brokers.scripted import fill_whole, script_of
from tests.execution.guarding import Desk, clock, desk
from tests.execution.test_protect import REFUSED
from tests.factories import OrderFactory, PositionFactory

__all__ = ["clock", "desk"]

pytestmark = pytest.mark.django_db
Accounts = Callable[..., Account]


def test_an_order_that_needs_an_operator_is_alarmed_by_the_next_sweep(
    scripted: Accounts, caplog: pytest.LogCaptureFixture, eager: None
) -> None:
    order = OrderFactory.create(
        account=scripted(), state=OrderState.NEEDS_OPERATOR, detail="silent for 5 minutes"
    )
    periodic_tasks.sweep()
    periodic_tasks.sweep()
    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.key, alarm.detail) == (
        "needs_operator",
        str(order.pk),
        "silent for 5 minutes",
    )
    assert timezone.now() - alarm.raised_at < timedelta(seconds=5)
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert [one.getMessage() for one in errors] == [f"alarm: {alarm}, silent for 5 minutes"]
    assert AuditEvent.objects.filter(kind="alarm.needs_operator").count() == 1

    Order.objects.update(state=OrderState.FILLED)
    assert alarms.look() == []
    alarm.refresh_from_db()
    assert alarm.cleared_at is not None


@pytest.mark.parametrize("failure", [QueryFailedError("timeout"), KeyError("contractSize")])
def test_an_account_that_cannot_be_compared_is_said_once(
    scripted: Accounts, caplog: pytest.LogCaptureFixture, eager: None, failure: Exception
) -> None:
    account = scripted()
    Account.objects.update(reconciled_at=None)
    script_of(account).failure = failure
    for _ in range(3):
        account_tasks.reconcile_account(account.pk)
    said = [one for one in caplog.records if account.name in one.getMessage()]
    assert len(said) == 1
    script_of(account).failure = None
    account_tasks.reconcile_account(account.pk)
    assert Alarm.objects.get().cleared_at is not None


def test_an_account_whose_plugin_cannot_be_made_is_said_to_trade_nothing(
    scripted: Accounts, eager: None
) -> None:
    account = scripted()
    Account.objects.update(reconciled_at=None)
    script_of(account).init_failure = ImportError("no module named sdk")
    account_tasks.reconcile_account(account.pk)
    assert Alarm.objects.get().kind == alarms.Kind.NOT_RECONCILED


@pytest.mark.parametrize("kind", [alarms.Kind.NOT_RECONCILED, alarms.Kind.LOGIN_NEEDED])
@pytest.mark.parametrize("change", [{"is_active": False}, {"name": "renamed"}])
def test_an_account_that_is_not_asked_any_more_ends_its_alarms(
    scripted: Accounts, kind: Alarm.Kind, change: dict[str, Any]
) -> None:
    account, other = scripted(), scripted()
    for one in (account, other):
        alarms.sound(alarms.Seen(kind, one.name, "no answer", one))
    alarms.look()
    assert Alarm.objects.filter(cleared_at=None).count() == 2
    Account.objects.filter(pk=account.pk).update(**change)
    alarms.look()
    assert Alarm.objects.get(cleared_at=None).account == other


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_channel_that_is_gone_ends_the_alarm_that_nothing_arrives_there(is_deleted: bool) -> None:
    for name in ("chat", "mail"):
        Channel.objects.create(name=name)
        alarms.sound(alarms.Seen(alarms.Kind.CHANNEL_DOWN, name, "503"))
    alarms.look()
    assert Alarm.objects.filter(cleared_at=None).count() == 2
    chat = Channel.objects.filter(name="chat")
    if is_deleted:
        chat.delete()
    else:
        chat.update(is_active=False)
    alarms.look()
    assert Alarm.objects.get(cleared_at=None).key == "mail"


def test_a_flatten_that_is_not_done_is_an_alarm_until_it_is(
    scripted: Accounts, clock: time_machine.Coordinates, eager: None
) -> None:
    account = scripted()
    PositionFactory.create(account=account, quantity=Decimal("0.5"))
    script_of(account).init_failure = QueryFailedError("no route to host")
    halting.press(
        halting.Mode.FLATTEN, scope=TradingState.Scope.ACCOUNT, key=account.name, reason="test"
    )
    assert alarms.look() == []
    clock.shift(11)
    (alarm,) = alarms.look()
    assert (alarm.kind, alarm.detail) == (
        "not_flat",
        f"left: 0.5 BTC/USDT on {account.name}",
    )
    script_of(account).init_failure = None
    for _ in range(2):
        periodic_tasks.sweep()
        clock.shift(2)
    alarms.look()
    alarm.refresh_from_db()
    assert alarm.cleared_at is not None


@pytest.mark.parametrize("answer", [Outcome.UNKNOWN, Outcome.NOT_SENT])
def test_an_order_whose_cancel_never_gets_through_is_an_alarm_as_well(
    desk: Desk, clock: time_machine.Coordinates, answer: Outcome
) -> None:
    """A key that may read and no longer trade: the venue refuses each cancel in words of its own."""
    desk.send(order_type="limit", price="59000", quantity="0.01")
    order = Order.objects.get()
    desk.script.cancel_results.extend([CancelResult(answer, detail="no permission")] * 100)
    reconcile.cancel(order, ReasonCode.CANCELED_BY_OPERATOR, "ann")
    for _ in range(30):
        clock.shift(10)
        tasks.check_order(str(order.pk))
    assert alarms.look() == []
    clock.shift(11)
    tasks.check_order(str(order.pk))
    (alarm,) = alarms.look()
    assert (alarm.kind, alarm.key) == ("unanswered", f"cancel of {order.pk}")
    desk.ends(order, VenueStatus.CANCELED)
    alarms.look()
    alarm.refresh_from_db()
    assert alarm.cleared_at is not None


def test_a_stop_in_the_way_of_a_flatten_that_its_venue_does_not_cancel_is_an_alarm(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.buy("0.1")
    (stop,) = desk.live()
    desk.script.cancel_results.extend([CancelResult(Outcome.REJECTED, detail="no")] * 100)
    scope = {"scope": TradingState.Scope.ACCOUNT, "key": desk.account.name}
    halting.press(halting.Mode.FLATTEN, **scope, reason="test")
    for _ in range(32):
        periodic_tasks.sweep()
        clock.shift(10)
    alarms.look()
    assert Alarm.objects.filter(key=f"cancel of {stop.pk}", cleared_at=None).exists()


@pytest.mark.parametrize("answer", [Outcome.ACCEPTED, Outcome.REJECTED])
def test_an_order_its_venue_does_not_cancel_is_an_alarm_after_five_minutes(
    desk: Desk, clock: time_machine.Coordinates, answer: Outcome
) -> None:
    desk.send(order_type="limit", price="59000", quantity="0.01")
    order = Order.objects.get()
    desk.script.cancel_results.extend([CancelResult(answer, detail="told")] * 100)
    reconcile.cancel(order, ReasonCode.CANCELED_BY_OPERATOR, "ann")
    asked_at = timezone.now()
    for _ in range(29):
        clock.shift(10)
        tasks.check_order(str(order.pk))
    assert (alarms.look(), timezone.now() - asked_at < timedelta(minutes=5)) == ([], True)
    clock.shift(15)
    tasks.check_order(str(order.pk))
    (alarm,) = alarms.look()
    assert (alarm.kind, alarm.key, alarm.account, alarm.symbol) == (
        "unanswered",
        f"cancel of {order.pk}",
        desk.account,
        order.symbol,
    )
    assert (
        alarm.detail == f"the venue is told to cancel it and shows it as before: order {order.pk}"
    )
    desk.script.failure = QueryFailedError("timeout")
    tasks.check_order(str(order.pk))
    alarms.look()
    alarm.refresh_from_db()
    assert alarm.cleared_at is None
    desk.script.failure = None
    desk.ends(order, VenueStatus.CANCELED)
    alarms.look()
    alarm.refresh_from_db()
    assert alarm.cleared_at is not None


def test_a_venue_that_is_back_after_five_minutes_has_refused_nothing_yet(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.send(order_type="limit", price="59000", quantity="0.01")
    order = Order.objects.get()
    desk.script.failure = QueryFailedError("timeout")
    away, no = CancelResult(Outcome.UNKNOWN), CancelResult(Outcome.REJECTED)
    desk.script.cancel_results.extend([away, *[no] * 9])
    reconcile.cancel(order, ReasonCode.CANCELED_BY_OPERATOR, "ann")
    Account.objects.update(reconciled_at=None)
    for _ in range(32):
        clock.shift(10)
        tasks.check_order(str(order.pk))
    assert [(one.kind, one.key) for one in alarms.look()] == [("unanswered", desk.account.name)]
    desk.script.failure = None
    for _ in range(3):
        clock.shift(10)
        tasks.check_order(str(order.pk))
        assert alarms.look() == []
    assert Alarm.objects.get().cleared_at is not None


def test_a_stop_refused_five_times_is_tried_again_when_an_operator_says_so(
    desk: Desk, clock: time_machine.Coordinates
) -> None:
    desk.script.outcomes.extend([fill_whole] + [REFUSED] * 5)
    desk.buy()
    for _ in range(8):
        clock.shift(40)
        desk.guard()
    assert desk.live() == []
    protect.guard_again(desk.plan(), reason="margin added")
    desk.guard()
    assert desk.guarded() == [("0.01", "58000")]
    event = AuditEvent.objects.get(kind="protection.guard_again")
    assert event.reason == "margin added"
