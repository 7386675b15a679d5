"""A list without what nobody reads trades like the whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ccxt
import pytest

from brokers import client_pool
from brokers.exchanges import ExchangeProfile, profile_for
from brokers.library import library
from brokers.library_reading import _facts_in, facts_read
from brokers.markets import MarketCache
from brokers.plugins.ccxt import CcxtPlugin
from brokers.symbol_lists import SymbolList
from brokers.types import AccountConfig, Environment, Outcome
from brokers.venue_client import VenueClient
from tests.brokers.test_wire import (
    BY_REQUESTS,
    INFO,
    asked,
    intents,
    market_of,
    plugin_of,
    secret_of,
    symbol_of,
    told,
)

__all__ = ["asked"]

JUNK = {"nobodyReadsThis": ["x"] * 50}
TIER_3 = [profile_for(name) for name in ("mexc", "cryptocom", "bitrue", "bitstamp", "phemex")]


def listed(monkeypatch: pytest.MonkeyPatch, *, whole: bool) -> list[SymbolList]:
    """From now on accounts get lists with this much of each market; the lists they got."""
    given: list[SymbolList] = []

    def load(client: VenueClient, facts: frozenset[str] | None) -> SymbolList:
        market = market_of(client.ccxt, client.profile)
        client.ccxt.set_markets([market | {"info": INFO | JUNK}])
        client.ccxt.options |= {"hip3TokensByName": {}, "cachedCurrenciesById": {}}
        given.append(SymbolList.of(client.ccxt, None if whole else facts))
        return given[-1]

    monkeypatch.setattr(client_pool, "MARKETS", MarketCache())
    monkeypatch.setattr(client_pool, "load_markets", load)
    return given


def seen(profile: ExchangeProfile, asked: list[tuple[str, str]]) -> dict[str, Any]:
    """What an account makes of its list: rules, fees, and the request of each order."""
    plugin = plugin_of(profile, **({} if profile.verified else {"unverified_venue": True}))
    symbol = symbol_of(profile)
    found: dict[str, Any] = {
        "rules": plugin.instrument(symbol),
        "fees": plugin.trading_fees(symbol),
    }
    for name, request in intents(profile).items():
        asked.clear()
        result = plugin.execute_order(request)
        found[name] = (result.outcome, result.code)
        if profile.verified:
            assert result.outcome is Outcome.UNKNOWN, result
            found[name] = told(profile, result.evidence)
    return found


@pytest.mark.parametrize("profile", [*BY_REQUESTS, *TIER_3], ids=lambda p: p.label)
def test_an_account_makes_the_same_of_a_slim_list(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, str]], profile: ExchangeProfile
) -> None:
    everything = listed(monkeypatch, whole=True)
    known = seen(profile, asked)
    kept = listed(monkeypatch, whole=False)
    assert seen(profile, asked) == known
    (large,), (small,) = everything[:1], kept[:1]
    symbol, facts = symbol_of(profile), library()[profile.id].market_facts
    assert large.markets[symbol]["info"] == INFO | JUNK
    expected = INFO | JUNK if facts is None else {k: INFO[k] for k in INFO if k in facts}
    assert small.markets[symbol] == large.markets[symbol] | {"info": expected}


def test_what_the_library_reads_is_kept(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, str]]
) -> None:
    """Binance's order types are among it: without them ccxt refuses the stops."""
    profile = profile_for("binanceusdm", "swap")
    listed(monkeypatch, whole=False)
    plugin = plugin_of(profile)
    plugin._dialect.market_facts = frozenset()
    with plugin._pool.private() as client:
        client.ccxt.set_markets([market_of(client.ccxt, profile) | {"info": {}}])
    asked.clear()
    monkeypatch.setattr(client_pool.MARKETS, "give", lambda *_, **__: None)
    refused = plugin.execute_order(intents(profile)["stop"])
    assert (refused.outcome, asked) == (Outcome.NOT_SENT, [])


# --- the lists as the exchanges send them, in the form their documentation shows -------------------

RAW: dict[str, tuple[str, dict[str, Any]]] = {
    "gate": (
        "BTC/USDT",
        {
            "/api/v4/spot/currency_pairs": [
                {
                    "id": "BTC_USDT", "base": "BTC", "base_name": "Bitcoin", "quote": "USDT",
                    "quote_name": "Tether", "fee": "0.2", "min_base_amount": "0.00001",
                    "min_quote_amount": "3", "max_quote_amount": "5000000", "type": "normal",
                    "amount_precision": 6, "precision": 1, "trade_status": "tradable",
                    "sell_start": 0, "buy_start": 0, "trade_url": "https://www.gate.com/trade",
                }
            ],
            "/api/v4/margin/currency_pairs": [],
        },
    ),
    "kucoin": (
        "BTC/USDT",
        {
            "/api/v1/market/allTickers": {"code": "200000", "data": {"ticker": []}},
            "/api/v2/symbols": {
                "code": "200000",
                "data": [
                    {
                        "symbol": "BTC-USDT", "name": "BTC-USDT", "baseCurrency": "BTC",
                        "quoteCurrency": "USDT", "feeCurrency": "USDT", "market": "USDS",
                        "baseMinSize": "0.00001", "quoteMinSize": "0.1", "baseMaxSize": "10000",
                        "quoteMaxSize": "99999999", "baseIncrement": "0.00000001",
                        "quoteIncrement": "0.000001", "priceIncrement": "0.1",
                        "priceLimitRate": "0.1", "isMarginEnabled": True, "enableTrading": True,
                        "feeCategory": 1, "makerFeeCoefficient": "1.00",
                        "takerFeeCoefficient": "1.00", "minFunds": "0.1",
                    }
                ],
            },
        },
    ),
    "bitget": (
        "BTC/USDT:USDT",
        {
            "/api/v2/mix/market/contracts": {
                "code": "00000",
                "data": [
                    {
                        "symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT",
                        "buyLimitPriceRatio": "0.05", "sellLimitPriceRatio": "0.05",
                        "feeRateUpRatio": "0.005", "makerFeeRate": "0.0002",
                        "takerFeeRate": "0.0006", "openCostUpRatio": "0.01",
                        "supportMarginCoins": ["USDT"], "minTradeNum": "0.0001",
                        "priceEndStep": "1", "volumePlace": "4", "pricePlace": "1",
                        "sizeMultiplier": "0.0001", "symbolType": "perpetual",
                        "minTradeUSDT": "5", "maxSymbolOrderNum": "200", "symbolStatus": "normal",
                        "maxMarketOrderQty": "220", "maxOrderQty": "1200", "minLever": "1",
                        "maxLever": "125", "posLimit": "0.05", "offTime": "-1", "launchTime": "",
                        "limitOpenTime": "-1", "deliveryTime": "", "fundInterval": "8",
                    }
                ],
            },
        },
    ),
    "krakenfutures": (
        "BTC/USD:USD",
        {
            "/derivatives/api/v3/instruments": {
                "result": "success",
                "instruments": [
                    {
                        "symbol": "PF_XBTUSD", "type": "flexible_futures", "tradeable": True,
                        "base": "BTC", "quote": "USD", "pair": "BTC:USD", "tickSize": 1,
                        "contractSize": 1, "contractValueTradePrecision": 4, "tags": [],
                        "impactMidSize": 1, "maxPositionSize": 100, "isin": "GB00JVMLMP88",
                        "openingDate": "2022-03-22T15:00:00.000Z", "feeScheduleUid": "5b755fea",
                        "marginLevels": [
                            {"numNonContractUnits": at, "initialMargin": 0.02} for at in range(40)
                        ],
                    }
                ],
            },
            "/derivatives/api/v3/instruments/status": {
                "result": "success",
                "instrumentStatus": [],
            },
        },
    ),
    "binanceusdm": (
        "BTC/USDT:USDT",
        {
            "/fapi/v1/exchangeInfo": {
                "symbols": [
                    {
                        "symbol": "BTCUSDT", "pair": "BTCUSDT", "contractType": "PERPETUAL",
                        "deliveryDate": 4133404800000, "onboardDate": 1569398400000,
                        "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT",
                        "marginAsset": "USDT", "pricePrecision": 2, "quantityPrecision": 3,
                        "baseAssetPrecision": 8, "quotePrecision": 8,
                        "underlyingType": "COIN", "underlyingSubType": ["PoW"],
                        "triggerProtect": "0.0500", "liquidationFee": "0.012500",
                        "filters": [
                            {"filterType": "PRICE_FILTER", "minPrice": "556.80",
                             "maxPrice": "4529764", "tickSize": "0.10"},
                            {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000",
                             "stepSize": "0.001"},
                            {"filterType": "MARKET_LOT_SIZE", "minQty": "0.001", "maxQty": "120",
                             "stepSize": "0.001"},
                            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
                            {"filterType": "MIN_NOTIONAL", "notional": "100"},
                            {"filterType": "PERCENT_PRICE", "multiplierUp": "1.0500",
                             "multiplierDown": "0.9500", "multiplierDecimal": "4"},
                        ],
                        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET"],
                        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
                    }
                ]
            },
        },
    ),
}  # fmt: skip
TYPES = {"gate": "spot", "kucoin": "spot"}


def read_by_ccxt(
    monkeypatch: pytest.MonkeyPatch, exchange: str, *, whole: bool
) -> tuple[CcxtPlugin, dict[str, Any]]:
    """An account whose list ccxt has made of the exchange's own answer, and its one market."""
    symbol, answers = RAW[exchange]
    profile = profile_for(exchange, TYPES.get(exchange, "swap"))

    def fetch(self: Any, url: str, *_args: object, **_kwargs: object) -> Any:
        return answers[urlsplit(url).path]

    def load(client: VenueClient, facts: frozenset[str] | None) -> SymbolList:
        client.fetch_markets()
        return SymbolList.of(client.ccxt, None if whole else facts)

    monkeypatch.setattr(ccxt.Exchange, "fetch", fetch)
    monkeypatch.setattr(client_pool, "MARKETS", MarketCache())
    monkeypatch.setattr(client_pool, "load_markets", load)
    plugin = CcxtPlugin()
    secrets = dict.fromkeys(profile.keys, "k") | {"api_secret": secret_of(profile)}
    where = {"exchange": exchange, "market_type": profile.market_type}
    plugin.init(AccountConfig("1", "t", Environment.LIVE, where, secrets))
    with plugin._pool.public() as client:
        return plugin, dict(client.market(symbol))


@pytest.mark.parametrize("exchange", RAW)
def test_rules_of_an_exchanges_own_answer_are_the_same_in_both_lists(
    monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    symbol = RAW[exchange][0]
    (large, all_of_it), (small, kept) = (
        read_by_ccxt(monkeypatch, exchange, whole=whole) for whole in (True, False)
    )
    assert small.instrument(symbol) == large.instrument(symbol)
    assert small.trading_fees(symbol) == large.trading_fees(symbol)
    facts = library()[exchange].market_facts
    assert facts is not None
    assert set(kept["info"]) == set(all_of_it["info"]) & facts
    assert kept | {"info": 0} == all_of_it | {"info": 0}


# --- what is read of a raw answer, from the library's source --------------------------------------

SOURCE = """
class sample(Exchange):
    def fetch_markets(self, params={}):
        return [self.parse_market(one['info']['madeOf']) for one in params]

    def by_subscript(self, market):
        return market['info']['one'], self.market(symbol)['info']['two']

    def by_helper(self, market):
        return self.safe_string_2(market['info'], 'three', 'four'), self.safe_list_n(
            self.safe_dict(market, 'info', {}), ['five'])

    @property
    def by_name(self):
        marketInfo = self.safe_dict(self.market, 'info', {})
        return self.safe_bool(marketInfo, 'six', False), {'info': marketInfo, 'x': 'y'}

    def of_an_order(self, order):
        info = order['info']
        return self.parse(info), info[order]
"""
READ = frozenset({"one", "two", "three", "four", "five", "six"})


@pytest.mark.parametrize(
    ("more", "read"),
    [
        ("", READ),
        ("return self.parse_ticker(market['info'])", None),
        ("return market['info'][symbol]", None),
        ("info = market['info']; return [one for one in info]", None),
        ("info = self.safe_value(market, 'info'); return self.safe_string(info, name)", None),
        ("m = self.markets[symbol]; return self.json(m['info'])", None),
        ("info = self.markets[symbol]['info']; return info['seven']", READ | {"seven"}),
    ],
)
def test_what_a_class_reads_of_raw_answers(
    tmp_path: Path, more: str, read: frozenset[str] | None
) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        SOURCE + (f"\n    async def more(self, market, symbol):\n        {more}\n" * bool(more))
    )
    assert _facts_in(str(path)) == read


def test_an_exchange_reads_what_its_parents_read() -> None:
    assert facts_read(ccxt.binanceusdm) == facts_read(ccxt.binance)
    assert "orderTypes" in (facts_read(ccxt.binance) or ())
    assert facts_read(ccxt.hyperliquid) is None
