"""Doing at a venue what an operator wants done about a difference: flatten a position, cancel an order.

For workers, which alone load broker SDKs; ``differences`` holds what was asked for.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from brokers.base import ExecutionPlugin
from brokers.models import Account
from brokers.sessions import plugin_for
from brokers.types import OrderRef
from execution import differences, flatten
from execution.facts import instrument_of, venue_call
from execution.models import Difference, Position
from execution.slicing import equal_parts
from risk.arithmetic import floor_to

ZERO = Decimal(0)
CANCEL_AGAIN = timedelta(seconds=10)
State = Difference.State


def carry_out(difference_id: int) -> str | None:
    """Do at the venue what was asked for; returns the symbol whose lane has a close to be sent.

    Raises BrokerError or Refusal while the venue cannot be asked; may be repeated.
    """
    row = Difference.objects.select_related("account").filter(pk=difference_id).first()
    if row is not None and row.state == State.CANCELING and _is_due(row):
        ref = OrderRef("", row.symbol, row.broker_order_id, None)
        plugin_for(row.account).cancel_order(ref)
    if row is not None and row.state == State.FLATTENING:
        return _flatten(row)
    return None


def _is_due(row: Difference) -> bool:
    """A cancel is repeated every 10 s until the venue no longer shows the order."""
    now = timezone.now()
    due = Difference.objects.filter(pk=row.pk).filter(
        Q(resolved_at=None) | ~Q(resolved_at__range=(now - CANCEL_AGAIN, now + CANCEL_AGAIN))
    )
    return bool(due.update(resolved_at=now))


def _held_at(account: Account, plugin: ExecutionPlugin, symbol: str) -> Decimal:
    """What the venue holds now; a difference that is flattened comes from one that keeps positions."""
    with venue_call(account):
        return sum((one.quantity for one in plugin.positions() if one.symbol == symbol), ZERO)


def _flatten(row: Difference) -> str | None:
    """Take the venue's position into our book, and make the order that closes what came with it.

    Nothing where the venue holds something else by now: the next comparison says what.
    """
    account = row.account
    plugin = plugin_for(account)
    rules = instrument_of(account, plugin, row.symbol, is_exit=True)
    held = _held_at(account, plugin, row.symbol)
    price = flatten.price_of(account, plugin, row.symbol)
    with transaction.atomic():
        Account.objects.select_for_update(no_key=True).get(pk=account.pk)
        position = Position.locked(account.pk, row.symbol)
        differences.lock(row, State.FLATTENING)
        ours, theirs = Decimal(row.ours), Decimal(row.theirs)
        quantity = floor_to(abs(theirs - ours), rules.quantity_step)
        if theirs != held:
            return None
        if differences.forbids(row, "flatten") or position.quantity != ours or quantity == 0:
            differences.close(row, State.GONE, "the position has moved since", by=row.resolved_by)
            return None
        position.quantity, position.updated_at = theirs, timezone.now()
        position.save()
        for part in equal_parts(quantity, rules.max_quantity or quantity, rules.quantity_step):
            order = flatten.new_close(account, plugin, row.symbol, held=theirs, quantity=part)
            order.reference_price = price
            flatten.save(order, f"difference {row.pk}")
        differences.close(row, State.FLATTENED, row.reason, by=row.resolved_by)
    return row.symbol
