"""Reading request parameters the way Binance does, with its complaints."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from tests.venues.binance.errors import BinanceError, missing
from tests.venues.binance.rules import INSTRUMENTS, PRECISION
from tests.venues.market import Instrument

Params = Mapping[str, str]


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def instrument_of(params: Params) -> Instrument:
    symbol = params.get("symbol", "")
    if not symbol:
        raise missing("symbol")
    if symbol not in INSTRUMENTS:
        raise BinanceError(-1121)
    return INSTRUMENTS[symbol]


def choice(params: Params, name: str, legal: tuple[str, ...], code: int) -> str:
    if not params.get(name):
        raise missing(name)
    if params[name] not in legal:
        raise BinanceError(code)
    return params[name]


def integer(params: Params, name: str, default: int) -> int:
    text = params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()):
        raise missing(name)
    return int(text)


def decimal(name: str, text: str) -> Decimal:
    """A positive decimal parameter of at most eight places."""
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if not (whole and digits.isascii() and digits.isdigit() and len(text) <= 40):
        raise BinanceError(
            -1100,
            f"Illegal characters found in parameter '{name}'; "
            "legal range is '^([0-9]{1,20})(\\.[0-9]{1,20})?$'.",
        )
    if len(fraction.rstrip("0")) > PRECISION:
        raise BinanceError(-1111, f"Parameter '{name}' has too much precision.")
    value = Decimal(text)
    if value <= 0:
        raise BinanceError(-1013, f"Invalid {name}.")
    return value
