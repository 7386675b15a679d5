"""At what price an order is judged, what its stop costs, and how a price fits the venue's grid."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, DecimalException

from brokers.types import OrderType, Quote, Side
from risk.arithmetic import ceil_to, floor_to, is_positive, noted, text
from risk.types import Intent, ReasonCode, Refusal


def entry_price(intent: Intent, quote: Quote) -> Decimal:
    """The price an order is judged by: its limit, else its stop, else the worst side of the quote.

    Where the market is already past that price, a sale at a limit or any order at a stop meets the
    market instead, and is judged by it: a low limit on a sale must not make the order look small.
    Raises Refusal when a price is missing.
    """
    market = quote.worst(intent.side)
    if not is_positive(market):
        raise Refusal(ReasonCode.REFERENCE_UNAVAILABLE, f"no usable quote for {quote.symbol}")
    selling = intent.side is Side.SELL
    if intent.type is OrderType.LIMIT:
        limit = _price(intent.price, "limit price")
        return max(limit, market) if selling else limit
    if intent.type is OrderType.STOP:
        stop = _price(intent.stop_price, "stop price")
        return min(stop, market) if selling else max(stop, market)
    if intent.type is OrderType.STOP_LIMIT:
        limit = _price(intent.price, "limit price")
        stop = _price(intent.stop_price, "stop price")
        return max(limit, min(stop, market)) if selling else limit
    if intent.type is OrderType.TRAILING_STOP and not selling:
        # its trigger starts so far above the market and only ever falls
        return market * (1 + _price(intent.trailing_percent, "trailing percent") / 100)
    return market


def opening_price(intent: Intent, judged: Decimal, quote: Quote) -> Decimal:
    """Where the position of an entry ``judged`` at a price would open: a purchase at a limit above the
    market meets the market.
    """
    market = quote.worst(intent.side)
    meets = intent.type is OrderType.LIMIT and intent.side is Side.BUY and is_positive(market)
    return min(judged, market) if meets else judged


def stop_distance(side: Side, entry: Decimal, stop_loss: Decimal) -> Decimal:
    """What one unit loses between entry and stop, in the quote asset. Raises Refusal if nothing."""
    distance = (entry - stop_loss) * side.sign if is_positive(stop_loss) else Decimal(0)
    if distance <= 0:
        where = "below" if side is Side.BUY else "above"
        raise Refusal(
            ReasonCode.STOP_LOSS_INVALID,
            f"the stop loss of a {side.value} must lie {where} its entry",
            {"entry": noted(entry), "stop_loss": noted(stop_loss)},
        )
    return distance


def refuse_misplaced(
    side: Side, entry: Decimal, stop_loss: Decimal | None, targets: Iterable[Decimal]
) -> None:
    """Raise Refusal for a stop that is no loss from ``entry``, and for a target that is no gain: the
    position would be closed as soon as it is open.
    """
    if stop_loss is not None:
        stop_distance(side, entry, stop_loss)
    for target in targets:
        if not is_positive(target) or (target - entry) * side.sign <= 0:
            where = "above" if side is Side.BUY else "below"
            raise Refusal(
                ReasonCode.TAKE_PROFIT_INVALID,
                f"the take profit of a {side.value} must lie {where} its entry",
                {"entry": noted(entry), "take_profit": noted(target)},
            )


def collar_bound(side: Side, market: Decimal, fraction: Decimal) -> Decimal:
    """The worst price within ``fraction`` of the market: above it for a buy, below it for a sell."""
    return market + market * fraction * side.sign


def round_price(side: Side, type: OrderType, price: Decimal, tick: Decimal) -> Decimal:
    """``price`` on the venue's grid, at most one tick away, toward less risk.

    ``type`` names the price: ``LIMIT`` for a limit price, ``STOP`` for a trigger; a stop-limit has
    both. A buy limit goes down and a sell limit up: never worse than asked. A sell stop goes up and
    a buy stop down: an exit leaves a tick sooner, an entry starts a tick nearer to its own stop
    loss. Round before sizing, so that what is judged is what is sent. Raises Refusal when nothing
    is left.
    """
    if type not in (OrderType.LIMIT, OrderType.STOP):
        raise ValueError(f"a {type.value} order has no single price to round")
    upward = side is Side.SELL
    if not is_positive(price):
        raise Refusal(ReasonCode.PRICE_MISSING, f"{price} is no price")
    try:
        rounded = ceil_to(price, tick) if upward else floor_to(price, tick)
    except DecimalException as error:
        raise Refusal(ReasonCode.PRICE_MISSING, f"{price} is no price") from error
    if rounded == 0:
        raise Refusal(
            ReasonCode.PRICE_MISSING,
            f"{text(price)} is below one price tick of {text(tick)}",
            {"price": price, "tick": tick},
        )
    return rounded


def _price(value: Decimal | None, name: str) -> Decimal:
    if value is None or not is_positive(value):
        raise Refusal(ReasonCode.PRICE_MISSING, f"the order has no usable {name}")
    return value
