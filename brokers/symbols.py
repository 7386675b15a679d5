"""From what a sender calls a symbol to what an account's venue is asked for. Never a guess: a
table, or a rule that can only mean one thing, or a refusal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from brokers.errors import UnknownSymbolError

QUOTES = (
    "USDT", "USDC", "FDUSD", "USD", "EUR", "GBP", "JPY", "CHF", "AUD", "CAD", "TRY", "BRL", "BTC",
    "ETH", "BNB",
)  # fmt: skip
"""Quote assets a joined symbol may end in; longer ones first where one ends in another.

TUSD and BUSD are not among them: DOTUSD and ARBUSD mean DOT and ARB.
"""
SAME_COIN = {"XBT": "BTC", "XDG": "DOGE"}
DELAYED = ("_DL", "_DLY")
_COINS_OF_THEIR_OWN = frozenset({"FDUSD", "TUSD", "BUSD", "PYUSD", "GUSD"})
_PAIR = re.compile(r"^([A-Z0-9]{1,20})[/\-_]([A-Z0-9]{2,10})$")
_JOINED = re.compile(r"^[A-Z0-9]{4,30}$")


def resolve(text: str, aliases: Iterable[tuple[str, str]] = ()) -> str:
    """The unified symbol (``BTC/USDT``) for ``text``; ``aliases`` (alias, symbol) come first.

    Understands ``BTC/USDT``, ``BTC-USDT``, ``BTCUSDT``, ``BINANCE:BTCUSDT`` and Kraken's ``XBT``.
    Raises UnknownSymbolError for perpetuals, continuous futures and delayed data without an alias.
    """
    wanted = text.strip().upper()
    for alias, symbol in aliases:
        if alias.upper() == wanted:
            return symbol
    exchange, _, ticker = wanted.rpartition(":")
    if exchange.endswith(DELAYED):
        raise UnknownSymbolError(f"{text!r} carries delayed data; FKS does not trade on it")
    if ticker.endswith(".P") or "!" in ticker or "/" in exchange:
        raise UnknownSymbolError(
            f"{text!r} is a derivative: add an alias for the contract you mean"
        )
    match = _PAIR.match(ticker)
    if match:
        return _pair(match[1], match[2])
    if _JOINED.match(ticker) and ticker not in _COINS_OF_THEIR_OWN:
        for quote in QUOTES:
            if ticker.endswith(quote) and len(ticker) > len(quote):
                return _pair(ticker.removesuffix(quote), quote)
    raise UnknownSymbolError(f"{text!r} is not a symbol FKS can place; add an alias for it")


def _pair(base: str, quote: str) -> str:
    return f"{SAME_COIN.get(base, base)}/{SAME_COIN.get(quote, quote)}"
