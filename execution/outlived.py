"""Exits that rest at a venue though their position is closed: filled later, they would open the other
side. The stop filled first, say, or somebody sold otherwise. They are cancelled.
"""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q

from execution import cancels, differences
from execution.models import Order, Position
from execution.states import OrderState
from risk.types import ReasonCode

WHO = "FKS: its position is closed"
BATCH = 200
_AT_WORK = (OrderState.OPEN, OrderState.PARTIALLY_FILLED)


def want_gone() -> None:
    """Note a cancel on every exit whose position is closed. Those worked in slices end with their
    parent; an order an operator took over at the venue is theirs. Nothing is done where account and
    book have not been compared, or disagree: the position may be held after all.
    """
    here = Position.objects.filter(account=OuterRef("account"), symbol=OuterRef("symbol"))
    is_held = Q(Exists(here.filter(quantity__gt=0)), side="sell") | Q(
        Exists(here.filter(quantity__lt=0)), side="buy"
    )
    exits = Order.objects.filter(
        role=Order.Role.EXIT,
        state__in=_AT_WORK,
        cancel_reason="",
        parent=None,
        is_adopted=False,
        account__reconciled_at__isnull=False,
    ).exclude(is_held)
    for order in exits.order_by("id")[:BATCH]:
        if differences.blocks_entries(order.account_id, order.symbol) is None:
            mine = Order.objects.filter(pk=order.pk, cancel_reason="")
            cancels.want(mine, ReasonCode.NOTHING_TO_CLOSE, WHO)
