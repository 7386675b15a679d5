"""Doing what the kill switch and operators want of accounts: cancel orders, close positions.

``step`` is one go at it, for the workers. ``carry_out`` keeps at it here and now: it needs the database
and the venues, and neither queue nor workers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from django.db import connection
from django.utils import timezone

from brokers.errors import BrokerError
from brokers.models import Account
from execution import cancels, dispatch, dispositions, flatten, halting, protect
from execution.exclusive import Work, exclusive
from execution.models import Order
from execution.reconcile import cancel, check_order, reconcile_account
from execution.states import TERMINAL, UNSENT
from risk.models import TradingState
from risk.types import ReasonCode, Refusal

SECONDS = 20.0
PAUSE = 0.2
AT_ONCE = 16


def step(account: Account) -> tuple[list[Order], list[str]]:
    """Send the cancels that are due, then make the closes that are; returns the orders that changed
    and the symbols with a close to be sent."""
    flatten.take_over_slices(account)
    changed = _send_cancels(account)
    flatten.take_off_stops(account)
    changed += _send_cancels(account)
    return changed, flatten.close_all(account)


def _send_cancels(account: Account) -> list[Order]:
    changed = []
    for order in cancels.due(account.pk):
        before = order.state
        cancel(order, ReasonCode(order.cancel_reason), order.cancel_asked_by)
        if order.state != before:
            changed.append(order)
    return changed


def carry_out(row: TradingState, seconds: float = SECONDS) -> halting.Left:
    """Do what ``row`` asks for until nothing is left, or for ``seconds``; returns what is left.

    Accounts are worked on side by side, so that a venue that hangs holds up its own only.
    """
    accounts = flatten.accounts_left(row)
    until = time.monotonic() + seconds
    if len(accounts) == 1:
        _keep_at_it(accounts[0], until)
    elif accounts:
        with ThreadPoolExecutor(min(len(accounts), AT_ONCE)) as pool:
            list(pool.map(lambda account: _beside(account, until), accounts))
    return flatten.left_of(row)


def _beside(account: Account, until: float) -> None:
    try:
        _keep_at_it(account, until)
    finally:
        connection.close()


def _keep_at_it(account: Account, until: float) -> None:
    while True:
        with exclusive(Work.WIND_DOWN, account.pk) as mine:
            if mine:
                _round(account)
        if time.monotonic() > until or not _is_left(account):
            return
        time.sleep(PAUSE)


def _round(account: Account) -> None:
    changed, symbols = step(account)
    if symbols or flatten.held_by(halting.flattening(), account.pk):
        _compare_first(account)
    for symbol in symbols:
        changed += dispatch.run_lane(account.pk, symbol)
    changed += _asked_about(_under_way(account))
    protect.resume_after(changed)
    for signal_id in {order.signal_id for order in changed if order.signal_id}:
        dispositions.settle(signal_id)


def _compare_first(account: Account) -> None:
    """An account that has not been compared with its venue since the start does not trade."""
    account.refresh_from_db()
    if account.reconciled_at is None:
        try:
            reconcile_account(account)
        except (BrokerError, Refusal):
            return  # not known: then nothing is sent, and the positions are named as left


def _under_way(account: Account) -> list[Order]:
    """Cancels and closes whose next question to the venue is due."""
    closes = Order.objects.filter(account=account, role=Order.Role.FLATTEN)
    orders = cancels.left().filter(account=account) | closes.exclude(state__in=TERMINAL)
    due = orders.filter(next_check_at__lte=timezone.now()).exclude(state__in=UNSENT)
    return list(due.exclude(state="submitting").select_related("account"))


def _asked_about(orders: Sequence[Order]) -> list[Order]:
    for order in orders:
        check_order(order)
        order.refresh_from_db()
    return list(orders)


def _is_left(account: Account) -> bool:
    if cancels.left().filter(account=account).exists():
        return True
    return bool(flatten.held_by(halting.flattening(), account.pk))
