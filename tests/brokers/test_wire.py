"""The wire table: the exact request each intent produces, through the plugin and its guard, in both
tiers.

``tests/brokers/wire/*.json`` were read by eye against each exchange's documentation. When an
upgrade of ccxt changes a request, the guard refuses it and the test here says which. After reading
the new request against the documentation, ``WRITE_WIRE=1`` writes the files anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ccxt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from brokers import client_pool
from brokers.errors import QueryFailedError
from brokers.exchanges import PROFILES, ExchangeProfile, Lookup, profile_for
from brokers.markets import MarketCache
from brokers.plugins.ccxt import CcxtPlugin
from brokers.symbol_lists import SymbolList
from brokers.transport import origin
from brokers.types import (
    AccountConfig,
    Environment,
    OrderRef,
    OrderRequest,
    OrderType,
    Outcome,
    Side,
    TimeInForce,
)
from brokers.venue_client import VenueClient

TABLE = Path(__file__).with_name("wire")
IDENTITY = "0123456789abcdef0123456789abcdef"
D = Decimal
BY_REQUESTS = [profile for profile in PROFILES.values() if profile.tier == 2]
IDS = {
    "kraken": "XBTUSDT",
    "okx": "BTC-USDT",
    "okx swap": "BTC-USDT-SWAP",
    "coinbase": "BTC-USDT",
    "kucoin": "BTC-USDT",
    "gate": "BTC_USDT",
    "krakenfutures": "PF_XBTUSD",
    "htx": "btcusdt",
    "hyperliquid": "0",
}
INFO: dict[str, Any] = {
    "orderTypes": [
        *("LIMIT", "MARKET", "STOP", "STOP_MARKET"),
        *("STOP_LOSS", "STOP_LOSS_LIMIT", "LIMIT_MAKER"),
    ],
    "filters": [
        {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "9000"},
        {"filterType": "PRICE_FILTER", "tickSize": "0.1"},
    ],
    "lot_decimals": 3,
    "tick_size": "0.1",
    "lotSizeFilter": {
        "basePrecision": "0.001",
        "qtyStep": "0.001",
        "minOrderQty": "0.001",
        "maxOrderQty": "9000",
    },
    "priceFilter": {"tickSize": "0.1"},
    "lotSz": "0.001",
    "minSz": "0.001",
    "tickSz": "0.1",
    "ctVal": "0.01",
}
"""What the dialects of tier 1 read of a market, each by its own names."""
DIFFERS = "(differs each time)"
QUOTES = {"krakenfutures": "USD", "hyperliquid": "USDC"}


def symbol_of(profile: ExchangeProfile) -> str:
    quote = QUOTES.get(profile.id, "USDT")
    return f"BTC/{quote}" if profile.market_type == "spot" else f"BTC/{quote}:{quote}"


def market_of(client: Any, profile: ExchangeProfile) -> dict[str, Any]:
    """A market as the exchange's own list would make it, as far as requests depend on it."""
    symbol, swap = symbol_of(profile), profile.market_type == "swap"
    quote = QUOTES.get(profile.id, "USDT")
    return dict(
        client.safe_market_structure(
            {
                "id": IDS.get(
                    f"{profile.id} {profile.market_type}", IDS.get(profile.id, "BTCUSDT")
                ),
                "symbol": symbol,
                "base": "BTC",
                "baseName": "BTC",
                "quote": quote,
                "settle": quote if swap else None,
                "baseId": "0" if profile.id == "hyperliquid" else "BTC",
                "quoteId": quote,
                "settleId": quote if swap else None,
                "type": profile.market_type,
                "spot": not swap,
                "swap": swap,
                "contract": swap,
                "linear": True if swap else None,
                "inverse": False if swap else None,
                "contractSize": 1.0 if swap else None,
                "active": True,
                "precision": {"amount": 0.001, "price": 0.1},
                "info": INFO,
            }
        )
    )


def secret_of(profile: ExchangeProfile) -> str:
    if profile.key_form == "pem":
        key = ec.generate_private_key(ec.SECP256R1())
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ).decode()
    return "12" * 32


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """No request leaves; those that would have are noted as method and address."""
    noted: list[tuple[str, str]] = []

    def fetch(
        self: Any, url: str, method: str = "GET", headers: object = None, body: object = None
    ) -> None:
        noted.append((method, f"{url} {body or ''}".strip()))
        raise ccxt.NetworkError("nothing leaves in a test")

    def load(client: VenueClient, facts: frozenset[str] | None) -> SymbolList:
        client.ccxt.set_markets([market_of(client.ccxt, client.profile)])
        client.ccxt.options |= {"hip3TokensByName": {}, "cachedCurrenciesById": {}}
        return SymbolList.of(client.ccxt, facts)

    monkeypatch.setattr(ccxt.Exchange, "fetch", fetch)
    monkeypatch.setattr(client_pool, "MARKETS", MarketCache())
    monkeypatch.setattr(client_pool, "load_markets", load)
    return noted


def plugin_of(profile: ExchangeProfile, **options: object) -> CcxtPlugin:
    plugin = CcxtPlugin()
    where = {"exchange": profile.id, "market_type": profile.market_type}
    secrets = dict.fromkeys(profile.keys, "0x" + "1" * 40) | {"api_secret": secret_of(profile)}
    base = {"base_url": "http://127.0.0.1:9"}
    plugin.init(AccountConfig("1", "t", Environment.SANDBOX, where | base | options, secrets))
    plugin._prepared.add(symbol_of(profile))
    with plugin._pool.private() as client:
        client.ccxt.accounts = [{"id": "77", "type": "spot", "code": None, "info": {}}]
        client.ccxt.accountsById = {"77": client.ccxt.accounts[0]}
    return plugin


def intents(profile: ExchangeProfile) -> dict[str, OrderRequest]:
    """Every kind of order the exchange is said to take, buying and selling."""
    plain = OrderRequest(
        IDENTITY, symbol_of(profile), Side.BUY, OrderType.MARKET, D("0.002"),
        reference_price=D(60000),
    )  # fmt: skip
    priced = replace(plain, type=OrderType.LIMIT, price=D(50000))
    found = {"market": plain, "limit": priced}
    for until in (TimeInForce.IOC, TimeInForce.FOK):
        found[until.value] = replace(priced, time_in_force=until)
    found["post_only"] = replace(priced, post_only=True)
    found["stop"] = replace(plain, type=OrderType.STOP, stop_price=D(65000))
    found["stop_limit"] = replace(found["stop"], type=OrderType.STOP_LIMIT, price=D(66000))
    found["reduce_only"] = replace(priced, reduce_only=True)
    found["reduce_only market"] = replace(plain, reduce_only=True)
    found["reduce_only stop_limit"] = replace(found["stop_limit"], reduce_only=True)
    falling = {"stop_price": D(45000), "price": D(44000)}
    for name, request in list(found.items()):
        told = {k: v for k, v in falling.items() if getattr(request, k) and request.stop_price}
        found[f"sell {name}"] = replace(request, side=Side.SELL, **told)  # type: ignore[arg-type]
    able = profile.capabilities
    return {
        name: request
        for name, request in found.items()
        if request.type in able.order_types
        and request.time_in_force in able.time_in_force
        and (able.post_only or not request.post_only)
        and (able.reduce_only or not request.reduce_only)
    }


def told(profile: ExchangeProfile, evidence: Any) -> dict[str, Any]:
    """A request; what differs each time only has to be there."""
    volatile = profile.order_extras - {"newOrderRespType", "recvWindow", "account-id"}
    request = evidence["request"]
    fields = {k: DIFFERS if k in volatile else v for k, v in request["fields"].items()}
    return {"method": request["method"], "path": request["path"], "fields": fields}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.label)
def test_every_intent_produces_the_request_that_was_reviewed(
    profile: ExchangeProfile, asked: list[tuple[str, str]]
) -> None:
    plugin = plugin_of(profile)
    produced: dict[str, Any] = {}
    for name, request in intents(profile).items():
        asked.clear()
        result = plugin.execute_order(request)
        assert result.outcome is Outcome.UNKNOWN, f"{name}: {result.code} {result.detail}"
        assert len(asked) == 1, f"{name} asks first: {asked}"
        produced[name] = told(profile, result.evidence)
    for known, name in (("1", "cancel"), ("stop-1", "cancel stop")):
        # a dialect looks a stop up before it cancels it: tests/brokers/test_okx.py
        if known == "1" or (profile.tier == 2 and profile.stop_endpoint is not None):
            canceled = plugin.cancel_order(OrderRef(IDENTITY, symbol_of(profile), known, None))
            assert canceled.outcome is Outcome.UNKNOWN, canceled
            produced[name] = told(profile, canceled.evidence)
    compare(profile, produced)


def compare(profile: ExchangeProfile, produced: dict[str, Any]) -> None:
    path = TABLE / f"{profile.label.lower().replace(' ', '-')}.json"
    if os.environ.get("WRITE_WIRE"):
        path.write_text(json.dumps(produced, indent=1, sort_keys=True) + "\n")
    assert produced == json.loads(path.read_text())


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.label)
def test_a_live_account_reaches_its_exchange_and_nothing_else(
    profile: ExchangeProfile, asked: list[tuple[str, str]]
) -> None:
    secrets = dict.fromkeys(profile.keys, "0x" + "1" * 40) | {"api_secret": secret_of(profile)}
    where = {"exchange": profile.id, "market_type": profile.market_type}
    plugin = CcxtPlugin()
    plugin.init(AccountConfig("1", "t", Environment.LIVE, where, secrets))
    assert plugin.health_check().ok is False
    assert asked, "the guard kept a question in"
    origins = plugin._pool._connect(private=False).gate.origins
    assert {origin(address) for _, address in asked} <= origins
    assert all(address.startswith("https://") and "{" not in address for address in origins)


QUESTIONS: dict[str, Callable[[CcxtPlugin, str], object]] = {
    "by client id": lambda p, s: p.fetch_order(OrderRef(IDENTITY, s, "", None)),
    "by the venue's id": lambda p, s: p.fetch_order(OrderRef(IDENTITY, s, "7", None)),
    "open orders": lambda p, s: p.open_orders(s),
    "all open orders": lambda p, _: p.open_orders(),
    "trades": lambda p, s: p.trades_since(s, datetime.now(UTC) - timedelta(hours=1)),
    "balances": lambda p, _: p.balances(),
    "positions": lambda p, _: p.positions(),
    "quote": lambda p, s: p.fetch_data(s),
    "candles": lambda p, s: p.candles(s, 16),
}


ASKED = [
    (profile, question)
    for profile in BY_REQUESTS
    for question in QUESTIONS
    if question != "positions" or profile.market_type == "swap"
]


@pytest.mark.parametrize(("profile", "question"), ASKED, ids=lambda one: getattr(one, "label", one))
def test_every_question_passes_the_guard_and_names_its_order(
    profile: ExchangeProfile, asked: list[tuple[str, str]], question: str
) -> None:
    plugin = plugin_of(profile)
    asked.clear()
    with pytest.raises(QueryFailedError):
        QUESTIONS[question](plugin, symbol_of(profile))
    assert asked, "the guard kept the question in"
    assert "None" not in asked[0][1]
    assert "null" not in asked[0][1]
    if question == "by client id" and profile.lookup is Lookup.BY_CLIENT_ID:
        assert plugin.client_order_id(IDENTITY) in asked[0][1]


def test_an_unverified_exchange_is_held_to_the_id_and_the_numbers(
    asked: list[tuple[str, str]],
) -> None:
    profile = profile_for("mexc")
    plugin = plugin_of(profile, unverified_venue=True)
    request = intents(profile)["limit"]
    result = plugin.execute_order(request)
    assert result.outcome is Outcome.UNKNOWN
    assert IDENTITY in str(result.evidence["request"]["fields"])
    with plugin._pool.private() as client:
        client.ccxt.options["timeDifference"] = 0
        client.ccxt.amount_to_precision = lambda *_: "0.001"
    refused = plugin.execute_order(request)
    assert refused.outcome is Outcome.NOT_SENT
    assert "without its number 0.002" in refused.detail


def test_an_order_waits_for_an_answer_the_library_needs_first(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, str]]
) -> None:
    """HTX is asked for the id of the account before the first order of a client."""
    profile = profile_for("htx")
    plugin, request = plugin_of(profile), intents(profile)["sell market"]
    with plugin._pool.private() as client:
        client.ccxt.accounts = None
    answers: list[object] = [ccxt.ExchangeError("odd"), ccxt.AuthenticationError("key")]

    def fetch(self: Any, url: str, *_args: object) -> object:
        asked.append(("GET", urlsplit(url).path))
        self.gate.status, self.gate.body = 200, ""
        raise answers.pop(0)  # type: ignore[misc]

    monkeypatch.setattr(ccxt.Exchange, "fetch", fetch)
    odd, refused = plugin.execute_order(request), plugin.execute_order(request)
    assert asked == [("GET", "/v1/account/accounts")] * 2
    assert (odd.outcome, odd.code, odd.retry_after) == (Outcome.NOT_SENT, "VENUE_UNREACHABLE", 1)
    assert (refused.outcome, refused.retry_after) == (Outcome.NOT_SENT, None)


HYPERLIQUID = PROFILES["hyperliquid", "swap"]


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("side", "price", "sent"),
    [
        (Side.BUY, "9999.7", "9999.7"),
        (Side.BUY, "10000.7", "10000"),
        (Side.SELL, "10000.1", "10001"),
        (Side.SELL, "99999.9", "100000"),
        (Side.BUY, "123456.7", "123456"),
        (Side.SELL, "123456", "123456"),
    ],
)
def test_a_price_beyond_a_power_of_ten_leaves_in_five_digits(
    side: Side, price: str, sent: str
) -> None:
    """The tick of the list is that of the price at which the list was made."""
    plain = intents(HYPERLIQUID)["limit"]
    request = replace(plain, side=side, price=D(price))
    result = plugin_of(HYPERLIQUID).execute_order(request)
    assert result.outcome is Outcome.UNKNOWN, result
    assert result.evidence["request"]["fields"]["action.orders.0.p"] == sent


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("side", "is_exit", "sent"),
    [(Side.BUY, False, "60600"), (Side.SELL, False, "59401"), (Side.SELL, True, "57001")],
    ids=["buy", "sell", "exit"],
)
def test_a_market_order_beyond_a_power_of_ten_leaves_too(
    side: Side, *, is_exit: bool, sent: str
) -> None:
    plain = intents(HYPERLIQUID)["market"]
    request = replace(plain, side=side, reduce_only=is_exit, reference_price=D("60000.7"))
    result = plugin_of(HYPERLIQUID).execute_order(request)
    assert result.outcome is Outcome.UNKNOWN, result
    assert result.evidence["request"]["fields"]["action.orders.0.p"] == sent


@pytest.mark.usefixtures("asked")
def test_a_stop_beyond_a_power_of_ten_leaves_in_five_digits() -> None:
    plain = intents(HYPERLIQUID)["sell stop_limit"]
    request = replace(plain, stop_price=D("45000.3"), price=D("44000.3"))
    result = plugin_of(HYPERLIQUID).execute_order(request)
    assert result.outcome is Outcome.UNKNOWN, result
    fields = result.evidence["request"]["fields"]
    named = "action.orders.0."
    assert (fields[f"{named}t.trigger.triggerPx"], fields[f"{named}p"]) == ("45001", "44001")


EMPTY: dict[str, Any] = {
    "/api/v3/brokerage/orders/historical/batch": {"orders": [], "has_next": False, "cursor": ""},
    "/api/v1/hf/orders/active/symbols": {"code": "200000", "data": {"symbols": ["BTC-USDT"]}},
    "/api/v1/hf/orders/active": {"code": "200000", "data": []},
    "/api/v1/stop-order": {"code": "200000", "data": {"totalNum": 0, "items": []}},
    "/api/v4/spot/open_orders": [],
    "/api/v2/spot/trade/unfilled-orders": {"code": "00000", "data": []},
    "/api/v2/mix/order/orders-pending": {"code": "00000", "data": {"entrustedList": None}},
    "/derivatives/api/v3/openorders": {"result": "success", "openOrders": []},
    "/fapi/v1/openOrders": [],
    "/fapi/v1/openAlgoOrders": [],
    "/v1/order/openOrders": {"status": "ok", "data": []},
    "/info": [],
}
"""What an account without a working order is answered, by the path that is asked."""
LISTS = {
    "Coinbase spot": ["/api/v3/brokerage/orders/historical/batch"],
    "KuCoin spot": [
        "/api/v1/hf/orders/active/symbols",
        "/api/v1/hf/orders/active",
        "/api/v1/stop-order",
    ],
    "Gate spot": ["/api/v4/spot/open_orders"],
    "Bitget spot": ["/api/v2/spot/trade/unfilled-orders"],
    "Bitget linear swap": ["/api/v2/mix/order/orders-pending"],
    "Kraken Futures swap": ["/derivatives/api/v3/openorders"],
    "Binance USD-M swap": ["/fapi/v1/openOrders", "/fapi/v1/openAlgoOrders"],
    "HTX spot": ["/v1/order/openOrders"],
    "Hyperliquid swap": ["/info"],
}


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("profile", BY_REQUESTS, ids=lambda p: p.label)
def test_all_open_orders_of_an_account_are_read_from_every_list(
    monkeypatch: pytest.MonkeyPatch, profile: ExchangeProfile
) -> None:
    """An account whose open orders cannot be listed is never reconciled, and so never trades."""
    paths: list[str] = []

    def fetch(self: Any, url: str, *_args: object, **_kwargs: object) -> Any:
        paths.append(urlsplit(url).path)
        return EMPTY[paths[-1]]

    plugin = plugin_of(profile)
    monkeypatch.setattr(ccxt.Exchange, "fetch", fetch)
    assert plugin.open_orders() == []
    assert paths == LISTS[profile.label]


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("data", [{}, {"symbols": "BTC-USDT"}, None], ids=str)
def test_where_the_markets_with_orders_cannot_be_read_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, data: Any
) -> None:
    plugin = plugin_of(PROFILES["kucoin", "spot"])
    answer = {"code": "200000", "data": data}
    monkeypatch.setattr(ccxt.Exchange, "fetch", lambda *_args, **_kwargs: answer)
    with pytest.raises(QueryFailedError):
        plugin.open_orders()
