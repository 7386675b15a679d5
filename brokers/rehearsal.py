"""The smallest proof that an account works: place an order nobody will fill, find it, cancel it.

It talks to the venue only and leaves no row in FKS. It does not ask whether the money is
real: who calls it must, as `check_account` does, which refuses a live account without
``--with-real-money``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from brokers.base import ExecutionPlugin
from brokers.decimals import decimal_text
from brokers.errors import BrokerError
from brokers.types import (
    Instrument,
    OrderRef,
    OrderReport,
    OrderRequest,
    OrderType,
    Outcome,
    Quote,
    Side,
    TimeInForce,
    VenueStatus,
)

FAR = Decimal("0.5")
"""The order's price as a share of the bid: too low to be filled, within what venues accept."""
PATIENCE = 30.0
"""Seconds for the order to be shown, and again for it to be gone."""
PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried, and how it went."""

    name: str
    ok: bool
    detail: str


def rehearse(plugin: ExecutionPlugin, symbol: str) -> Iterator[Step]:
    """Each step as it is done; the order is canceled whatever happens after it was sent.

    Ends after a step that leaves nothing more to try.
    """
    try:
        request = far_order(plugin, plugin.instrument(symbol), plugin.fetch_data(symbol))
    except BrokerError as error:
        yield Step("prepare", False, f"{error.code}: {error}")
        return
    what = f"buy {decimal_text(request.quantity)} {symbol} at {decimal_text(request.price or FAR)}"
    yield Step("prepare", True, what)
    placed = plugin.execute_order(request)
    accepted = placed.outcome is Outcome.ACCEPTED
    said = f"order {placed.broker_order_id}" if accepted else f"{placed.outcome}: {placed.detail}"
    yield Step("place", accepted, said)
    if placed.outcome in (Outcome.REJECTED, Outcome.NOT_SENT):
        return
    mine = OrderRef(request.identity, symbol, "", datetime.now(UTC), request)
    yield _waited("find by our id", plugin, mine, lambda report: report is not None)
    yield _listed(plugin, mine, placed.broker_order_id)
    canceled = plugin.cancel_order(mine)
    taken = canceled.outcome is Outcome.ACCEPTED
    yield Step("cancel", taken, canceled.detail or canceled.outcome.value)
    yield _waited("see it canceled", plugin, mine, _is_canceled)


def far_order(plugin: ExecutionPlugin, rules: Instrument, quote: Quote) -> OrderRequest:
    """The smallest limit buy the rules allow, far below the market."""
    tick, step = rules.price_tick, rules.quantity_step
    price = (quote.bid * FAR / tick).to_integral_value(ROUND_FLOOR) * tick
    least = max(rules.min_quantity or step, (rules.min_value or Decimal(0)) / max(price, tick))
    terms = plugin.capabilities.time_in_force
    return OrderRequest(
        identity=uuid.uuid4().hex,
        symbol=rules.symbol,
        side=Side.BUY,
        type=OrderType.LIMIT,
        quantity=(least / step).to_integral_value(ROUND_CEILING) * step,
        price=max(price, tick),
        time_in_force=TimeInForce.GTC if TimeInForce.GTC in terms else TimeInForce.DAY,
        reference_price=max(price, tick),
    )


def _is_canceled(report: OrderReport | None) -> bool:
    return report is not None and report.status is VenueStatus.CANCELED


def _listed(plugin: ExecutionPlugin, mine: OrderRef, order_id: str) -> Step:
    try:
        found = plugin.open_orders(mine.symbol)
    except BrokerError as error:
        return Step("list open orders", False, f"{error.code}: {error}")
    ours = plugin.client_order_id(mine.identity)
    listed = any(ours == one.client_order_id or order_id == one.broker_order_id for one in found)
    return Step(
        "list open orders", listed, "it is among them" if listed else "it is not among them"
    )


def _waited(
    name: str,
    plugin: ExecutionPlugin,
    mine: OrderRef,
    is_so: Callable[[OrderReport | None], bool],
) -> Step:
    deadline, said = time.monotonic() + PATIENCE, "the venue knows no such order"
    while True:
        try:
            report = plugin.fetch_order(mine)
        except BrokerError as error:
            said = f"{error.code}: {error}"
        else:
            if report is not None:
                said = f"order {report.broker_order_id} is {report.status.value}"
            if is_so(report):
                return Step(name, True, said)
        if time.monotonic() > deadline:
            return Step(name, False, said)
        time.sleep(PAUSE)
