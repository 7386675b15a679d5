"""What the real ccxt can do on both venues, and what the ledger then says."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import ccxt
import pytest

from tests.venues.client import VenueControl
from tests.venues.connecting import SYMBOLS, VENUES, buy, find

D = Decimal


@pytest.mark.parametrize("name", VENUES)
def test_a_client_loads_markets_and_prices(name: str, client: Any, control: VenueControl) -> None:
    exchange = client(name)
    control.set_price(name, SYMBOLS[name], 61000, spread=10)
    market = exchange.load_markets(reload=True)[SYMBOLS[name]]
    ticker = exchange.fetch_ticker(SYMBOLS[name])
    assert market["active"]
    assert market["spot"]
    assert (ticker["bid"], ticker["last"], ticker["ask"]) == (60995, 61000, 61005)
    assert exchange.fetch_order_book(SYMBOLS[name])["asks"][0][0] == 61005
    assert exchange.fetch_ohlcv(SYMBOLS[name], "1h")[-1][4] == 61000
    assert abs(exchange.fetch_time() - time.time() * 1000) < 5000


@pytest.mark.parametrize("name", VENUES)
def test_market_buy_and_sell_settle_in_the_ledger(
    name: str, client: Any, control: VenueControl
) -> None:
    exchange, symbol = client(name), SYMBOLS[name]
    quote = symbol.partition("/")[2]
    control.set_price(name, symbol, 60000, spread=0)
    control.set_balances(name, {"BTC": 1, quote: 100_000})
    buy(exchange, name, "first")
    exchange.create_order(symbol, "market", "sell", "0.25", None, {"clientOrderId": "second"})
    ledger = control.ledger(name)
    assert [(o.client_id, o.status, o.filled) for o in ledger.orders] == [
        ("first", "filled", D("0.5")),
        ("second", "filled", D("0.25")),
    ]
    fees = {"binance": (D("0.0005"), "BTC", D(15)), "kraken": (D(120), "USD", D(60))}[name]
    assert (ledger.trades[0].fee, ledger.trades[0].fee_asset, ledger.trades[1].fee) == fees
    spent = D(30000) - D(15000) + sum(t.fee for t in ledger.trades if t.fee_asset == quote)
    coin = D("1.25") - sum(t.fee for t in ledger.trades if t.fee_asset == "BTC")
    assert ledger.free[("main", quote)] == 100_000 - spent
    assert ledger.free[("main", "BTC")] == coin
    assert exchange.fetch_balance()["BTC"]["total"] == float(coin)


@pytest.mark.parametrize("name", VENUES)
def test_limit_order_rests_fills_in_part_and_is_canceled(
    name: str, client: Any, control: VenueControl
) -> None:
    exchange, symbol = client(name), SYMBOLS[name]
    order = buy(exchange, name, "resting", "50000")
    assert [o["clientOrderId"] for o in exchange.fetch_open_orders(symbol)] == ["resting"]
    quote = symbol.partition("/")[2]
    held = {"binance": 25000.0, "kraken": 25100.0}[name]
    assert exchange.fetch_balance()[quote]["used"] == held
    control.fill(name, order["id"], "0.2")
    (seen,) = find(exchange, name, "resting")
    assert (seen["id"], seen["status"], seen["filled"]) == (order["id"], "open", 0.2)
    exchange.cancel_order(order["id"], symbol)
    (seen,) = find(exchange, name, "resting")
    assert (seen["status"], seen["filled"], seen["average"]) == ("canceled", 0.2, 50000)
    assert exchange.fetch_open_orders(symbol) == []
    (trade,) = exchange.fetch_my_trades(symbol)
    assert (trade["order"], trade["price"], trade["amount"]) == (order["id"], 50000, 0.2)
    assert trade["takerOrMaker"] == "maker"
    assert set(control.ledger(name).locked.values()) == {D(0)}


@pytest.mark.parametrize("name", VENUES)
def test_depth_fills_limit_orders_in_part(name: str, client: Any, control: VenueControl) -> None:
    exchange, symbol = client(name), SYMBOLS[name]
    control.set_depth(name, symbol, asks=[("60001", "0.1"), ("60002", "0.2"), ("60010", "9")])
    buy(exchange, name, "partly", "60005")
    (seen,) = find(exchange, name, "partly")
    assert (seen["status"], seen["filled"]) == ("open", 0.3)
    assert [t.price for t in control.ledger(name).trades] == [60001, 60002]
    control.set_depth(name, symbol, asks=[("60005", "1")])
    assert find(exchange, name, "partly")[0]["status"] == "closed"


@pytest.mark.parametrize("name", VENUES)
def test_market_order_ends_with_what_the_book_had(
    name: str, client: Any, control: VenueControl
) -> None:
    exchange = client(name)
    control.set_depth(name, SYMBOLS[name], asks=[("60001", "0.1")])
    buy(exchange, name, "thin")
    (order,) = control.ledger(name).orders
    assert (order.status, order.filled) == ("expired", D("0.1"))
    status = {"binance": "expired", "kraken": "canceled"}[name]
    assert find(exchange, name, "thin")[0]["status"] == status


@pytest.mark.parametrize("name", VENUES)
@pytest.mark.parametrize("kind", ["market", "limit"])
def test_stop_loss_waits_for_its_trigger(
    name: str, kind: str, client: Any, control: VenueControl
) -> None:
    exchange, symbol = client(name), SYMBOLS[name]
    limit = "54000" if kind == "limit" else None
    params = {"stopLossPrice": "55000", "clientOrderId": "stop"}
    exchange.create_order(symbol, kind, "sell", "0.5", limit, params)
    control.set_price(name, symbol, 56000)
    assert find(exchange, name, "stop")[0]["status"] == "open"
    assert control.ledger(name).locked[("main", "BTC")] == D("0.5")
    control.set_price(name, symbol, 55000, spread=0)
    (seen,) = find(exchange, name, "stop")
    assert (seen["status"], seen["filled"], seen["average"]) == ("closed", 0.5, 55000)


@pytest.mark.parametrize("name", VENUES)
def test_take_profit_sells_above(name: str, client: Any, control: VenueControl) -> None:
    exchange, symbol = client(name), SYMBOLS[name]
    params = {"takeProfitPrice": "66000", "clientOrderId": "gain"}
    exchange.create_order(symbol, "market", "sell", "0.5", None, params)
    assert find(exchange, name, "gain")[0]["status"] == "open"
    control.set_price(name, symbol, 66000)
    assert find(exchange, name, "gain")[0]["status"] == "closed"


@pytest.mark.parametrize("name", VENUES)
def test_immediate_or_cancel_keeps_nothing_open(
    name: str, client: Any, control: VenueControl
) -> None:
    exchange, symbol = client(name), SYMBOLS[name]
    control.set_depth(name, symbol, asks=[("60001", "0.1")])
    for tif, filled in (("FOK", D(0)), ("IOC", D("0.1"))):
        params = {"timeInForce": tif, "clientOrderId": tif}
        exchange.create_order(symbol, "limit", "buy", "0.5", "60001", params)
        (order,) = control.ledger(name).by_client_id(tif)
        assert (order.status, order.filled) == ("expired", filled)


@pytest.mark.parametrize("name", VENUES)
def test_buying_for_an_amount_of_quote(name: str, client: Any, control: VenueControl) -> None:
    exchange, symbol = client(name), SYMBOLS[name]
    control.set_price(name, symbol, 60000, spread=0)
    exchange.create_market_buy_order_with_cost(symbol, 3000, {"clientOrderId": "cost"})
    (order,) = control.ledger(name).orders
    assert (order.quantity, order.cost) == (D("0.05"), D(3000))


@pytest.mark.parametrize("name", VENUES)
def test_dry_run_places_nothing(name: str, client: Any, control: VenueControl) -> None:
    params = {"binance": {"test": True}, "kraken": {"validate": True}}[name]
    client(name).create_order(SYMBOLS[name], "limit", "buy", "0.5", "50000", params)
    ledger = control.ledger(name)
    assert ledger.orders == []
    assert set(ledger.locked.values()) == {D(0)}


@pytest.mark.parametrize("name", VENUES)
def test_cancel_all(name: str, client: Any, control: VenueControl) -> None:
    exchange = client(name)
    for number in range(3):
        buy(exchange, name, f"id{number}", "50000")
    exchange.cancel_all_orders(SYMBOLS[name])
    assert {o.status for o in control.ledger(name).orders} == {"canceled"}


def test_binance_answers_in_full_with_fills(client: Any, control: VenueControl) -> None:
    control.set_price("binance", "BTC/USDT", 60000, spread=0)
    info = buy(client("binance"), "binance", "full")["info"]
    fill = {"price": "60000.00000000", "qty": "0.50000000", "commission": "0.00050000"}
    fill |= {"commissionAsset": "BTC", "tradeId": "1"}
    assert {k: str(v) for k, v in info["fills"][0].items()} == fill
    assert (info["status"], info["cummulativeQuoteQty"]) == ("FILLED", "30000.00000000")


def test_kraken_deadline_bounds_lateness(client: Any, control: VenueControl) -> None:
    exchange, params = client("kraken"), {"deadline": "2021-04-01T00:18:45Z"}
    with pytest.raises(ccxt.ExchangeError, match="EService:Deadline elapsed") as caught:
        exchange.create_order("BTC/USD", "market", "buy", "0.5", None, params)
    assert type(caught.value) is ccxt.ExchangeError
    assert control.ledger("kraken").orders == []


@pytest.mark.parametrize("name", VENUES)
def test_client_ids_are_unique_as_the_rule_says(
    name: str, client: Any, control: VenueControl
) -> None:
    exchange = client(name)
    refused = {"binance": ccxt.InvalidOrder, "kraken": ccxt.ExchangeError}[name]
    buy(exchange, name, "again", "50000")
    with pytest.raises(refused, match="Duplicate order"):
        buy(exchange, name, "again", "50000")
    exchange.cancel_all_orders(SYMBOLS[name])
    buy(exchange, name, "again")
    buy(exchange, name, "again")
    control.set_id_rule("forever")
    with pytest.raises(refused, match="Duplicate order"):
        buy(exchange, name, "again")
    control.set_id_rule("none")
    buy(exchange, name, "again", "50000")
    buy(exchange, name, "again", "50000")
    control.set_id_rule("open")
    assert len(control.ledger(name).by_client_id("again")) == 5
