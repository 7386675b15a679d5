"""PineConnector's alerts: ``LicenseID,command,symbol,name=value,…`` (docs.pineconnector.com/syntax).

What ``risk=``, ``sl=``, ``tp=`` and ``price=`` mean is a setting of its expert advisor, not of the
alert, and how many units a lot has is the terminal's. Here it is the strategy's ``format_options``;
without them these fields are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

from brokers.types import OrderType
from execution.alerts import Action, Alert, TakeProfit
from execution.formats.brackets import HUNDRED, away, side_of
from execution.formats.fks import require_prices
from execution.schema import Fields
from execution.textual import TextDocument, read_commas, write_commas
from risk.arithmetic import ARITHMETIC, shown
from risk.types import QuantityType

LICENSE = "license"
POSITIONAL = (LICENSE, "command", "symbol")
COMMANDS: dict[str, tuple[Action, OrderType, bool]] = {
    **dict.fromkeys(("buy", "long", "bull", "bullish"), (Action.BUY, OrderType.MARKET, False)),
    **dict.fromkeys(("sell", "short", "bear", "bearish"), (Action.SELL, OrderType.MARKET, False)),
    "buylimit": (Action.BUY, OrderType.LIMIT, False),
    "selllimit": (Action.SELL, OrderType.LIMIT, False),
    "buystop": (Action.BUY, OrderType.STOP, False),
    "sellstop": (Action.SELL, OrderType.STOP, False),
    "closelong": (Action.SELL, OrderType.MARKET, True),
    "closeshort": (Action.BUY, OrderType.MARKET, True),
    "closeall": (Action.CLOSE, OrderType.MARKET, False),
}
"""Action, order type, and whether it only reduces a position of its side."""
NOT_DONE_COMMANDS = {
    **dict.fromkeys(("eaon", "eaoff"), "the expert advisor's switch is not FKS's: use halt"),
    **dict.fromkeys(
        ("newsltplong", "newsltpshort"), "changing the stop of an open position is not supported"
    ),
    **dict.fromkeys(
        ("cancellong", "cancelshort"), "FKS cancels all orders of a symbol, not those of one side"
    ),
    **dict.fromkeys(
        ("closelongsell", "closeshortbuy"), "send the close and the entry as two alerts"
    ),
    **dict.fromkeys(
        ("closelongpct", "closeshortpct", "closelongvol", "closeshortvol"),
        "closing a part is not supported; closelong and closeshort close everything of their side",
    ),
}
NOT_DONE = {
    **dict.fromkeys(("betrigger", "beoffset"), "break-even stops are not supported"),
    **dict.fromkeys(("trailtrig", "traildist", "trailstep"), "trailing stops are not supported"),
    **dict.fromkeys(
        ("atrtimeframe", "atrtrigger", "atrperiod", "atrmultiplier", "atrshift"),
        "trailing stops are not supported",
    ),
    **dict.fromkeys(("spread", "accfilter"), "FKS's own rules decide whether a trade is allowed"),
    **dict.fromkeys(("sl_pips", "tp_pips", "price_pips"), "FKS does not know the size of a pip"),
    "vol_dollar": "an amount at risk in dollars is not supported",
}
READ = frozenset({"vol_lots", "sl_price", "tp_price", "sl_pct", "tp_pct"})
VOLUMES = {one.value: one for one in QuantityType}
TARGETS = ("price",)
CHOICES = {"volume": tuple(VOLUMES), "targets": TARGETS}
"""What ``risk=`` counts; and what ``sl=``, ``tp=`` and ``price=`` are."""
LOT = "lot"
"""The option that says how many units a lot has: FKS counts units."""
MOST_UNITS = Decimal(10) ** 9


def problems(options: Any) -> list[str]:
    """What is wrong with a strategy's ``format_options``, as sentences."""
    if not isinstance(options, Mapping):
        return ['the options are a JSON object: {"volume": "base", "targets": "price"}']
    known = {*CHOICES, LOT}
    found = [f"there is no option {name!r}" for name in sorted(set(options) - known)]
    for name, choices in CHOICES.items():
        if name in options and options[name] not in choices:
            found.append(f"{name} is one of {', '.join(choices)}")
    if LOT in options and _units_per_lot(options) is None:
        found.append('lot is how many units a lot has, as text: "100000", "0.5"')
    return found


def _units_per_lot(options: Mapping[str, Any]) -> Decimal | None:
    try:
        units = Decimal(str(options[LOT]))
    except (KeyError, InvalidOperation):
        return None
    return units if units.is_finite() and 0 < units <= MOST_UNITS else None


def read(body: bytes) -> TextDocument:
    """Raises Unreadable; also for JSON, which its commas would make a list of."""
    document = read_commas(body, POSITIONAL)
    if document[LICENSE].startswith("{"):
        start, _ = document.places[LICENSE]
        raise document.wrong("NOT_A_LIST", "a list of values expected, not JSON", start)
    return document


def write(fields: Mapping[str, str]) -> str:
    return write_commas(fields, POSITIONAL)


def parse(document: Mapping[str, Any], options: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid, listing every field that is wrong."""
    fields = Fields(document)
    action, order_type, only_reduces = _command(fields)
    is_exit = only_reduces or action is Action.CLOSE
    entry = fields.forgiving(is_exit)
    entry.refuse(NOT_DONE)
    side = side_of(action)
    price = _price(entry, "price", options)
    quantity, unit = (None, QuantityType.BASE) if is_exit else _volume(fields, options)
    stop_loss = _target(entry, "sl", options) or away(
        entry, "sl", side, price, percent=entry.number("sl_pct"), gain=False
    )
    target = _target(entry, "tp", options) or away(
        entry, "tp", side, price, percent=entry.number("tp_pct"), gain=True
    )
    if not is_exit:
        _refuse_unknown(fields, document)
    is_stop = order_type is OrderType.STOP
    alert = Alert(
        symbol=fields.text("symbol", most=60, required=True),
        action=action,
        order_type=order_type,
        quantity=quantity,
        quantity_type=unit,
        price=None if is_stop else price,
        stop_price=price if is_stop else None,
        stop_loss=stop_loss,
        take_profit=() if target is None else (TakeProfit(target, HUNDRED),),
        reduce_only=only_reduces,
        sent_at=entry.moment("timestamp"),
        idempotency_key=entry.key("id"),
        comment=entry.text("comment", most=1000),
        extras=fields.unread(),
    )
    require_prices(fields, alert, stop_price="price")
    fields.raise_if_wrong()
    return alert


def _refuse_unknown(fields: Fields, document: Mapping[str, Any]) -> None:
    """An amount nobody knows would change the trade."""
    amounts = ("vol_", "sl_", "tp_")
    names = {name for name in document if name.startswith(amounts)} - READ - NOT_DONE.keys()
    fields.refuse(dict.fromkeys(sorted(names), "FKS does not know this amount"))


def _command(fields: Fields) -> tuple[Action, OrderType, bool]:
    word = fields.text("command", most=40).lower()
    if word in NOT_DONE_COMMANDS:
        fields.complain("command", NOT_DONE_COMMANDS[word], "UNSUPPORTED")
        return Action.CANCEL, OrderType.MARKET, False
    known = fields.translated("command", COMMANDS, required=True)
    return known or (Action.CANCEL, OrderType.MARKET, False)


def _volume(fields: Fields, options: Mapping[str, Any]) -> tuple[Decimal | None, QuantityType]:
    """``quantity``, a field of ours, counts units and ``vol_lots`` lots; what ``risk`` counts, the
    options say.
    """
    given = {name: fields.number(name) for name in ("risk", "vol_lots", "quantity")}
    first, *others = [name for name, value in given.items() if value is not None] or ["quantity"]
    for name in others:
        fields.complain(name, f"the volume is given as {first} already", "DUPLICATE_KEY")
    asked = given[first]
    if first == "vol_lots":
        return _units(fields, asked or Decimal(0), options), QuantityType.BASE
    if first == "quantity":
        return asked, QuantityType.BASE
    unit = VOLUMES.get(str(options.get("volume", "")))
    if unit is None:
        _unset(fields, "risk", "volume")
    return asked, unit or QuantityType.BASE


def _units(fields: Fields, lots: Decimal, options: Mapping[str, Any]) -> Decimal | None:
    units = _units_per_lot(options)
    if units is None:
        detail = "FKS counts units, and the strategy's option 'lot' does not say how many a lot has"
        fields.complain("vol_lots", detail, "UNSUPPORTED")
        return None
    with localcontext(ARITHMETIC):
        return shown(lots * units)


def _price(fields: Fields, name: str, options: Mapping[str, Any]) -> Decimal | None:
    value = fields.number(name)
    if value is not None and options.get("targets") != "price":
        _unset(fields, name, "targets")
    return value


def _target(fields: Fields, name: str, options: Mapping[str, Any]) -> Decimal | None:
    """A stop or target that is a price: by its own name, or because the options say so."""
    plain = _price(fields, name, options)
    is_price = options.get("targets") == "price"
    return fields.number(f"{name}_price") or (plain if is_price else None)


def _unset(fields: Fields, name: str, option: str) -> None:
    detail = f"PineConnector's settings say what it means, and the strategy's option {option!r} not"
    fields.complain(name, detail, "UNSUPPORTED")
