"""Messages to a venue: never more than the limit, and some are kept for exits and cancels."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from brokers.models import Account
from brokers.types import CancelResult, Outcome
from execution import dispatch, lanes, throttle
from execution.models import Order
from execution.states import OrderState
from risk.limits import set_limit
from risk.types import LimitMode, ReasonCode
from tests.brokers.scripted import script_of
from tests.factories import AccountFactory, OrderFactory, PositionFactory
from tests.threads import together

D = Decimal


def put(value: str, mode: LimitMode = LimitMode.ENFORCE, **parameters: str) -> None:
    told = {"window": "60"} | parameters
    set_limit("message_rate", D(value), mode=mode, parameters=told, reason="test")


def waiting(account: Account, count: int, **columns: str) -> list[Order]:
    return [
        OrderFactory.create(account=account, symbol=f"C{one}/USDT", **columns)
        for one in range(count)
    ]


@pytest.mark.django_db
def test_entries_stop_before_the_share_that_is_kept(scripted: Callable[..., Account]) -> None:
    put("8")
    account = scripted()
    orders = waiting(account, 8)
    for order in orders:
        dispatch.run_lane(account.pk, order.symbol)
    states = [Order.objects.get(pk=order.pk).state for order in orders]
    assert states == [OrderState.FILLED] * 6 + [OrderState.PENDING] * 2
    held_back = Order.objects.get(pk=orders[6].pk)
    assert held_back.reason == ReasonCode.MESSAGE_RATE
    assert held_back.next_check_at is not None
    exits = [
        OrderFactory.create(account=account, symbol=f"X{one}/USDT", side="sell", role="exit")
        for one in range(3)
    ]
    for order in exits:
        PositionFactory.create(account=account, symbol=order.symbol)
        dispatch.run_lane(account.pk, order.symbol)
    states = [Order.objects.get(pk=order.pk).state for order in exits]
    assert states == [OrderState.FILLED] * 2 + [OrderState.PENDING]


@pytest.mark.django_db
def test_a_cancel_counts_and_is_never_held_back(scripted: Callable[..., Account]) -> None:
    put("1")
    account = scripted()
    resting = OrderFactory.create(account=account, state="open", broker_order_id="1")
    for _ in range(3):
        dispatch.cancel(resting, reason=ReasonCode.CANCELED_BY_OPERATOR, detail="test")
    assert throttle.sent_within(account.pk, timedelta(seconds=60), timezone.now()) == 3
    (order,) = waiting(account, 1)
    assert dispatch.run_lane(account.pk, order.symbol) == []


@pytest.mark.django_db
@pytest.mark.parametrize("role", ["exit", "stop_loss", "flatten"])
def test_no_exit_waits_for_cancels_that_are_repeated(
    scripted: Callable[..., Account], role: str
) -> None:
    put("2")
    account = scripted()
    stuck = OrderFactory.create(account=account, state="canceling", broker_order_id="1")
    script_of(account).cancel_results.extend(
        [CancelResult(Outcome.ACCEPTED)] * 2 + [CancelResult(Outcome.NOT_SENT)] * 2
    )
    for _ in range(4):
        dispatch.send_cancel(stuck)
    PositionFactory.create(account=account, symbol="C0/USDT")
    (order,) = waiting(account, 1, side="sell", role=role)
    assert dispatch.run_lane(account.pk, order.symbol)
    order.refresh_from_db()
    assert (order.state, order.reason) == (OrderState.FILLED, "")


@pytest.mark.django_db
def test_what_was_sent_before_the_clock_was_set_back_does_not_count(
    scripted: Callable[..., Account],
) -> None:
    put("2", kept="0")
    account = scripted()
    ahead = timezone.now() + timedelta(hours=1)
    for _ in range(2):
        sent = OrderFactory.create(account=account, state="filled", submitted_at=ahead)
        sent.journal.create(at=ahead, event="cancel_sent", attempt=1, actor="system")
    (order,) = waiting(account, 1)
    assert dispatch.run_lane(account.pk, order.symbol)


@pytest.mark.django_db
def test_one_that_waited_too_long_says_why_it_expired(scripted: Callable[..., Account]) -> None:
    put("1")
    account = scripted()
    first, second = waiting(account, 2)
    dispatch.run_lane(account.pk, first.symbol)
    dispatch.run_lane(account.pk, second.symbol)
    Order.objects.filter(pk=second.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    dispatch.run_lane(account.pk, second.symbol)
    second.refresh_from_db()
    assert (second.state, second.reason) == (OrderState.EXPIRED, ReasonCode.MESSAGE_RATE)


@pytest.mark.django_db
@pytest.mark.parametrize("mode", [LimitMode.OBSERVE, LimitMode.OFF])
def test_a_limit_that_is_not_enforced_holds_nothing_back(
    scripted: Callable[..., Account], mode: LimitMode
) -> None:
    put("1", mode)
    account = scripted()
    for order in waiting(account, 3):
        assert dispatch.run_lane(account.pk, order.symbol)


@pytest.mark.django_db(transaction=True)
def test_claims_of_one_moment_do_not_overshoot() -> None:
    put("4", kept="0")
    account = AccountFactory.create()
    orders = waiting(account, 8)
    claims = [lambda order=order: lanes.claim_next(account, order.symbol) for order in orders]
    taken = [one for one in together(*claims) if one is not None]
    assert len(taken) == 4
    assert Order.objects.filter(state=OrderState.SUBMITTING).count() == 4
