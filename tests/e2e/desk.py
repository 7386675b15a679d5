"""An account and a strategy of a running product, at a loopback venue."""

from __future__ import annotations

from typing import Any

from tests.e2e.product import Product
from tests.venues.client import RunningVenue
from tests.venues.credentials import BINANCE_KEY, BINANCE_SECRET, OANDA_TOKEN
from tests.venues.oanda.rules import ACCOUNT

_SET_UP = """
from decimal import Decimal
from brokers.accounts import create_account
from execution.strategies import create_strategy
from risk.limits import set_limit

set_limit("max_position_value", Decimal(1_000_000), reason="test")
create_account({name!r}, broker={broker!r}, environment="sandbox", options={options!r},
               credentials={credentials!r})
made = create_strategy("test", accounts=[{name!r}], options={{"allowlist": "none"}})
answer = f"/webhook/test/{{made.secret}}"
"""


def binance_desk(product: Product, venue: RunningVenue, **options: Any) -> str:
    """The account ``binance``; returns the webhook's path with its token."""
    options = {"exchange": "binance", "base_url": venue.base_url} | options
    keys = {"api_key": BINANCE_KEY, "api_secret": BINANCE_SECRET}
    return _set_up(product, "binance", "ccxt", options, keys)


def oanda_desk(product: Product, venue: RunningVenue) -> str:
    """The account ``oanda``, at a venue that keeps positions; returns the webhook's path."""
    options = {"base_url": venue.base_url, "account": ACCOUNT}
    return _set_up(product, "oanda", "oanda", options, {"api_key": OANDA_TOKEN})


def _set_up(
    product: Product,
    name: str,
    broker: str,
    options: dict[str, Any],
    credentials: dict[str, str],
) -> str:
    code = _SET_UP.format(name=name, broker=broker, options=options, credentials=credentials)
    return str(product.within(code))
