"""An account and a strategy of a running product, at a loopback venue."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from tests.brokers.contract import KEYS
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
_SET_UP_GROUP = """
from decimal import Decimal
from brokers.accounts import create_account
from execution.strategies import create_strategy
from risk.limits import set_limit

set_limit("max_position_value", Decimal(1_000_000), reason="test")
for name, url, keys in {accounts!r}:
    create_account(name, broker="ccxt", environment="sandbox",
                   options={{"exchange": name, "base_url": url}},
                   credentials=dict(zip(("api_key", "api_secret"), keys)))
names = [name for name, _, _ in {accounts!r}]
options = {{"allowlist": "none", "route_group": "best"}}
made = create_strategy("test", accounts=names, options=options)
answer = f"/webhook/test/{{made.secret}}"
"""


@contextmanager
def signed_in(product: Product) -> Iterator[httpx.Client]:
    """A browser in which the admin of the first start has logged in."""
    found = re.search(r"password (\S+)", product.printed_first)
    assert found is not None
    host = f"http://127.0.0.1:{product.port}"
    with httpx.Client(base_url=host, follow_redirects=True, timeout=30) as browser:
        browser.get("/admin/login/")
        form = {"username": "admin", "password": found[1], "next": "/admin/"}
        form["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
        assert browser.post("/admin/login/", data=form).status_code == 200
        yield browser


def routed_desk(product: Product, venues: Mapping[str, RunningVenue]) -> str:
    """An account at each exchange, all of one routing group; returns the webhook's path."""
    accounts = [(name, venue.base_url, KEYS[name]) for name, venue in venues.items()]
    return str(product.within(_SET_UP_GROUP.format(accounts=accounts)))


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
