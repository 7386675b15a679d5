"""Venues that keep no id of ours: one placement at a time, never resent, recognised or left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import time_machine

from brokers.errors import AmbiguousOrderError
from brokers.models import Account
from brokers.types import VenueStatus
from execution import commands, dispatch, lanes, reconcile
from execution.judging import request_of
from execution.models import Difference, Order
from execution.states import OrderState
from tests.brokers.scripted import AT, CAPABILITIES, Script, report_of, script_of, swallow
from tests.factories import OrderFactory
from tests.threads import beside, together

pytestmark = pytest.mark.django_db
S = OrderState
LANE, OTHER = "BTC/USDT", "ETH/USDT"
WINDOW = CAPABILITIES.settle_window
Accounts = Callable[..., Account]


def unmarked(account: Account) -> Account:
    script_of(account).capabilities = replace(CAPABILITIES, keeps_our_id=False)
    return account


@pytest.fixture
def account(clock: time_machine.Coordinates, scripted: Accounts) -> Account:
    return unmarked(scripted())


def lost_order(account: Account, **columns: object) -> Order:
    order = OrderFactory.create(account=account, **columns)
    script_of(account).outcomes.append(swallow)
    dispatch.run_lane(account.pk, order.symbol)
    order.refresh_from_db()
    assert order.state == S.UNKNOWN
    return order


def look(order: Order) -> Order:
    order.refresh_from_db()
    reconcile.check_order(order)
    order.refresh_from_db()
    return order


def test_it_is_looked_for_by_what_it_asked_for(account: Account, script: Script) -> None:
    known = OrderFactory.create(
        account=account, state=S.FILLED, broker_order_id="77", submitted_at=AT
    )
    order = lost_order(account)
    script.answers.append(report_of(order, VenueStatus.OPEN))
    assert look(order).state == S.OPEN
    (ref,) = script.asked
    assert ref.request is not None
    assert (ref.request.side, ref.request.quantity) == (order.side, order.quantity)
    assert ref.taken == {known.broker_order_id}


def test_a_venue_that_keeps_our_id_is_told_of_no_other_orders(
    clock: time_machine.Coordinates, scripted: Accounts
) -> None:
    account: Account = scripted()
    order = lost_order(account)
    look(order)
    (ref,) = script_of(account).asked
    assert (ref.request, ref.taken) == (request_of(order), frozenset())


def test_what_is_not_found_is_never_sent_again(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = lost_order(account)
    for _ in range(2):
        clock.shift(timedelta(seconds=WINDOW + 1))
        look(order)
    assert (order.state, order.detail) == (S.NEEDS_OPERATOR, reconcile.NO_PROOF)
    for _ in range(3):
        clock.shift(timedelta(seconds=WINDOW + 1))
        look(order)
        dispatch.run_lane(account.pk, LANE)
    assert (order.state, order.looks, len(script.sent)) == (S.NEEDS_OPERATOR, 2, 1)


def test_an_operators_word_ends_it(
    account: Account, script: Script, clock: time_machine.Coordinates, nudges: object
) -> None:
    order = lost_order(account)
    for _ in range(2):
        clock.shift(timedelta(seconds=WINDOW + 1))
        look(order)
    commands.mark_ended(order, "not in its list of orders")
    assert (order.state, len(script.sent)) == (S.NOT_PLACED, 1)


def test_it_may_still_turn_up_while_an_operator_looks(
    account: Account, script: Script, clock: time_machine.Coordinates
) -> None:
    order = lost_order(account)
    for _ in range(2):
        clock.shift(timedelta(seconds=WINDOW + 1))
        look(order)
    script.answers.append(report_of(order, VenueStatus.OPEN))
    assert look(order).state == S.OPEN


def test_two_that_fit_are_an_operators_to_tell_apart(account: Account, script: Script) -> None:
    order = lost_order(account)
    script.answers.append(AmbiguousOrderError("2 orders may be this one: 1, 2"))
    assert look(order).state == S.NEEDS_OPERATOR
    assert order.detail == "2 orders may be this one: 1, 2"


def test_an_order_under_way_is_not_foreign(account: Account, script: Script) -> None:
    order = lost_order(account)
    theirs = replace(report_of(order, VenueStatus.OPEN), client_order_id="", broker_order_id="9")
    script.reports["theirs"] = theirs
    reconcile.reconcile_account(account)
    assert not Difference.objects.exists()
    elsewhere = replace(theirs, symbol=OTHER)
    script.reports["theirs"] = elsewhere
    reconcile.reconcile_account(account)
    assert Difference.objects.get().symbol == OTHER


@pytest.mark.django_db(transaction=True)
def test_orders_of_an_account_leave_one_at_a_time(scripted: Accounts) -> None:
    account = unmarked(scripted())
    script = script_of(account)
    first = OrderFactory.create(account=account)
    second = OrderFactory.create(account=account, symbol=OTHER)
    script.gate.clear()
    leaving = beside(lambda: dispatch.run_lane(account.pk, LANE))
    assert script.entered.wait(10)
    assert dispatch.run_lane(account.pk, OTHER) == []
    second.refresh_from_db()
    assert (second.state, len(script.sent)) == (S.PENDING, 1)
    script.gate.set()
    assert [order.pk for order in leaving.result(30)] == [first.pk]
    assert [order.pk for order in dispatch.run_lane(account.pk, OTHER)] == [second.pk]


@pytest.mark.django_db(transaction=True)
def test_claims_of_one_moment_let_one_through(scripted: Accounts) -> None:
    account = unmarked(scripted())
    symbols = [f"C{n}/USDT" for n in range(5)]
    for symbol in symbols:
        OrderFactory.create(account=account, symbol=symbol)
    claims = [lambda symbol=symbol: lanes.claim_next(account, symbol) for symbol in symbols]
    claimed = [order for order in together(*claims) if order is not None]
    assert len(claimed) == 1
    assert Order.objects.filter(state=S.SUBMITTING).count() == 1
