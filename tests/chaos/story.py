"""Everything that is known of one order: our journal, the venue's ledger, what was requested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from execution.models import Order
from tests.venues.client import LedgerView, VenueControl


def story(client_id: str, control: VenueControl, ledgers: Mapping[str, LedgerView]) -> str:
    """Lines in order of time within each of the three sources."""
    order = Order.objects.filter(client_order_id=client_id).select_related("account").first()
    lines = [f"story of {client_id}"]
    if order is not None:
        lines += _ours(order)
    for venue, ledger in ledgers.items():
        for row in ledger.by_client_id(client_id):
            lines.append(
                f"  {venue} order {row.id} {_time(row.created_at)} {row.side} {row.quantity} "
                f"{row.symbol} {row.status}, filled {row.filled}"
            )
    ids = {row.id for ledger in ledgers.values() for row in ledger.by_client_id(client_id)}
    return "\n".join([*lines, *_requests(client_id, ids, control)])


def _ours(order: Order) -> Iterable[str]:
    yield f"  ours: {order} {order.state} {order.reason} attempt {order.attempt} ({order.pk})"
    for row in order.journal.order_by("id"):
        yield (
            f"  journal {row.at:%H:%M:%S.%f} {row.event}: {row.from_state} -> {row.to_state} "
            f"attempt {row.attempt} {row.detail}"
        )
    for fill in order.fills.order_by("at"):
        yield f"  fill {fill.trade_id} {fill.quantity} at {fill.price}"


def _requests(client_id: str, ids: set[str], control: VenueControl) -> Iterable[str]:
    for entry in control.requests():
        named = {entry.params.get("orderId"), entry.params.get("txid"), entry.order_id}
        if client_id in entry.params.values() or ids & named:
            yield (
                f"  request {_time(entry.time)} {entry.method} {entry.path} {entry.status} "
                f"{entry.fault} {entry.error}".rstrip()
            )


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%H:%M:%S.%f}"
