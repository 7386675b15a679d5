"""Shaped after the vendor's package MetaTrader5 5.0.6231: names, rows, argument checks, last_error.

Like the real one it holds one connection per process to a terminal that lives elsewhere; here that is
`tests.brokers.terminals.mt5`, whose address is in ``FKS_TEST_TERMINAL``.
"""

from __future__ import annotations

import json
import os
from collections import namedtuple
from datetime import datetime
from multiprocessing.connection import Client
from pathlib import Path

_SURFACE = json.loads((Path(__file__).parent / "mt5_surface.json").read_text())
globals().update(_SURFACE["constants"])
_ROWS = {name: namedtuple(name, fields) for name, fields in _SURFACE["rows"].items()}
_FLOATS = ("volume", "price", "stoplimit", "sl", "tp")
_WHOLE = (
    "action", "magic", "order", "type", "type_filling", "type_time", "deviation", "expiration",
    "position", "position_by",
)  # fmt: skip
_LONGEST = 29
_OK = (1, "Success")
_connection = None
_error = _OK


def initialize(path=None, **_named):
    global _connection, _error
    host, _, port = os.environ["FKS_TEST_TERMINAL"].rpartition(":")
    try:
        _connection = Client((host, int(port)), authkey=b"terminal")
    except OSError:
        _error = (-10004, "No IPC connection")
        return False
    _error = _OK
    return True


def shutdown():
    global _connection
    if _connection is not None:
        _connection.close()
    _connection = None


def last_error():
    return _error


def _call(name, *arguments, **named):
    global _error, _connection
    if _connection is None:
        _error = (-10004, "No IPC connection")
        return None
    try:
        _connection.send((name, arguments, named))
        answer, _error = _connection.recv()
    except (OSError, EOFError):
        _connection, _error = None, (-10002, "IPC recv failed")
        return None
    return _made(answer)


def _made(answer):
    if isinstance(answer, list):
        return tuple(_made(one) for one in answer)
    if isinstance(answer, tuple):
        name, values = answer
        if "request" in values:
            empty = dict.fromkeys(_SURFACE["rows"]["TradeRequest"], 0)
            values = {**values, "request": _ROWS["TradeRequest"](**{**empty, **values["request"]})}
        return _ROWS[name](**values)
    return answer


def _fault(request):
    """The field the package's own checks refuse."""
    for name in ("comment", "symbol"):
        value = request.get(name, "")
        if not isinstance(value, str) or len(value) > _LONGEST:
            return name
    for name in _FLOATS:
        if name in request and not isinstance(request[name], float):
            return name
    for name in _WHOLE:
        if name in request and not isinstance(request[name], int):
            return name
    foreign = set(request) - set(_SURFACE["rows"]["TradeRequest"])
    return next(iter(foreign), None)


def _trade(name, request):
    global _error
    field = _fault(request)
    if field is not None:
        _error = (-2, f'Invalid "{field}" argument')
        return None
    return _call(name, request)


def order_check(request):
    return _trade("order_check", request)


def order_send(request):
    return _trade("order_send", request)


def _history(name, dates, named):
    global _error
    if dates and (len(dates) != 2 or not all(isinstance(d, datetime | int) for d in dates)):
        _error = (-2, "Invalid params")
        return None
    if set(named) - {"ticket", "position", "group"} or not (dates or named):
        _error = (-2, "Invalid params")
        return None
    stamps = [d.timestamp() if isinstance(d, datetime) else d for d in dates]
    return _call(name, *stamps, **named)


def history_orders_get(*dates, **named):
    return _history("history_orders_get", dates, named)


def history_deals_get(*dates, **named):
    return _history("history_deals_get", dates, named)


def terminal_info():
    return _call("terminal_info")


def account_info():
    return _call("account_info")


def symbol_info(symbol):
    return _call("symbol_info", symbol)


def symbol_info_tick(symbol):
    return _call("symbol_info_tick", symbol)


def market_book_add(symbol):
    return _call("market_book_add", symbol)


def market_book_get(symbol):
    return _call("market_book_get", symbol)


def symbol_select(symbol, enable=True):
    return _call("symbol_select", symbol, enable)


def orders_get(**named):
    return _call("orders_get", **named)


def positions_get(**named):
    return _call("positions_get", **named)
