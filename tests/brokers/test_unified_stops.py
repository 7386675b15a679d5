"""Stops in a list of their own, tier 2: what waits, what woke, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import ccxt
import pytest

from brokers.errors import NotShownError, QueryFailedError
from brokers.exchanges import PROFILES, ExchangeProfile
from brokers.plugins.ccxt import CcxtPlugin
from brokers.types import OrderRef, Outcome, Side, VenueStatus
from tests.brokers.test_wire import EMPTY, IDENTITY, asked, plugin_of, symbol_of

__all__ = ["asked"]

pytestmark = pytest.mark.usefixtures("asked")
D = Decimal
NOW = int(datetime.now(UTC).timestamp() * 1000)
USDM, KUCOIN = PROFILES["binanceusdm", "swap"], PROFILES["kucoin", "spot"]
Said = Mapping[str, Any] | list[Any]
Fields = dict[str, str]
Answer = Said | Callable[[Fields], Said]


class Venue:
    """Gives these answers by what is asked, and notes the requests that write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, profile: ExchangeProfile) -> None:
        self.plugin: CcxtPlugin = plugin_of(profile)
        self.answers: dict[str, Answer] = {}
        self.written: list[str] = []
        self.symbol = symbol_of(profile)
        venue = self

        def fetch(
            self: Any, url: str, method: str = "GET", headers: object = None, body: object = None
        ) -> Any:
            parts = urlsplit(url)
            if method != "GET":
                venue.written.append(f"{method} {parts.path}")
            fields = {name: told[0] for name, told in parse_qs(parts.query).items()}
            answer = venue.answers[f"{method} {parts.path}"]
            said = answer(fields) if callable(answer) else answer
            self.gate.status, self.gate.body = 200, json.dumps(said)
            if isinstance(said, Mapping) and str(said.get("code", "200000")) not in (
                "200000",
                "200",
            ):
                raise ccxt.ExchangeError("refused")
            return json.loads(json.dumps(said))

        monkeypatch.setattr(ccxt.Exchange, "fetch", fetch)

    def named(self, broker_order_id: str) -> OrderRef:
        return OrderRef(IDENTITY, self.symbol, broker_order_id, None)


# --- Binance USD-M: the algo service --------------------------------------------------------------

NO_SUCH = {"code": -2013, "msg": "Order does not exist."}
UNKNOWN = {"code": -2011, "msg": "Unknown order sent."}


def algo(status: str, **changes: Any) -> dict[str, Any]:
    """As "Query Algo Order" documents it; `actual` members as the service was seen to answer."""
    return {
        "algoId": 2146760,
        "clientAlgoId": IDENTITY,
        "algoType": "CONDITIONAL",
        "orderType": "STOP_MARKET",
        "symbol": "BTCUSDT",
        "side": "SELL",
        "positionSide": "BOTH",
        "timeInForce": "GTC",
        "quantity": "0.002",
        "algoStatus": status,
        "actualOrderId": "",
        "actualPrice": "0.00000",
        "triggerPrice": "55000.00",
        "price": "0.00",
        "icebergQuantity": None,
        "tpOrderType": "",
        "selfTradePreventionMode": "EXPIRE_MAKER",
        "workingType": "CONTRACT_PRICE",
        "priceMatch": "NONE",
        "closePosition": False,
        "priceProtect": False,
        "reduceOnly": True,
        "createTime": 1775461924247,
        "updateTime": 1775461936135,
        "triggerTime": 0,
        "goodTillDate": 0,
    } | changes


WOKEN = {"actualOrderId": "974828356187", "triggerTime": 1775461936114}
DONE = WOKEN | {"actualPrice": "54990.00000", "actualQty": "0.002", "actualType": "MARKET"}


def child(status: str, filled: str = "0") -> dict[str, Any]:
    return {
        "orderId": 974828356187,
        "symbol": "BTCUSDT",
        "status": status,
        "clientOrderId": "of-the-service",
        "price": "0",
        "avgPrice": "54990.00" if filled != "0" else "0.00",
        "origQty": "0.002",
        "executedQty": filled,
        "cumQuote": "0",
        "timeInForce": "GTC",
        "type": "MARKET",
        "reduceOnly": True,
        "side": "SELL",
        "positionSide": "BOTH",
        "time": 1775461936114,
        "updateTime": 1775461936114,
    }


TRADE = {
    "id": 77,
    "orderId": 974828356187,
    "symbol": "BTCUSDT",
    "side": "SELL",
    "price": "54990.00",
    "qty": "0.002",
    "commission": "0.044",
    "commissionAsset": "USDT",
    "time": 1775461936120,
    "maker": False,
}


@pytest.fixture
def usdm(monkeypatch: pytest.MonkeyPatch) -> Venue:
    venue = Venue(monkeypatch, USDM)
    venue.answers = {
        "GET /fapi/v1/order": NO_SUCH,
        "GET /fapi/v1/algoOrder": NO_SUCH,
        "GET /fapi/v1/userTrades": lambda fields: [] if "fromId" in fields else [TRADE],
        "DELETE /fapi/v1/algoOrder": UNKNOWN,
    }
    return venue


def put_in(row: dict[str, Any]) -> Callable[[Fields], Said]:
    return lambda fields: row if fields.get("orderId") == "974828356187" else NO_SUCH


@pytest.mark.parametrize("known", ["stop-2146760", ""], ids=["by its id", "by ours"])
@pytest.mark.parametrize("status", ["TRIGGERED", "FINISHED"])
def test_a_stop_that_woke_and_filled_is_booked_as_the_order_it_put_in(
    usdm: Venue, status: str, known: str
) -> None:
    usdm.answers["GET /fapi/v1/algoOrder"] = algo(status, **DONE)
    usdm.answers["GET /fapi/v1/order"] = put_in(child("FILLED", "0.002"))
    found = usdm.plugin.fetch_order(usdm.named(known))
    assert found is not None
    assert (found.broker_order_id, found.client_order_id) == ("stop-2146760", IDENTITY)
    assert (found.status, found.side, found.filled_quantity) == (
        VenueStatus.FILLED,
        Side.SELL,
        D("0.002"),
    )
    assert [(one.trade_id, one.quantity) for one in found.fills] == [("77", D("0.002"))]


def test_a_woken_stop_whose_order_rests_is_working_and_cancelled_as_that_order(
    usdm: Venue,
) -> None:
    usdm.answers["GET /fapi/v1/algoOrder"] = algo("TRIGGERED", **WOKEN)
    usdm.answers["GET /fapi/v1/order"] = put_in(child("NEW"))
    usdm.answers["DELETE /fapi/v1/order"] = child("CANCELED")
    found = usdm.plugin.fetch_order(usdm.named("stop-2146760"))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.OPEN, D(0))
    usdm.answers |= {"GET /fapi/v1/openOrders": [child("NEW")], "GET /fapi/v1/openAlgoOrders": []}
    assert [one.broker_order_id for one in usdm.plugin.open_orders()] == [found.listed_as]
    assert usdm.plugin.cancel_order(usdm.named("stop-2146760")).outcome is Outcome.ACCEPTED
    assert usdm.written == ["DELETE /fapi/v1/algoOrder", "DELETE /fapi/v1/order"]


@pytest.mark.parametrize("told", [{}, WOKEN], ids=["without its order", "its order not shown yet"])
@pytest.mark.parametrize("status", ["TRIGGERED", "FINISHED"])
def test_a_woken_stop_is_never_ended_without_the_order_it_put_in(
    usdm: Venue, status: str, told: dict[str, Any]
) -> None:
    usdm.answers["GET /fapi/v1/algoOrder"] = algo(status, **told)
    with pytest.raises(NotShownError, match="is not shown"):
        usdm.plugin.fetch_order(usdm.named("stop-2146760"))


@pytest.mark.parametrize(
    ("status", "reported"),
    [
        ("NEW", VenueStatus.OPEN),
        ("TRIGGERING", VenueStatus.OPEN),
        ("CANCELED", VenueStatus.CANCELED),
        ("EXPIRED", VenueStatus.EXPIRED),
        ("REJECTED", VenueStatus.REJECTED),
    ],
)
def test_a_stop_that_never_woke_has_traded_nothing(
    usdm: Venue, status: str, reported: VenueStatus
) -> None:
    usdm.answers["GET /fapi/v1/algoOrder"] = algo(status)
    found = usdm.plugin.fetch_order(usdm.named("stop-2146760"))
    assert found is not None
    assert (found.status, found.filled_quantity) == (reported, D(0))
    assert (found.broker_order_id, found.listed_as) == ("stop-2146760", "")


def test_a_stop_that_was_cancelled_before_is_nothing_to_cancel(usdm: Venue) -> None:
    usdm.answers["GET /fapi/v1/algoOrder"] = algo("CANCELED")
    assert usdm.plugin.cancel_order(usdm.named("stop-2146760")).outcome is Outcome.REJECTED
    assert usdm.written == ["DELETE /fapi/v1/algoOrder"]


def test_what_a_forgotten_stop_became_is_not_known(usdm: Venue) -> None:
    with pytest.raises(NotShownError, match="left its list"):
        usdm.plugin.fetch_order(usdm.named("stop-2146760"))


def test_only_waiting_stops_are_listed_as_such(usdm: Venue) -> None:
    woken = algo("TRIGGERED", **WOKEN) | {"algoId": 2146761}
    usdm.answers |= {
        "GET /fapi/v1/openOrders": [child("NEW")],
        "GET /fapi/v1/openAlgoOrders": [algo("NEW"), woken],
    }
    listed = usdm.plugin.open_orders()
    assert [one.broker_order_id for one in listed] == ["974828356187", "stop-2146760"]
    assert {one.status for one in listed} == {VenueStatus.OPEN}


def test_an_order_that_is_done_but_shows_no_trade_is_not_cancelled(usdm: Venue) -> None:
    usdm.answers["GET /fapi/v1/order"] = put_in(child("FILLED"))
    with pytest.raises(NotShownError, match="nothing traded"):
        usdm.plugin.fetch_order(usdm.named("974828356187"))


def test_an_order_that_is_done_with_a_part_was_cancelled_in_part(usdm: Venue) -> None:
    usdm.answers["GET /fapi/v1/order"] = put_in(child("FILLED", "0.001"))
    usdm.answers["GET /fapi/v1/userTrades"] = []
    found = usdm.plugin.fetch_order(usdm.named("974828356187"))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.CANCELED, D("0.001"))


# --- KuCoin: its rows of stops say nothing of trades ----------------------------------------------

STOP_ID = "vs9f6ou9e864rgq8000t4qnm"
NOT_THERE = {"code": "400100", "msg": "order_not_exist_or_not_allow_to_cancel"}


def kucoin_stop(status: str) -> dict[str, Any]:
    """As "Get Stop Order By OrderId" documents it."""
    return {
        "id": STOP_ID,
        "symbol": "BTC-USDT",
        "userId": "613a896885d8660006151f01",
        "status": status,
        "type": "market",
        "side": "sell",
        "price": None,
        "size": "0.00200000000000000000",
        "funds": None,
        "stp": None,
        "timeInForce": "GTC",
        "cancelAfter": -1,
        "postOnly": False,
        "hidden": False,
        "iceberg": False,
        "visibleSize": None,
        "channel": "API",
        "clientOid": IDENTITY,
        "remark": None,
        "tags": "partner:ccxt",
        "relatedNo": None,
        "orderTime": 1674146316994000028,
        "domainId": "kucoin",
        "tradeSource": "USER",
        "tradeType": "TRADE",
        "feeCurrency": "USDT",
        "createdAt": 1674146316994,
        "stop": "loss",
        "stopTriggerTime": None,
        "stopPrice": "55000.00000000000000000000",
    }


def kucoin_order(order_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": order_id,
        "symbol": "BTC-USDT",
        "opType": "DEAL",
        "type": "market",
        "side": "sell",
        "price": "0",
        "size": "0.002",
        "funds": "0",
        "dealSize": "0.002",
        "dealFunds": "109.98",
        "fee": "0.1",
        "feeCurrency": "USDT",
        "clientOid": IDENTITY,
        "cancelExist": False,
        "createdAt": NOW,
        "active": False,
    } | changes


def data(row: Any) -> dict[str, Any]:
    return {"code": "200000", "data": row}


@pytest.fixture
def kucoin(monkeypatch: pytest.MonkeyPatch) -> Venue:
    venue = Venue(monkeypatch, KUCOIN)
    trade = {
        "id": 5,
        "tradeId": 55,
        "orderId": STOP_ID,
        "symbol": "BTC-USDT",
        "side": "sell",
        "price": "54990",
        "size": "0.002",
        "fee": "0.1",
        "feeCurrency": "USDT",
        "createdAt": NOW,
    }
    venue.answers = {f"GET {path}": answer for path, answer in EMPTY.items()} | {
        f"GET /api/v1/stop-order/{STOP_ID}": NOT_THERE,
        "GET /api/v1/stop-order/queryOrderByClientOid": data([]),
        f"GET /api/v1/hf/orders/{STOP_ID}": NOT_THERE,
        f"GET /api/v1/hf/orders/client-order/{IDENTITY}": data(None),
        "GET /api/v1/hf/fills": data({"items": [trade], "lastId": 5}),
    }
    return venue


def test_an_account_with_a_waiting_stop_can_be_read(kucoin: Venue) -> None:
    row = kucoin_stop("NEW")
    kucoin.answers[f"GET /api/v1/stop-order/{STOP_ID}"] = data(row)
    kucoin.answers["GET /api/v1/stop-order"] = data({"totalNum": 1, "items": [row]})
    (listed,) = kucoin.plugin.open_orders()
    found = kucoin.plugin.fetch_order(kucoin.named(f"stop-{STOP_ID}"))
    assert listed == found
    assert (listed.status, listed.quantity, listed.filled_quantity) == (
        VenueStatus.OPEN,
        D("0.002"),
        D(0),
    )
    assert listed.broker_order_id == f"stop-{STOP_ID}"


def test_a_waiting_stop_is_found_by_our_id_though_the_orders_do_not_show_it(
    kucoin: Venue,
) -> None:
    kucoin.answers["GET /api/v1/stop-order/queryOrderByClientOid"] = data([kucoin_stop("NEW")])
    found = kucoin.plugin.fetch_order(kucoin.named(""))
    assert found is not None
    assert (found.status, found.broker_order_id) == (VenueStatus.OPEN, f"stop-{STOP_ID}")


@pytest.mark.parametrize("row", [data(kucoin_stop("TRIGGERED")), NOT_THERE], ids=["told", "gone"])
@pytest.mark.parametrize("keeps_its_id", [True, False])
def test_a_stop_that_woke_is_the_order_with_its_id_or_ours(
    kucoin: Venue, row: dict[str, Any], *, keeps_its_id: bool
) -> None:
    kucoin.answers[f"GET /api/v1/stop-order/{STOP_ID}"] = row
    order = data(kucoin_order(STOP_ID if keeps_its_id else "6478cf1439bdfc0001528a1d"))
    place = STOP_ID if keeps_its_id else f"client-order/{IDENTITY}"
    kucoin.answers[f"GET /api/v1/hf/orders/{place}"] = order
    found = kucoin.plugin.fetch_order(kucoin.named(f"stop-{STOP_ID}"))
    assert found is not None
    assert found.broker_order_id == f"stop-{STOP_ID}"
    assert (found.status, found.filled_quantity) == (VenueStatus.FILLED, D("0.002"))
    assert len(found.fills) == keeps_its_id


@pytest.mark.parametrize("status", ["CANCELLED", "CANCELED", "CANCEL"])
def test_a_stop_that_was_cancelled_has_ended(kucoin: Venue, status: str) -> None:
    kucoin.answers[f"GET /api/v1/stop-order/{STOP_ID}"] = data(kucoin_stop(status))
    found = kucoin.plugin.fetch_order(kucoin.named(f"stop-{STOP_ID}"))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.CANCELED, D(0))


def test_a_stop_that_was_cancelled_has_ended_where_only_the_orders_still_show_it(
    kucoin: Venue,
) -> None:
    """ccxt then says ``cancelled``."""
    never = {"stop": "loss", "stopTriggered": False, "dealSize": "0", "dealFunds": "0", "fee": "0"}
    ended = kucoin_order(STOP_ID, **never)
    kucoin.answers[f"GET /api/v1/hf/orders/{STOP_ID}"] = data(ended)
    found = kucoin.plugin.fetch_order(kucoin.named(f"stop-{STOP_ID}"))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.CANCELED, D(0))


@pytest.mark.parametrize("row", [data(kucoin_stop("TRIGGERED")), NOT_THERE], ids=["told", "gone"])
def test_a_stop_that_woke_or_vanished_is_not_cancelled_while_nobody_shows_its_order(
    kucoin: Venue, row: dict[str, Any]
) -> None:
    kucoin.answers[f"GET /api/v1/stop-order/{STOP_ID}"] = row
    with pytest.raises(QueryFailedError):
        kucoin.plugin.fetch_order(kucoin.named(f"stop-{STOP_ID}"))


def test_a_waiting_kucoin_stop_is_cancelled_in_its_list(kucoin: Venue) -> None:
    kucoin.answers[f"DELETE /api/v1/stop-order/{STOP_ID}"] = data({"cancelledOrderIds": [STOP_ID]})
    canceled = kucoin.plugin.cancel_order(kucoin.named(f"stop-{STOP_ID}"))
    assert canceled.outcome is Outcome.ACCEPTED
    assert kucoin.written == [f"DELETE /api/v1/stop-order/{STOP_ID}"]


def test_a_woken_kucoin_stop_that_rests_is_cancelled_as_an_order(kucoin: Venue) -> None:
    resting = kucoin_order(STOP_ID, dealSize="0", dealFunds="0", fee="0", active=True)
    kucoin.answers[f"DELETE /api/v1/stop-order/{STOP_ID}"] = NOT_THERE
    kucoin.answers[f"GET /api/v1/hf/orders/{STOP_ID}"] = data(resting)
    kucoin.answers[f"DELETE /api/v1/hf/orders/{STOP_ID}"] = data({"orderId": STOP_ID})
    canceled = kucoin.plugin.cancel_order(kucoin.named(f"stop-{STOP_ID}"))
    assert canceled.outcome is Outcome.ACCEPTED
    assert kucoin.written == [
        f"DELETE /api/v1/stop-order/{STOP_ID}",
        f"DELETE /api/v1/hf/orders/{STOP_ID}",
    ]
