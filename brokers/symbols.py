"""From what a sender calls a symbol to what an account's venue is asked for. Never a guess: a
table, or a rule that can only mean one thing, or a refusal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from brokers.errors import DelayedDataError, UnknownSymbolError

QUOTES = (
    "USDT", "USDC", "FDUSD", "USD", "EUR", "GBP", "JPY", "CHF", "AUD", "CAD", "TRY", "BRL", "BTC",
    "ETH", "BNB",
)  # fmt: skip
"""Quote assets a joined symbol may end in; longer ones first where one ends in another.

TUSD and BUSD are not among them: DOTUSD and ARBUSD mean DOT and ARB.
"""
SAME_COIN = {"XBT": "BTC", "XDG": "DOGE"}
DELAYED = ("_DL", "_DLY")
LINEAR = ("USDT", "USDC")
"""Quotes whose perpetuals settle in the quote itself on every venue; others may settle in the coin."""
CURRENCIES = frozenset(
    (
        "USD", "EUR", "GBP", "JPY", "CHF", "AUD", "CAD", "NZD", "SEK", "NOK", "DKK",
        "SGD", "HKD", "MXN", "ZAR", "PLN", "HUF", "CZK", "TRY", "CNH", "THB", "ILS",
        "XAU", "XAG", "XPT", "XPD",
    )
)  # fmt: skip
"""Currencies and metals: two of them in a row are a pair, whatever suffix a broker hangs on it."""
_COINS_OF_THEIR_OWN = frozenset({"FDUSD", "TUSD", "BUSD", "PYUSD", "GUSD"})
_PAIR = re.compile(r"^([A-Z0-9]{1,20})[/\-_]([A-Z0-9]{2,10})$")
_JOINED = re.compile(r"^[A-Z0-9]{4,30}$")
_CONTRACT = re.compile(r"^[A-Z0-9]{1,20}/[A-Z0-9]{2,10}:[A-Z0-9]{2,10}(?:-[0-9]{6})?$")
_SWAP = re.compile(r"^([A-Z0-9]{1,20})-([A-Z0-9]{2,10})-SWAP$")
_SHARE = re.compile(r"^[A-Z]{1,5}([.\-][A-Z]{1,2})?$")
_WRITTEN_OUT = re.compile(r"^[A-Z0-9.]{1,20}/[A-Z0-9]{2,10}$")
SHARE_EXCHANGES = frozenset({"", "NASDAQ", "NYSE", "AMEX", "NYSEARCA", "BATS", "CBOE", "OTC"})
"""How TradingView names where US shares are listed."""
_FOREX = re.compile(r"^([A-Z]{3})/?([A-Z]{3})(?:[._\-](?!(?:P|PERP|SWAP)$)[A-Z]{1,6}|[#+])?$")
"""With the suffix a broker of MetaTrader hangs on it, where a sign tells it from the pair."""


class Shares(StrEnum):
    """What a lone ticker is on an account: nothing; a share beside other things, which somebody has
    listed one by one; or a share, and there is nothing else.
    """

    NONE = ""
    ALSO = "also"
    ONLY = "only"


def resolve(
    text: str,
    aliases: Iterable[tuple[str, str]] = (),
    *,
    allows_delayed: bool = False,
    shares: Shares = Shares.NONE,
) -> str:
    """The unified symbol (``BTC/USDT``) for ``text``; ``aliases`` (alias, symbol) come first, those
    of the whole text before those of the ticker alone.

    Understands ``BTC/USDT``, ``BTC-USDT``, ``BTCUSDT``, ``BINANCE:BTCUSDT``, Kraken's ``XBT``,
    linear perpetuals (``BTCUSDT.P``, ``BTC-USDT-SWAP``, ``BTC/USDT:USDT``) and currency pairs with a
    broker's suffix (``EURUSD.m``, ``EURUSD-ECN``, ``EURUSD#``). With ``shares`` a US ticker
    (``NASDAQ:AAPL``, ``BRK.B``) is that share for dollars, and where there is nothing else the ticker
    of a coin is nothing: the base of ``COINBASE:ETHUSD`` is a share of its own. Continuous futures
    (``ES1!``) need an alias that says which contract. Raises UnknownSymbolError, and DelayedDataError
    for exchanges whose data come late.
    """
    wanted = _folded(text)
    known = [(_folded(alias), symbol) for alias, symbol in aliases]
    for alias, symbol in known:
        if alias == wanted:
            return symbol
    exchange, ticker = _split(wanted)
    if exchange.endswith(DELAYED) and not allows_delayed:
        raise DelayedDataError(f"{text!r} carries delayed data; the strategy does not trade on it")
    for alias, symbol in known:
        if alias == ticker:
            return symbol
    if "!" in ticker:
        raise UnknownSymbolError(
            f"{text!r} is a continuous future: add an alias that names its contract, with dates"
        )
    may_be_share = bool(shares) and _is_share_exchange(exchange)
    found = _share(ticker) if may_be_share else ""
    if not found and shares is not Shares.ONLY:
        found = ticker if _CONTRACT.match(ticker) else _perpetual(ticker) or _spot(ticker)
    if not found and may_be_share:
        found = _written_out(ticker)
    if not found:
        raise UnknownSymbolError(f"{text!r} is not a symbol FKS can place; add an alias for it")
    return found


def is_named(text: str, alias: str) -> bool:
    """Whether ``alias`` stands for ``text``: for the whole of it, or for its ticker."""
    return _folded(alias) in (_folded(text), ticker_of(text))


def ticker_of(text: str) -> str:
    """What ``text`` names, however it is written and whatever exchange it comes from."""
    return _split(_folded(text))[1]


def exchange_of(text: str) -> str:
    """The exchange ``text`` names, if it names one."""
    return _split(_folded(text))[0]


def _folded(text: str) -> str:
    """``text`` as it is compared. Only ASCII letters have a case here: ``upper`` makes an I of a ``ı``
    and an S of a ``ſ``, which would be another symbol; what holds other characters is its alias only
    letter by letter.
    """
    return text.strip().upper() if text.isascii() else text.strip()


def squashed(text: str) -> str:
    """The letters and digits of a symbol without its exchange: what near misses are compared by."""
    return re.sub(r"[^A-Z0-9]", "", _split(text.strip().upper())[1].partition(":")[0])


def _split(wanted: str) -> tuple[str, str]:
    """Exchange and ticker; the colon of ``BTC/USDT:USDT`` belongs to the ticker."""
    exchange, _, ticker = wanted.partition(":")
    return ("", wanted) if not ticker or "/" in exchange else (exchange, ticker)


def _is_share_exchange(exchange: str) -> bool:
    return exchange.removesuffix("_DLY").removesuffix("_DL") in SHARE_EXCHANGES


def _share(ticker: str) -> str:
    return f"{ticker.replace('-', '.')}/USD" if _SHARE.match(ticker) else ""


def _written_out(ticker: str) -> str:
    """What is written out as FKS itself writes it."""
    return ticker if _WRITTEN_OUT.match(ticker) or _CONTRACT.match(ticker) else ""


def _perpetual(ticker: str) -> str:
    swap = _SWAP.match(ticker)
    if swap:
        pair = _pair(swap[1], swap[2])
    elif ticker.endswith(".P"):
        pair = _spot(ticker.removesuffix(".P"))
    else:
        return ""
    quote = pair.rpartition("/")[2]
    return f"{pair}:{quote}" if quote in LINEAR else ""


def _spot(ticker: str) -> str:
    forex = _FOREX.match(ticker)
    if forex and forex[1] != forex[2] and {forex[1], forex[2]} <= CURRENCIES:
        return f"{forex[1]}/{forex[2]}"
    match = _PAIR.match(ticker)
    if match:
        return _pair(match[1], match[2])
    if _JOINED.match(ticker) and ticker not in _COINS_OF_THEIR_OWN:
        for quote in QUOTES:
            if ticker.endswith(quote) and ticker not in (quote, 2 * quote):
                return _pair(ticker.removesuffix(quote), quote)
    return ""


def _pair(base: str, quote: str) -> str:
    return f"{SAME_COIN.get(base, base)}/{SAME_COIN.get(quote, quote)}"
