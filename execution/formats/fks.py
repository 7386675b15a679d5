"""The canonical JSON body, as ``docs/webhook.md`` describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from brokers.types import OrderType, TimeInForce
from execution.alerts import REDUCES, Action, Alert, Algorithm, MarketPosition, TakeProfit
from execution.schema import Fields
from risk.types import QuantityType

HUNDRED = Decimal(100)
MAX_TARGETS = 10
ROUNDED = Decimal("100.01")
"""What percents may add up to that a sender has rounded; the last target takes the rest of 100."""


def parse(document: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong."""
    fields = Fields(document)
    symbol = fields.text("symbol", most=60, required=True)
    action = fields.choice("action", Action, None)
    closes = action in (Action.CLOSE, Action.CANCEL)
    position = fields.forgiving(closes).optional_choice("market_position", MarketPosition)
    ends = closes or position is MarketPosition.FLAT
    reduces = fields.forgiving(ends).flag("reduce_only")
    # With a size, the same words may be an entry: they name the position to end up with.
    has_size = fields.is_given("market_position_size")
    is_exit = ends or reduces or ((action, position) in REDUCES and not has_size)
    is_whole = position is MarketPosition.FLAT or action is Action.CANCEL
    quantity, unit = _quantity(fields, is_whole=is_whole, is_exit=is_exit)
    is_exit |= unit is QuantityType.PERCENT_OF_POSITION
    order_type = (
        fields.forgiving(ends).choice("order_type", OrderType, OrderType.MARKET) or OrderType.MARKET
    )
    ending, entry = fields.forgiving(ends), fields.forgiving(is_exit)
    terms = fields.forgiving(ends or (is_exit and order_type is OrderType.MARKET))
    alert = Alert(
        symbol=symbol,
        action=action or Action.CANCEL,
        order_type=order_type,
        quantity=quantity,
        quantity_type=unit,
        price=terms.number("price"),
        stop_price=terms.number("stop_price"),
        stop_loss=entry.number("stop_loss"),
        take_profit=_take_profit(entry),
        trailing_percent=terms.number("trailing_percent", least=Decimal("0.01"), most=HUNDRED),
        time_in_force=entry.choice("time_in_force", TimeInForce, TimeInForce.GTC)
        or TimeInForce.GTC,
        post_only=entry.flag("post_only"),
        reduce_only=reduces,
        confidence=entry.optional_number("confidence", least=Decimal(0), most=Decimal(1)),
        atr=entry.optional_number("atr"),
        sent_at=ending.moment("timestamp"),
        idempotency_key=ending.key("id"),
        market_position=position,
        market_position_size=entry.number("market_position_size", least=Decimal(0)),
        prev_market_position=entry.known_choice("prev_market_position", MarketPosition),
        prev_market_position_size=entry.optional_number(
            "prev_market_position_size", least=Decimal(0)
        ),
        execution=entry.optional_choice("execution", Algorithm),
        comment=entry.text("comment", most=1000),
        extras=fields.unread(),
    )
    require_prices(fields, alert)
    _require_divisible(entry, alert)
    fields.raise_if_wrong()
    return alert


def _quantity(
    fields: Fields, *, is_whole: bool, is_exit: bool
) -> tuple[Decimal | None, QuantityType]:
    """What closes everything, or cancels, asks for no quantity; a close of a part must name it."""
    quantity = fields.forgiving(is_whole).number("quantity")
    needs_no_unit = is_whole or (is_exit and quantity is None)
    unit = fields.forgiving(needs_no_unit).choice("quantity_type", QuantityType, QuantityType.BASE)
    return quantity, unit or QuantityType.BASE


def _require_divisible(fields: Fields, alert: Alert) -> None:
    """A close is never lost for how it was to be sent: it goes out whole."""
    asked = alert.execution
    if asked is None or alert.action not in (Action.BUY, Action.SELL) or alert.divides_by(asked):
        return
    if asked is Algorithm.TWAP:
        fields.complain("execution", "twap takes market and limit orders that may fill in parts")
    else:
        fields.complain("execution", f"{asked.value} takes limit orders that rest: gtc or day")


def _take_profit(fields: Fields) -> tuple[TakeProfit, ...]:
    """One price, or a list of ``{price, percent}`` that adds up to at most 100 percent."""
    value = fields.raw("take_profit")
    if not isinstance(value, list):
        price = fields.number("take_profit")
        return (TakeProfit(price, HUNDRED),) if price is not None else ()
    if len(value) > MAX_TARGETS:
        fields.complain("take_profit", f"more than {MAX_TARGETS} targets")
        return ()
    targets = []
    for number, item in enumerate(value):
        name = f"take_profit[{number}]"
        if not isinstance(item, Mapping):
            fields.complain(name, "must be an object with price and percent")
            continue
        price = fields.number_of(f"{name}.price", item.get("price"))
        percent = fields.number_of(f"{name}.percent", item.get("percent"))
        if price is None or percent is None:
            fields.complain(name, "needs a price and a percent", "REQUIRED")
            continue
        targets.append(TakeProfit(price, percent))
    return _within_hundred(fields, targets)


def _within_hundred(fields: Fields, targets: Sequence[TakeProfit]) -> tuple[TakeProfit, ...]:
    """Three times 33.333333333333336 is all of the position."""
    total = sum((target.percent for target in targets), Decimal(0))
    if total <= HUNDRED:
        return tuple(targets)
    *others, last = targets
    rest = last.percent - (total - HUNDRED)
    if total > ROUNDED or rest <= 0:
        fields.complain("take_profit", "the percents add up to more than 100")
    return (*others, replace(last, percent=rest))


def require_prices(
    fields: Fields,
    alert: Alert,
    *,
    price: str = "price",
    stop_price: str = "stop_price",
    trailing_percent: str = "trailing_percent",
) -> None:
    """Complain when an order lacks a price its kind needs; the names are the sender's. What ends flat
    goes out at the market instead.
    """
    if alert.wants_flat:
        return
    names = {"price": price, "stop_price": stop_price, "trailing_percent": trailing_percent}
    for missing in alert.missing_prices:
        complaint = f"a {alert.order_type.value} order needs it"
        fields.complain(names[missing], complaint, "REQUIRED")
