"""Whether each position has the stop at the venue that its entry named, and no closed one has any."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from brokers.models import Instrument
from execution.models import Order, Position, Protection
from risk.arithmetic import floor_to
from tests.chaos.plan import venue_of
from tests.venues.client import LedgerView

LIVE = ("open", "partially_filled")


def unguarded(ledgers: Mapping[str, LedgerView]) -> list[str]:
    """What is wrong, in words; empty when every plan is kept at the venue."""
    live = {
        row.client_id: row.quantity - row.filled
        for ledger in ledgers.values()
        for row in ledger.orders
        if row.status in LIVE
    }
    plans = Protection.objects.select_related("account")
    return [wrong for plan in plans if (wrong := _wrong(plan, live))]


def _wrong(plan: Protection, live: Mapping[str, Decimal]) -> str:
    stops = Order.objects.filter(
        role=Order.Role.STOP_LOSS, account=plan.account, symbol=plan.symbol
    ).values_list("client_order_id", flat=True)
    there = sum((live.get(client_id, Decimal(0)) for client_id in stops), Decimal(0))
    position = Position.objects.get(account=plan.account, symbol=plan.symbol)
    rules = Instrument.objects.get(account=plan.account, symbol=plan.symbol).rules()
    held = floor_to(abs(position.quantity), rules.quantity_step)
    wanted = held if plan.is_active and plan.stop_price is not None else Decimal(0)
    value = (rules.min_value or Decimal(0)) / (plan.stop_price or Decimal(1))
    too_small = abs(wanted - there) < max(rules.min_quantity or Decimal(0), value)
    if wanted == there or (there < wanted and too_small):
        return ""
    venue = venue_of(plan.account.name)
    return f"{plan}: {wanted} to guard, stops of {there} at {venue} ({plan.detail})"
