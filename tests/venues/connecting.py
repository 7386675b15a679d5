"""The unmodified ccxt, pointed at a running venue."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import ccxt

from tests.venues.credentials import BINANCE_KEY, BINANCE_SECRET, KRAKEN_KEY, KRAKEN_SECRET

KEYS = {"binance": (BINANCE_KEY, BINANCE_SECRET), "kraken": (KRAKEN_KEY, KRAKEN_SECRET)}
SYMBOLS = {"binance": "BTC/USDT", "kraken": "BTC/USD"}
VENUES = ("binance", "kraken")
TIMEOUT_MS = 400


def connect(base_url: str, name: str, **options: Any) -> Any:
    """An unmodified ccxt client with every URL sent to `base_url`, paths kept."""
    key, secret = KEYS[name]
    settings = {"apiKey": key, "secret": secret, "enableRateLimit": False, "timeout": TIMEOUT_MS}
    exchange = getattr(ccxt, name)(settings | {"options": {"fetchCurrencies": False}} | options)
    exchange.urls["api"] = moved(exchange.urls["api"], base_url)
    return exchange


def moved(urls: Any, base_url: str) -> Any:
    if isinstance(urls, dict):
        return {name: moved(url, base_url) for name, url in urls.items()}
    return base_url + urlsplit(urls).path


def find(exchange: Any, name: str, client_id: str) -> list[dict[str, Any]]:
    """Look an order up by its client id, as each venue allows."""
    symbol, wanted = SYMBOLS[name], {"clientOrderId": client_id}
    if name == "kraken":
        found: list[dict[str, Any]] = exchange.fetch_open_orders(symbol, params=dict(wanted))
        found += exchange.fetch_closed_orders(symbol, params=dict(wanted))
        return found
    try:
        return [exchange.fetch_order(None, symbol, wanted)]
    except ccxt.OrderNotFound:
        return []


def buy(exchange: Any, name: str, client_id: str, price: str | None = None) -> Any:
    kind = "market" if price is None else "limit"
    params = {"clientOrderId": client_id}
    return exchange.create_order(SYMBOLS[name], kind, "buy", "0.5", price, params)
