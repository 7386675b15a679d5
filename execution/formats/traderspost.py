"""TradersPost's signals (docs.traderspost.io, "Signal Message Reference" and ``webhook-spec.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any, Final

from brokers.types import OrderType, TimeInForce
from execution.alerts import REDUCES, Action, Alert, MarketPosition, TakeProfit
from execution.formats.brackets import HUNDRED, away, side_of
from execution.formats.closing import share_of_position
from execution.formats.fks import require_prices
from execution.parsing import MAX_EXPONENT
from execution.schema import Fields
from risk.arithmetic import ARITHMETIC
from risk.types import QuantityType

ACTIONS = {
    "buy": Action.BUY,
    "sell": Action.SELL,
    "exit": Action.CLOSE,
    "cancel": Action.CANCEL,
}
SENTIMENTS = {
    "bullish": MarketPosition.LONG,
    "long": MarketPosition.LONG,
    "bearish": MarketPosition.SHORT,
    "short": MarketPosition.SHORT,
    "flat": MarketPosition.FLAT,
}
UNITS = {
    "fixed_quantity": QuantityType.BASE,
    "dollar_amount": QuantityType.QUOTE,
    "percent_of_equity": QuantityType.PERCENT_OF_EQUITY,
    "risk_percent": QuantityType.RISK_PERCENT,
    "percent_of_position": QuantityType.PERCENT_OF_POSITION,
}
SIDES = {Action.BUY: MarketPosition.LONG, Action.SELL: MarketPosition.SHORT}
"""What a signal ends on that says no quantity: TradersPost exits all of the other side first."""
RISK_AMOUNT = "risk_dollar_amount"
KINDS = {name: name for name in (*UNITS, RISK_AMOUNT)}
NOT_DONE: Final = {
    "delay": "FKS does not delay orders",
    "cancel": "FKS does not cancel before an entry; send a cancel of its own",
    "extendedHours": "FKS does not trade extended hours",
    "ignoreTradingWindows": "trading windows are the operator's",
}
"""What only an entry can ask for."""
OPTIONS: Final = dict.fromkeys(
    ("optionType", "intrinsicValue", "expiration", "strikeCount", "strikesAway", "strikePrice"),
    "options are not supported",
)
"""They say what is traded, and what is closed."""
NO_TRAILING_AMOUNT: Final = {"trailAmount": "a trailing amount is not supported; use trailPercent"}
NO_TRAIL = "a trailing stop loss is not supported; send the stop's price"


def parse(document: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong."""
    fields = Fields(document)
    fields.refuse(OPTIONS)
    action = _action(fields)
    sentiment = _sentiment(fields, action)
    is_flat = sentiment is MarketPosition.FLAT
    ends = is_flat or action in (Action.CLOSE, Action.CANCEL)
    is_whole = is_flat or action is Action.CANCEL
    only_reduces = (action, sentiment) in REDUCES
    is_exit = ends or only_reduces
    asked, kind = _asked(fields, is_whole=is_whole, is_exit=is_exit)
    is_exit |= UNITS.get(kind) is QuantityType.PERCENT_OF_POSITION
    order_type = (
        fields.forgiving(ends).choice("orderType", OrderType, OrderType.MARKET) or OrderType.MARKET
    )
    is_market = order_type is OrderType.MARKET
    ending, of_entry = fields.forgiving(ends), fields.forgiving(is_exit)
    of_entry.refuse(NOT_DONE)
    is_trailing = order_type is OrderType.TRAILING_STOP
    (fields if is_trailing else of_entry).refuse(NO_TRAILING_AMOUNT)
    terms = fields.forgiving(ends or (is_exit and is_market))
    limit, stop = terms.number("limitPrice"), terms.number("stopPrice")
    signal_price, price = of_entry.number("signalPrice"), of_entry.number("price")
    market_price = signal_price or price
    entry = market_price if is_market else limit or stop or market_price
    stop_loss = _stop_loss(of_entry, action, entry)
    quantity, unit = _quantity(fields.forgiving(is_whole), asked, kind, action, entry, stop_loss)
    alert = Alert(
        symbol=fields.text("ticker", most=60, required=True),
        action=action,
        order_type=order_type,
        quantity=quantity,
        quantity_type=unit,
        price=market_price if is_market else limit,
        stop_price=stop,
        stop_loss=stop_loss,
        take_profit=_take_profit(of_entry, action, entry),
        trailing_percent=terms.number("trailPercent", least=Decimal("0.01"), most=HUNDRED),
        time_in_force=of_entry.choice("timeInForce", TimeInForce, TimeInForce.GTC)
        or TimeInForce.GTC,
        reduce_only=only_reduces,
        sent_at=ending.moment("time"),
        idempotency_key=ending.key("id"),
        market_position=sentiment or (SIDES.get(action) if asked is None else None),
        extras=fields.unread(),
    )
    require_prices(
        fields,
        alert,
        price="limitPrice",
        stop_price="stopPrice",
        trailing_percent="trailPercent",
    )
    fields.raise_if_wrong()
    return alert


def _action(fields: Fields) -> Action:
    if str(fields.raw("action")).strip().lower() == "add":
        fields.complain("action", "send buy or sell: add does not say which", "UNSUPPORTED")
        return Action.CANCEL
    return fields.translated("action", ACTIONS, required=True) or Action.CANCEL


def _sentiment(fields: Fields, action: Action) -> MarketPosition | None:
    sentiment = fields.translated("sentiment", SENTIMENTS)
    if sentiment is not None and action not in (Action.BUY, Action.SELL):
        fields.complain("sentiment", "goes with buy and sell only")
    return sentiment


def _asked(fields: Fields, *, is_whole: bool, is_exit: bool) -> tuple[Decimal | None, str]:
    """The quantity and its kind; what closes everything, or cancels, needs neither."""
    asked = fields.forgiving(is_whole).number("quantity")
    needs_no_kind = is_whole or (is_exit and asked is None)
    kind = fields.forgiving(needs_no_kind).translated("quantityType", KINDS)
    return asked, kind or "fixed_quantity"


def _quantity(
    fields: Fields,
    quantity: Decimal | None,
    kind: str,
    action: Action,
    entry: Decimal | None,
    stop_loss: Decimal | None,
) -> tuple[Decimal | None, QuantityType]:
    if kind == RISK_AMOUNT and quantity is not None:
        return _at_risk(fields, quantity, entry, stop_loss), QuantityType.BASE
    unit = UNITS.get(kind, QuantityType.BASE)
    if unit is QuantityType.PERCENT_OF_POSITION and action is Action.CLOSE:
        return share_of_position(quantity)
    return quantity, unit


def _at_risk(
    fields: Fields, amount: Decimal, entry: Decimal | None, stop_loss: Decimal | None
) -> Decimal | None:
    """The quantity that loses ``amount`` between the entry and the stop, rounded down."""
    if entry is None or stop_loss is None or entry == stop_loss:
        detail = f"{RISK_AMOUNT} needs a price and a stop loss away from it"
        fields.complain("quantityType", detail, "PRICE_MISSING")
        return None
    with localcontext(ARITHMETIC):
        quantity = amount / abs(entry - stop_loss)
        return quantity.quantize(Decimal(1).scaleb(-MAX_EXPONENT)).normalize()


def _stop_loss(fields: Fields, action: Action, entry: Decimal | None) -> Decimal | None:
    inner = fields.inner("stopLoss")
    kind = inner.translated("type", {"stop": 1, "stop_limit": 2, "trailing_stop": 3})
    if kind == 2:
        inner.complain("type", "a stop loss is a stop at the market", "UNSUPPORTED")
    if kind == 3:
        inner.complain("type", NO_TRAIL, "UNSUPPORTED")
    inner.refuse({"limitPrice": "a stop loss is a stop at the market"})
    inner.refuse(dict.fromkeys(("trailAmount", "trailPercent"), NO_TRAIL))
    absolute = inner.number("stopPrice")
    percent, amount = (
        inner.number("percent", most=HUNDRED, least=Decimal(0)),
        inner.number("amount"),
    )
    _one_at_most(inner, stopPrice=absolute, percent=percent, amount=amount)
    side = side_of(action)
    relative = away(inner, "percent", side, entry, percent=percent, amount=amount, gain=False)
    return absolute if absolute is not None else relative


def _take_profit(fields: Fields, action: Action, entry: Decimal | None) -> tuple[TakeProfit, ...]:
    inner = fields.inner("takeProfit")
    limit, price = inner.number("limitPrice"), inner.number("price")
    percent, amount = inner.number("percent"), inner.number("amount")
    _one_at_most(inner, limitPrice=limit, price=price, percent=percent, amount=amount)
    side = side_of(action)
    relative = away(inner, "percent", side, entry, percent=percent, amount=amount, gain=True)
    target = limit or price or relative
    return () if target is None else (TakeProfit(target, HUNDRED),)


def _one_at_most(fields: Fields, **given: Decimal | None) -> None:
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        fields.complain(names[1], f"goes not together with {names[0]}")
