"""Finding one order at TWS, alone or with the stop loss that left with it."""

from __future__ import annotations

from typing import Any

from brokers.bridge.drivers.ib_orderbook import Traces, traces
from brokers.bridge.drivers.ib_placing import cancel
from brokers.bridge.drivers.ib_session import Session
from brokers.bridge.journal import Entry
from brokers.client_ids import letters_and_digits
from brokers.types import OrderRef, Outcome


async def shown_of(session: Session, account: str, ref: OrderRef, entry: Entry | None) -> Traces:
    """What TWS shows of the order. Raises QueryFailedError.

    An entry of unknown fate that waits there without the stop that was to follow it is taken back
    first: TWS holds it back, and what it would open nothing would guard.
    """
    stop = entry.request.attached_stop if entry else None
    if entry is None or stop is None or _is_settled(entry):
        return await traces(session, account, lambda row: is_ours(row, ref))
    beside = letters_and_digits(stop.identity)
    both = await traces(session, account, lambda row: is_ours(row, ref) or row.orderRef == beside)
    mine = both.of(lambda row: is_ours(row, ref))
    has_stop = both.of(lambda row: row.orderRef == beside).is_anything
    if has_stop or mine.fills or mine.completed or not mine.working:
        return mine
    await cancel(session, mine.working)
    return await traces(session, account, lambda row: is_ours(row, ref))


def is_ours(row: Any, ref: OrderRef) -> bool:
    """An order or an execution, by our reference or by the number that never changes."""
    named = bool(ref.identity) and row.orderRef == letters_and_digits(ref.identity)
    return named or (bool(ref.broker_order_id) and str(row.permId) == ref.broker_order_id)


def _is_settled(entry: Entry) -> bool:
    """Whether the placement ended with proof, not in doubt."""
    return entry.result is not None and entry.result.outcome is not Outcome.UNKNOWN
