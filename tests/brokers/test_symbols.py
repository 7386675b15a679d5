"""What senders call a symbol, and what it is."""

from __future__ import annotations

import pytest

from brokers.errors import UnknownSymbolError
from brokers.symbols import QUOTES, resolve


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("BTC/USDT", "BTC/USDT"),
        ("btc/usdt", "BTC/USDT"),
        (" BTC-USDT ", "BTC/USDT"),
        ("BTC_USDT", "BTC/USDT"),
        ("BTCUSDT", "BTC/USDT"),
        ("BINANCE:BTCUSDT", "BTC/USDT"),
        ("KRAKEN:XBTUSD", "BTC/USD"),
        ("XBT/EUR", "BTC/EUR"),
        ("XDGUSD", "DOGE/USD"),
        ("DOTUSD", "DOT/USD"),
        ("BATUSD", "BAT/USD"),
        ("BNBUSD", "BNB/USD"),
        ("ARBUSD", "ARB/USD"),
        ("BTCFDUSD", "BTC/FDUSD"),
        ("ETHUSDC", "ETH/USDC"),
        ("ETHBTC", "ETH/BTC"),
        ("1INCHUSDT", "1INCH/USDT"),
        ("USDTUSD", "USDT/USD"),
        ("BTC/TUSD", "BTC/TUSD"),
    ],
)
def test_a_symbol_that_can_only_mean_one_thing(text: str, symbol: str) -> None:
    assert resolve(text) == symbol


@pytest.mark.parametrize(
    "text",
    [
        "",
        "BTC",
        "AAPL",
        "USDT",
        "FDUSD",
        "TUSD",
        "BTCUSDT.P",
        "BYBIT:BTCUSDT.P",
        "ES1!",
        "CME_MINI:ES1!",
        "BTC/USDT:USDT",
        "BTC/BUSD:BUSD",
        "BTC/FDUSD:FDUSD",
        "NASDAQ_DL:BTCUSD",
        "NASDAQ_DLY:BTCUSD",
        "BTC USDT",
        "BTC/USDT/EUR",
        "{{ticker}}",
        "ＢＴＣＵＳＤＴ",
        "BTCUSDT\n;DROP",
        "A" * 100 + "USDT",
    ],
)
def test_everything_else_is_refused_and_named(text: str) -> None:
    with pytest.raises(UnknownSymbolError) as refused:
        resolve(text)
    assert repr(text) in str(refused.value)
    assert refused.value.code == "UNKNOWN_SYMBOL"


def test_an_alias_comes_before_every_rule() -> None:
    aliases = [("bybit:btcusdt.p", "BTC/USDT:USDT"), ("ETHUSD", "ETH/USDC"), ("ETHUSD", "no")]
    assert resolve("BYBIT:BTCUSDT.P", aliases) == "BTC/USDT:USDT"
    assert resolve("ethusd", aliases) == "ETH/USDC"
    assert resolve("BTCUSD", aliases) == "BTC/USD"


@pytest.mark.parametrize("quote", QUOTES)
def test_no_quote_asset_hides_behind_another(quote: str) -> None:
    assert resolve(f"XYZW{quote}") == f"XYZW/{quote}"
