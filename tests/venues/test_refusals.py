"""Each venue refuses in its own words, and ccxt understands them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import ccxt
import pytest

from tests.venues.client import ControlError, RunningVenue, VenueControl
from tests.venues.connecting import buy, find
from tests.venues.credentials import BINANCE_SECRET

D = Decimal


def test_binance_refuses_in_its_own_words(client: Any, control: VenueControl) -> None:
    exchange, symbol = client("binance"), "BTC/USDT"
    control.set_balances("binance", {"USDT": 1000})

    def order(**params: str) -> Callable[[], object]:
        sent = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
        sent |= {"quantity": "0.01", "price": "50000"}
        wanted = {k: v for k, v in (sent | params).items() if v}
        return lambda: exchange.privatePostOrder(wanted)

    def trading(**params: str) -> Callable[[], object]:
        return order(timeInForce="", price="", type="MARKET", **params)

    def maker(**params: str) -> Callable[[], object]:
        return order(timeInForce="", type="LIMIT_MAKER", **params)

    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (trading(quantity="1"), ccxt.InsufficientFunds, "insufficient balance"),
        (order(symbol="XXXYYY"), ccxt.BadSymbol, "-1121"),
        (order(quantity="0.000001"), ccxt.InvalidOrder, "Filter failure: LOT_SIZE"),
        (order(quantity="0.000000001"), ccxt.BadRequest, "-1111"),
        (order(price="50000.001"), ccxt.InvalidOrder, "Filter failure: PRICE_FILTER"),
        (order(price="1000"), ccxt.InvalidOrder, "Filter failure: PERCENT_PRICE_BY_SIDE"),
        (order(quantity="0.00005"), ccxt.BadRequest, "Filter failure: NOTIONAL"),
        (trading(quantity="1000"), ccxt.InvalidOrder, "Filter failure: MARKET_LOT_SIZE"),
        (order(quantity=""), ccxt.BadRequest, "-1102"),
        (order(stopLoss="1"), ccxt.BadRequest, "-1104"),
        (order(type="LIMIT", stopPrice="1"), ccxt.BadRequest, "-1106"),
        (order(side="HOLD"), ccxt.BadRequest, "-1117"),
        (order(type="ICEBERG"), ccxt.BadRequest, "-1116"),
        (
            order(type="LIMIT_MAKER", timeInForce="", price="70000"),
            ccxt.InvalidOrder,
            "match and take",
        ),
        (lambda: exchange.fetch_order("99", symbol), ccxt.OrderNotFound, "-2013"),
        (lambda: exchange.cancel_order("99", symbol), ccxt.OrderNotFound, "-2011"),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()
    assert control.ledger("binance").orders == []


def test_binance_refuses_bad_keys_signatures_and_clocks(client: Any, control: VenueControl) -> None:
    cases = [
        ({"apiKey": "short"}, ccxt.AuthenticationError, "-2014"),
        ({"apiKey": "x" * 64}, ccxt.AuthenticationError, "-2015"),
        ({"secret": "wrong"}, ccxt.AuthenticationError, "-1022"),
    ]
    for options, kind, code in cases:
        with pytest.raises(kind, match=code):
            client("binance", **options).fetch_balance()
    for offset in (60_000, -60_000):
        control.set_clock_offset(offset)
        with pytest.raises(ccxt.InvalidNonce, match="-1021"):
            client("binance").fetch_balance()


def test_binance_limits_algo_orders(client: Any, control: VenueControl) -> None:
    exchange, stop = client("binance"), {"stopLossPrice": "50000"}
    for _ in range(5):
        exchange.create_order("BTC/USDT", "market", "sell", "0.01", None, dict(stop))
    with pytest.raises(ccxt.BadRequest, match="MAX_NUM_ALGO_ORDERS"):
        exchange.create_order("BTC/USDT", "market", "sell", "0.01", None, dict(stop))
    with pytest.raises(ccxt.OrderImmediatelyFillable, match="trigger immediately"):
        exchange.create_order("ETH/USDT", "market", "sell", "0.01", None, {"stopLossPrice": "3100"})


def test_kraken_refuses_in_its_own_words(client: Any, control: VenueControl) -> None:
    exchange, symbol = client("kraken"), "BTC/USD"
    control.set_balances("kraken", {"USD": 1000})

    def order(**params: str) -> Callable[[], object]:
        sent = {"pair": "XBTUSD", "type": "buy", "ordertype": "limit", "volume": "0.01"}
        return lambda: exchange.privatePostAddOrder(sent | {"price": "50000"} | params)

    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (order(volume="1"), ccxt.InsufficientFunds, "EOrder:Insufficient funds"),
        (order(volume="0.00001"), ccxt.InvalidOrder, "EOrder:Order minimum not met"),
        (order(volume="none"), ccxt.InvalidOrder, "EGeneral:Invalid arguments:volume"),
        (order(price=""), ccxt.InvalidOrder, "EGeneral:Invalid arguments:price"),
        (order(price="50000.12"), ccxt.ExchangeError, "EOrder:Invalid price:XBTUSD price can"),
        (order(pair="XXXYYY"), ccxt.ExchangeError, "EQuery:Unknown asset pair"),
        (order(ordertype="trailing-stop"), ccxt.ExchangeError, "EGeneral:Invalid arguments"),
        (order(cl_ord_id="x" * 19), ccxt.ExchangeError, "EGeneral:Invalid arguments:cl_ord_id"),
        (order(oflags="post", price="70000"), ccxt.ExchangeError, "EOrder:Post only order"),
        (order(leverage="2"), ccxt.ExchangeError, "EOrder:Cannot open position"),
        (lambda: exchange.cancel_order("OAAAAA", symbol), ccxt.OrderNotFound, "Unknown order"),
        (lambda: exchange.fetch_order("OAAAAA", symbol), ccxt.InvalidOrder, "Unknown order"),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()
    assert control.ledger("kraken").orders == []


def test_kraken_refuses_bad_keys_signatures_and_nonces(client: Any) -> None:
    with pytest.raises(ccxt.AuthenticationError, match="EAPI:Invalid key"):
        client("kraken", apiKey="unknown").fetch_balance()
    with pytest.raises(ccxt.ExchangeError, match="EAPI:Invalid signature"):
        client("kraken", secret="d3Jvbmc=").fetch_balance()
    client("kraken").fetch_balance()
    stale = client("kraken")
    stale.incrementing_nonce = lambda: 1
    with pytest.raises(ccxt.InvalidNonce, match="EAPI:Invalid nonce"):
        stale.fetch_balance()


def test_key_permissions_are_told_and_enforced(client: Any, control: VenueControl) -> None:
    binance, kraken = client("binance"), client("kraken")
    assert binance.sapiGetAccountApiRestrictions()["enableWithdrawals"] is False
    control.set_permissions(
        "binance", {"enableWithdrawals": True, "enableSpotAndMarginTrading": False}
    )
    assert binance.sapiGetAccountApiRestrictions()["enableWithdrawals"] is True
    with pytest.raises(ccxt.AuthenticationError, match="-2015"):
        buy(binance, "binance", "no")
    control.set_permissions("kraken", {"withdraw-funds": True, "modify-trades": False})
    assert "withdraw-funds" in kraken.privatePostGetApiKeyInfo()["result"]["permissions"]
    with pytest.raises(ccxt.PermissionDenied):
        buy(kraken, "kraken", "no")
    with pytest.raises(ControlError, match="permissions are"):
        control.set_permissions("kraken", {"everything": True})


def test_another_key_opens_another_account(
    server: RunningVenue, client: Any, control: VenueControl
) -> None:
    control.add_key("binance", "k" * 64, BINANCE_SECRET, "second")
    buy(client("binance", apiKey="k" * 64), "binance", "theirs")
    assert [o.account for o in control.ledger("binance").orders] == ["second"]
    assert find(client("binance"), "binance", "theirs") == []
