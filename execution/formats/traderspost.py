"""TradersPost's signals (docs.traderspost.io, "Signal Message Reference" and ``webhook-spec.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any, Final

from brokers.types import OrderType, TimeInForce
from execution.alerts import Action, Alert, MarketPosition, TakeProfit
from execution.formats.brackets import HUNDRED, away, side_of
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
RISK_AMOUNT = "risk_dollar_amount"
NOT_DONE: Final = {
    "delay": "FKS does not delay orders",
    "cancel": "FKS does not cancel before an entry; send a cancel of its own",
    "extendedHours": "FKS does not trade extended hours",
    "ignoreTradingWindows": "trading windows are the operator's",
    "trailAmount": "a trailing amount is not supported; use trailPercent",
    "optionType": "options are not supported",
    "intrinsicValue": "options are not supported",
    "expiration": "options are not supported",
    "strikeCount": "options are not supported",
    "strikesAway": "options are not supported",
    "strikePrice": "options are not supported",
}
NO_TRAIL = "a trailing stop loss is not supported; send the stop's price"


def parse(document: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong."""
    fields = Fields(document)
    fields.refuse(NOT_DONE)
    action = _action(fields)
    sentiment = _sentiment(fields, action)
    fields.tolerates_missing = sentiment is MarketPosition.FLAT
    asked = fields.number("quantity")
    fields.tolerates_missing |= action in (Action.CLOSE, Action.CANCEL)
    order_type = fields.choice("orderType", OrderType, OrderType.MARKET) or OrderType.MARKET
    is_market = order_type is OrderType.MARKET
    limit, stop = fields.number("limitPrice"), fields.number("stopPrice")
    signal_price, price = fields.number("signalPrice"), fields.number("price")
    market_price = signal_price or price
    entry = market_price if is_market else limit or stop or market_price
    stop_loss = _stop_loss(fields, action, entry)
    quantity, unit = _quantity(fields, asked, action, entry, stop_loss)
    alert = Alert(
        symbol=fields.text("ticker", most=60, required=True),
        action=action,
        order_type=order_type,
        quantity=quantity,
        quantity_type=unit,
        price=market_price if is_market else limit,
        stop_price=stop,
        stop_loss=stop_loss,
        take_profit=_take_profit(fields, action, entry),
        trailing_percent=fields.number("trailPercent", least=Decimal("0.01"), most=HUNDRED),
        time_in_force=fields.choice("timeInForce", TimeInForce, TimeInForce.GTC) or TimeInForce.GTC,
        reduce_only=_only_reduces(action, sentiment),
        sent_at=fields.moment("time"),
        idempotency_key=fields.key("id"),
        market_position=sentiment,
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


def _only_reduces(action: Action, sentiment: MarketPosition | None) -> bool:
    """A sell that may end long or flat, and a buy that may end short or flat, opens nothing."""
    return (action, sentiment) in (
        (Action.SELL, MarketPosition.LONG),
        (Action.BUY, MarketPosition.SHORT),
    )


def _quantity(
    fields: Fields,
    quantity: Decimal | None,
    action: Action,
    entry: Decimal | None,
    stop_loss: Decimal | None,
) -> tuple[Decimal | None, QuantityType]:
    kinds = {name: name for name in (*UNITS, RISK_AMOUNT)}
    kind = fields.translated("quantityType", kinds) or "fixed_quantity"
    if kind == RISK_AMOUNT and quantity is not None:
        return _at_risk(fields, quantity, entry, stop_loss), QuantityType.BASE
    unit = UNITS.get(kind, QuantityType.BASE)
    if unit is QuantityType.PERCENT_OF_POSITION and (action, quantity) == (Action.CLOSE, HUNDRED):
        return None, QuantityType.BASE  # everything: it overtakes what it makes void
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
