"""What senders call a symbol, and what it is."""

from __future__ import annotations

import pytest

from brokers.errors import DelayedDataError, UnknownSymbolError
from brokers.symbols import QUOTES, Shares, resolve


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
        ("BINANCE:BTCUSDT.P", "BTC/USDT:USDT"),
        ("BTCUSDC.P", "BTC/USDC:USDC"),
        ("BTC-USDT-SWAP", "BTC/USDT:USDT"),
        ("btc/usdt:usdt", "BTC/USDT:USDT"),
        ("OKX:BTC/USDT:USDT", "BTC/USDT:USDT"),
        ("BTC/USD:BTC-261225", "BTC/USD:BTC-261225"),
        ("FX:EURUSD", "EUR/USD"),
        ("EURUSD.m", "EUR/USD"),
        ("EURNZD.pro", "EUR/NZD"),
        ("EURUSD_i", "EUR/USD"),
        ("EURUSD-ECN", "EUR/USD"),
        ("XAUUSD#", "XAU/USD"),
        ("GBPJPY+", "GBP/JPY"),
        ("OANDA:XAUUSD", "XAU/USD"),
        ("USDTRY", "USD/TRY"),
        ("CAD/JPY", "CAD/JPY"),
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
        "ES1!",
        "CME_MINI:ES1!",
        "BTCUSD.P",
        "BTC-USD-SWAP",
        "EURUSDm",
        "EURUSD.P",
        "EURUSD#m",
        "EUREUR",
        "US30.Cash",
        ".P",
        "BTC/USDT:USDT:USDT",
        "BTC USDT",
        "BTC/USDT/EUR",
        "{{ticker}}",
        "ＢＴＣＵＳＤＴ",
        "bıtusdt",
        "ſolusdt",
        "ßusdt",
        "BTC/ﬁl",
        "BTC/USDT:USDT-２６１２２５",
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
    aliases = [("bybit:btcusdt.p", "BTC/USDC:USDC"), ("ETHUSD", "ETH/USDC"), ("ETHUSD", "no")]
    assert resolve("BYBIT:BTCUSDT.P", aliases) == "BTC/USDC:USDC"
    assert resolve("ethusd", aliases) == "ETH/USDC"
    assert resolve("BTCUSD", aliases) == "BTC/USD"


def test_an_alias_is_no_other_one_whose_capitals_look_alike() -> None:
    aliases = [("SOLUSDT", "SOL/USDC"), ("grün", "GRN/USDT"), ("SSUSDT", "SS/USDC")]
    assert resolve("grün", aliases) == "GRN/USDT"
    for text in ("ſOLUSDT", "ßUSDT", "BINANCE:ſOLUSDT"):
        with pytest.raises(UnknownSymbolError):
            resolve(text, aliases)


def test_an_alias_of_the_ticker_holds_on_every_exchange_after_that_of_the_whole_text() -> None:
    aliases = [("ES1!", "ES/USD:USD-261218"), ("CME:ES1!", "ES/USD:USD-270319")]
    assert resolve("CME_MINI:ES1!", aliases) == "ES/USD:USD-261218"
    assert resolve("CME:ES1!", aliases) == "ES/USD:USD-270319"


@pytest.mark.parametrize("text", ["NASDAQ_DL:BTCUSD", "NASDAQ_DLY:BTCUSD", "nymex_dl:BTCUSD"])
def test_delayed_data_are_refused_unless_they_are_allowed(text: str) -> None:
    with pytest.raises(DelayedDataError) as refused:
        resolve(text, [("BTCUSD", "BTC/USDC")])
    assert refused.value.code == "DELAYED_DATA"
    assert resolve(text, allows_delayed=True) == "BTC/USD"
    assert resolve(text, [(text, "BTC/EUR")]) == "BTC/EUR"


@pytest.mark.parametrize("quote", QUOTES)
def test_no_quote_asset_hides_behind_another(quote: str) -> None:
    assert resolve(f"XYZW{quote}") == f"XYZW/{quote}"


@pytest.mark.parametrize("shares", [Shares.ALSO, Shares.ONLY])
@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("AAPL", "AAPL/USD"),
        ("NASDAQ:AAPL", "AAPL/USD"),
        ("NYSE:BRK.B", "BRK.B/USD"),
        ("brk-b", "BRK.B/USD"),
        ("AMEX:SPY", "SPY/USD"),
        ("AAPL/USD", "AAPL/USD"),
        ("BRK.B/USD", "BRK.B/USD"),
        ("NYSE:BRK.B/USD", "BRK.B/USD"),
    ],
)
def test_a_lone_ticker_is_a_share_where_shares_trade(
    text: str, symbol: str, shares: Shares
) -> None:
    assert resolve(text, shares=shares) == symbol


@pytest.mark.parametrize(
    "text",
    [
        "COINBASE:ETHUSD",
        "ETHUSD",
        "SOL-USD",
        "LINK_USD",
        "COINBASE:ETH/USD",
        "BINANCE:BTCUSDT",
        "BINANCE:BTCUSDT.P",
        "BTC-USDT-SWAP",
        "OKX:BTC/USDT:USDT",
    ],
)
def test_the_ticker_of_a_coin_is_not_the_share_of_the_same_letters(text: str) -> None:
    with pytest.raises(UnknownSymbolError):
        resolve(text, shares=Shares.ONLY)
    assert resolve(text, [(text, "ETHE/USD")], shares=Shares.ONLY) == "ETHE/USD"


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("FX_IDC:NOKUSD", "NOK/USD"),
        ("NOKUSD.m", "NOK/USD"),
        ("EUR-USD", "EUR/USD"),
        ("XAU_USD", "XAU/USD"),
        ("OANDA:NAS100USD", "NAS100/USD"),
        ("DE40EUR", "DE40/EUR"),
        ("OANDA:US500/USD", "US500/USD"),
        ("CME:ES/USD:USD-261218", "ES/USD:USD-261218"),
        ("COINBASE:BTCUSD", "BTC/USD"),
        ("BINANCE:BTC/USDT", "BTC/USDT"),
        ("XBTUSD", "BTC/USD"),
        ("XBT/USD", "BTC/USD"),
        ("XDG/USD", "DOGE/USD"),
    ],
)
def test_other_things_trade_beside_shares_where_somebody_listed_them(
    text: str, symbol: str
) -> None:
    assert resolve(text, shares=Shares.ALSO) == symbol


@pytest.mark.parametrize("text", ["XBT/USD", "XDG/USD"])
def test_what_is_written_out_is_a_share_where_there_is_nothing_else(text: str) -> None:
    assert resolve(text, shares=Shares.ONLY) == text


@pytest.mark.parametrize("text", ["FX_IDC:NOKUSD", "NOKUSD", "NOKUSD.m", "NAS100USD", "EUR-USD"])
def test_nothing_trades_beside_shares_where_there_is_nothing_else(text: str) -> None:
    with pytest.raises(UnknownSymbolError):
        resolve(text, shares=Shares.ONLY)


@pytest.mark.parametrize("text", ["AAPL", "NASDAQ:AAPL"])
def test_elsewhere_a_lone_ticker_is_nothing(text: str) -> None:
    with pytest.raises(UnknownSymbolError):
        resolve(text)


def test_shares_of_another_exchange_and_delayed_ones_are_refused() -> None:
    with pytest.raises(UnknownSymbolError):
        resolve("TSX:SHOP", shares=Shares.ONLY)
    with pytest.raises(DelayedDataError):
        resolve("NASDAQ_DLY:AAPL", shares=Shares.ONLY)
    assert resolve("NASDAQ_DLY:AAPL", shares=Shares.ONLY, allows_delayed=True) == "AAPL/USD"
