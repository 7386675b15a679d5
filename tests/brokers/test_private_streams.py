"""Private streams as each exchange documents them: what events say, and where a stream connects."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from brokers import ccxt_stream, venue_client
from brokers.ccxt_stream import CcxtStream
from brokers.dialects.base import Dialect
from brokers.dialects.bybit import BybitLinear, BybitSpot
from brokers.dialects.kraken import KrakenSpot
from brokers.dialects.okx import OkxSpot, OkxSwap
from brokers.errors import ConfigurationError, QueryFailedError
from brokers.plugins.ccxt import DIALECTS
from brokers.streams import OrderNews
from brokers.transport import RequestRefusedError
from brokers.types import AccountConfig, Environment, FillReport, OrderReport, VenueStatus

D = Decimal

# docs.kraken.com, WebSocket v2, "executions"; a trade as an update carries it
KRAKEN: dict[str, Any] = {
    "order_id": "OK4GJX-KSTLS-7DZZO5", "order_userref": 3, "exec_id": "TGBB7L-HT5LX-J3BZ4A",
    "exec_type": "trade", "trade_id": 62887576, "symbol": "BTC/USD", "side": "sell",
    "last_qty": "0.005", "last_price": "26599.9", "liquidity_ind": "t", "cost": "132.9995",
    "order_status": "filled", "order_type": "limit", "timestamp": "2023-09-22T10:33:05.709993Z",
    "fee_usd_equiv": "0.3458", "fees": [{"asset": "USD", "qty": "0.3458"}],
}  # fmt: skip
# bybit-exchange.github.io/docs/v5/websocket/private/execution
BYBIT: dict[str, Any] = {
    "category": "linear", "symbol": "BTCUSDT", "closedSize": "", "execFee": "0.005061",
    "execId": "7e2ae69c-4edf-5800-a352-893d52b446aa", "execPrice": "30000.5", "execQty": "0.025",
    "execType": "Trade", "execValue": "750.0125", "feeRate": "0.0006", "tradeIv": "", "markIv": "",
    "blockTradeId": "", "markPrice": "30001", "indexPrice": "", "underlyingPrice": "",
    "leavesQty": "0.075", "orderId": "f6e324ff-99c2-4e89-9739-3086e47f9381",
    "orderLinkId": "ours", "orderPrice": "30000.5", "orderQty": "0.1", "orderType": "Market",
    "stopOrderType": "UNKNOWN", "side": "Sell", "execTime": "1672364174443", "isLeverage": "0",
    "isMaker": False, "seq": 4688002127,
}  # fmt: skip
# okx.com/docs-v5, "Order channel"
OKX: dict[str, Any] = {
    "instType": "SWAP", "instId": "BTC-USDT-SWAP", "ordId": "312269865356374016",
    "clOrdId": "ours", "algoId": "", "algoClOrdId": "", "px": "30000", "sz": "5",
    "ordType": "limit", "side": "buy", "posSide": "net", "tdMode": "cross", "accFillSz": "3",
    "fillPx": "30000", "tradeId": "1077", "fillSz": "2", "fillTime": "1597026383085",
    "fillFee": "-0.3", "fillFeeCcy": "USDT", "state": "partially_filled", "avgPx": "30000.5",
    "uTime": "1597026383085", "cTime": "1597026383000",
}  # fmt: skip


class Symbols:
    """A symbol list, where the plugin has a client that knows thousands."""

    def symbol_of(self, venue_symbol: str) -> str:
        return "BTC/USDT:USDT" if "BTC" in venue_symbol else venue_symbol

    def market(self, symbol: str) -> Mapping[str, Any]:
        info = {"ctVal": "0.01"}
        return {
            "id": "BTC-USDT-SWAP", "symbol": symbol, "base": "BTC", "quote": "USDT",
            "settle": "USDT", "contract": True, "info": info,
        }  # fmt: skip


def read(dialect: Dialect, message: object) -> OrderNews | None:
    [event] = dialect.stream_events(message)
    return dialect.streamed(event, Symbols())  # type: ignore[arg-type]


def fact(news: OrderNews | None) -> OrderReport:
    assert news is not None
    assert news.report is not None
    return news.report


def fill_of(news: OrderNews | None) -> FillReport:
    [fill] = fact(news).fills
    return fill


def kraken(**changes: Any) -> OrderNews | None:
    message = {"channel": "executions", "type": "update", "data": [KRAKEN | changes]}
    return read(KrakenSpot(), message)


def bybit(category: str = "linear", **changes: Any) -> OrderNews | None:
    dialect = BybitLinear() if category == "linear" else BybitSpot()
    event = BYBIT | {"category": category} | changes
    return read(dialect, {"topic": "execution", "creationTime": 1, "data": [event]})


def okx(**changes: Any) -> OrderNews | None:
    where = {"channel": "orders", "instType": "SWAP", "uid": "7"}
    return read(OkxSwap(), {"arg": where, "data": [OKX | changes]})


# --- what an event says ---------------------------------------------------------------------------


def test_a_kraken_trade_is_exact_and_names_its_order_by_krakens_id() -> None:
    news = kraken()
    assert news is not None
    assert (news.client_order_id, news.broker_order_id) == ("", "OK4GJX-KSTLS-7DZZO5")
    fill = fill_of(news)
    told = (fill.trade_id, fill.quantity, fill.price, fill.fee, fill.fee_currency)
    assert told == ("TGBB7L-HT5LX-J3BZ4A", D("0.005"), D("26599.9"), D("0.3458"), "USD")
    assert fill.at.isoformat() == "2023-09-22T10:33:05.709993+00:00"


def test_krakens_filled_is_an_end_only_with_the_total() -> None:
    assert fact(kraken()).status is VenueStatus.PARTIALLY_FILLED
    told = fact(kraken(cum_qty="0.011", order_qty="0.011", cl_ord_id="ours"))
    assert (told.status, told.filled_quantity) == (VenueStatus.FILLED, D("0.011"))
    assert told.client_order_id == "ours"


@pytest.mark.parametrize("kind", ["filled", "canceled", "expired", "restated", "never heard of"])
def test_an_end_at_kraken_is_a_hint_about_that_order(kind: str) -> None:
    news = kraken(exec_type=kind)
    assert news == OrderNews(broker_order_id="OK4GJX-KSTLS-7DZZO5")


@pytest.mark.parametrize("kind", ["pending_new", "new", "amended", "status", "iceberg_refill"])
def test_what_changes_nothing_at_kraken_says_nothing(kind: str) -> None:
    assert kraken(exec_type=kind) is None


def test_a_bybit_trade_is_exact_and_counts_what_is_left() -> None:
    news = bybit()
    assert fact(news).status is VenueStatus.PARTIALLY_FILLED
    assert (fact(news).quantity, fact(news).filled_quantity) == (D("0.1"), D("0.025"))
    fill = fill_of(news)
    told = (fill.trade_id, fill.quantity, fill.price, fill.fee, fill.fee_currency)
    name = "7e2ae69c-4edf-5800-a352-893d52b446aa"
    assert told == (name, D("0.025"), D("30000.5"), D("0.005061"), "USDT")
    assert fact(bybit(leavesQty="0")).status is VenueStatus.FILLED


def test_a_bybit_trade_that_does_not_tell_its_fee_or_the_coin_of_it_is_a_hint() -> None:
    news = bybit("spot")
    assert news == OrderNews("ours", broker_order_id="f6e324ff-99c2-4e89-9739-3086e47f9381")
    assert fill_of(bybit("spot", feeCurrency="BTC")).fee_currency == "BTC"
    assert bybit(execFee=None) == news


def test_bybits_funding_is_no_trade_and_other_categories_are_not_ours() -> None:
    assert bybit(execType="Funding") is None
    message = {"topic": "execution", "data": [BYBIT]}
    assert not BybitSpot().stream_events(message)


def test_an_okx_order_comes_in_base_units_with_the_trade_that_changed_it() -> None:
    news = okx()
    report, fill = fact(news), fill_of(news)
    assert (report.quantity, report.filled_quantity) == (D("0.05"), D("0.03"))
    told = (fill.trade_id, fill.quantity, fill.price, fill.fee, fill.fee_currency)
    assert told == ("BTC-USDT-SWAP-1077", D("0.02"), D("30000"), D("0.3"), "USDT")
    assert fact(okx(state="canceled", tradeId="", fillSz="0")).fills == ()


def test_the_order_of_a_triggered_okx_stop_is_the_stop() -> None:
    news = okx(clOrdId="", algoId="77", algoClOrdId="our stop")
    assert news is not None
    assert (news.client_order_id, news.broker_order_id) == ("our stop", "algo-77")
    assert fact(news).client_order_id == "our stop"


@pytest.mark.parametrize(
    ("told", "changes"),
    [
        (kraken, {"last_qty": 0.005}),
        (kraken, {"fees": []}),
        (kraken, {"timestamp": "soon"}),
        (bybit, {"execQty": 0.025}),
        (bybit, {"leavesQty": "some"}),
        (okx, {"state": "strange"}),
        (okx, {"fillSz": 2.0}),
    ],
)
def test_an_event_that_cannot_be_read_is_refused(told: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(QueryFailedError):
        told(**changes)


@pytest.mark.parametrize("dialect", [KrakenSpot(), BybitSpot(), OkxSpot()])
@pytest.mark.parametrize(
    "message", ["pong", None, [], {}, {"channel": "heartbeat"}, {"op": "pong"}, {"event": "login"}]
)
def test_what_is_about_no_order_says_nothing(dialect: Dialect, message: object) -> None:
    assert not dialect.stream_events(message)
    assert dialect.subscription_answer(message) is None


@pytest.mark.parametrize(
    ("dialect", "message", "granted"),
    [
        (KrakenSpot(), {"method": "subscribe", "success": True, "result": {}}, True),
        (KrakenSpot(), {"method": "subscribe", "success": False, "error": "no"}, False),
        (BybitSpot(), {"op": "subscribe", "success": True, "ret_msg": ""}, True),
        (BybitSpot(), {"op": "subscribe", "success": False, "ret_msg": "no"}, False),
        (OkxSpot(), {"event": "subscribe", "arg": {"channel": "orders"}}, True),
        (OkxSpot(), {"event": "error", "code": "60018", "msg": "no"}, False),
    ],
)
def test_the_answer_to_the_subscription_is_known(
    dialect: Dialect, message: object, granted: bool
) -> None:
    assert dialect.subscription_answer(message) is granted


def test_fractions_never_pass_through_a_float() -> None:
    said = b'{"data":[{"last_qty":0.1234567890123456789,"n":7}]}'
    assert ccxt_stream._exact(said) == {"data": [{"last_qty": "0.1234567890123456789", "n": 7}]}
    assert ccxt_stream._exact("pong") == "pong"


# --- where a stream may connect -------------------------------------------------------------------

SANDBOXES = {
    "Binance spot": "wss://ws-api.testnet.binance.vision",
    "Bybit spot": "wss://stream-testnet.bybit.com",
    "Bybit linear swap": "wss://stream-testnet.bybit.com",
    "OKX spot": "wss://wspap.okx.com:443",
    "OKX linear swap": "wss://wspap.okx.com:443",
}
LIVE = {
    "Binance spot": "wss://ws-api.binance.com:443",
    "Kraken spot": "wss://ws-auth.kraken.com",
    "Bybit spot": "wss://stream.bybit.com",
    "Bybit linear swap": "wss://stream.bybit.com",
    "OKX spot": "wss://ws.okx.com:443",
    "OKX linear swap": "wss://ws.okx.com:443",
}
STREAMED = {profile.label: dialect for profile, dialect in DIALECTS.items() if profile.stream}


def aimed(label: str, environment: Environment) -> Any:
    dialect = STREAMED[label]()
    keys = dict.fromkeys(dialect.profile.keys, "key")
    config = AccountConfig("1", "one", environment, {}, keys)
    return ccxt_stream._connected(dialect, config, lambda _, __: None)


def test_every_tier_1_exchange_is_streamed() -> None:
    assert set(STREAMED) == set(LIVE)


@pytest.mark.parametrize("label", SANDBOXES)
def test_a_sandbox_account_listens_to_the_sandbox_alone(label: str) -> None:
    sockets = aimed(label, Environment.SANDBOX).sockets
    assert SANDBOXES[label] in sockets
    assert not sockets & aimed(label, Environment.LIVE).sockets


@pytest.mark.parametrize("label", LIVE)
def test_a_live_account_listens_to_the_real_host(label: str) -> None:
    assert LIVE[label] in aimed(label, Environment.LIVE).sockets


def test_where_there_is_no_sandbox_nothing_is_listened_to() -> None:
    with pytest.raises(ConfigurationError, match="Kraken spot has no sandbox"):
        aimed("Kraken spot", Environment.SANDBOX)


def test_a_stream_that_stays_on_its_real_host_in_sandbox_mode_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered = venue_client._enter_sandbox

    def half_way(client: Any, profile: Any) -> None:
        real = client.urls["api"]["ws"]
        entered(client, profile)
        client.urls["api"]["ws"] = real

    monkeypatch.setattr(venue_client, "_enter_sandbox", half_way)
    with pytest.raises(ConfigurationError, match="OKX spot stayed on its real host"):
        aimed("OKX spot", Environment.SANDBOX)


@pytest.mark.parametrize("label", LIVE)
def test_no_connection_is_made_anywhere_else(label: str) -> None:
    async def dial() -> None:
        client = aimed(label, Environment.LIVE)
        try:
            with pytest.raises(RequestRefusedError, match="is not where this account listens"):
                client.client("wss://elsewhere.example.com/v2")
        finally:
            await client.close()

    asyncio.run(dial())


def test_an_unreadable_message_asks_about_everything() -> None:
    stream = CcxtStream(OkxSpot(), AccountConfig("1", "okx", Environment.LIVE, {}), None, None)  # type: ignore[arg-type]
    stream._heard(None, '{"arg":{"channel":"orders"},"data":"cut')
    assert stream._news.get_nowait() == OrderNews()
