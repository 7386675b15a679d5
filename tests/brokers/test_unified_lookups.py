"""Orders of tier 2 looked for: what half a list proves, and an id that may be forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import ccxt
import pytest

from brokers.dialects import open_lists
from brokers.errors import NotShownError, QueryFailedError
from brokers.exchanges import PROFILES, ExchangeProfile
from brokers.plugins.ccxt import CcxtPlugin
from brokers.types import OrderRef, Side, VenueStatus
from tests.brokers.test_wire import EMPTY, IDENTITY, asked, plugin_of, symbol_of

__all__ = ["asked"]

pytestmark = pytest.mark.usefixtures("asked")
D = Decimal
FUTURES, BITGET = PROFILES["krakenfutures", "swap"], PROFILES["bitget", "spot"]
GATE, HTX, KUCOIN = PROFILES["gate", "spot"], PROFILES["htx", "spot"], PROFILES["kucoin", "spot"]
Answer = Callable[[dict[str, list[str]]], Any]


def answering(
    monkeypatch: pytest.MonkeyPatch, profile: ExchangeProfile, answers: Mapping[str, Any]
) -> CcxtPlugin:
    """A plugin whose venue gives these answers, by the path that is asked."""
    plugin = plugin_of(profile)

    def fetch(self: Any, url: str, *_args: object, **_kwargs: object) -> Any:
        parts = urlsplit(url)
        answer = answers[parts.path]
        answer = answer(parse_qs(parts.query)) if callable(answer) else answer
        self.gate.status = 200
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ccxt.Exchange, "fetch", fetch)
    return plugin


# --- Kraken Futures: an order that has ended ------------------------------------------------------

ORDER_ID = "85805e01-9eed-4395-8360-ed1a228237c9"
NONE_OPEN = {"result": "success", "openOrders": []}


def event(name: str, place: str, **changes: Any) -> dict[str, Any]:
    order = {
        "uid": ORDER_ID,
        "tradeable": "PF_XBTUSD",
        "direction": "Sell",
        "quantity": "0",
        "filled": "0.002",
        "timestamp": "1707258274849",
        "clientId": IDENTITY,
    }
    reason = changes.pop("reason", "")
    return {"event": {name: {place: order | changes, "reason": reason}}}


PLACED = event("OrderPlaced", "order", quantity="0.002", filled="0")
FILLED = event("OrderUpdated", "newOrder", reason="full_fill")
REST = {"quantity": "0.0015", "filled": "0.0005"}


def futures(
    monkeypatch: pytest.MonkeyPatch,
    events: list[dict[str, Any]],
    triggers: Sequence[dict[str, Any]] = (),
    shown: Sequence[dict[str, Any]] = (),
) -> CcxtPlugin:
    fill = {
        "fill_id": "f1",
        "order_id": ORDER_ID,
        "symbol": "PF_XBTUSD",
        "side": "sell",
        "size": "0.002",
        "price": "60000",
        "fillTime": "2024-02-06T22:24:34.849Z",
        "fillType": "taker",
    }
    return answering(
        monkeypatch,
        FUTURES,
        {
            "/derivatives/api/v3/orders/status": {"result": "success", "orders": [*shown]},
            "/derivatives/api/v3/openorders": NONE_OPEN,
            "/api/history/v2/orders": {"elements": events},
            "/api/history/v2/triggers": {"elements": [*triggers]},
            "/derivatives/api/v3/fills": {"result": "success", "fills": [fill]},
        },
    )


@pytest.mark.parametrize("known", [ORDER_ID, ""], ids=["by its id", "by ours"])
@pytest.mark.parametrize(
    ("events", "status", "filled"),
    [
        ([PLACED, FILLED], VenueStatus.FILLED, "0.002"),
        ([event("OrderPlaced", "order")], VenueStatus.FILLED, "0.002"),
        ([PLACED, event("OrderCancelled", "order", **REST)], VenueStatus.CANCELED, "0.0005"),
        (
            [event("OrderRejected", "order", quantity="0.002", filled="0")],
            VenueStatus.REJECTED,
            "0",
        ),
    ],
    ids=["filled later", "filled at once", "cancelled in part", "rejected"],
)
def test_the_end_of_a_futures_order_is_read_from_its_events(
    monkeypatch: pytest.MonkeyPatch,
    events: list[dict[str, Any]],
    status: VenueStatus,
    filled: str,
    known: str,
) -> None:
    plugin = futures(monkeypatch, events)
    found = plugin.fetch_order(OrderRef(IDENTITY, symbol_of(FUTURES), known, None))
    assert found is not None
    assert (found.status, found.side, found.broker_order_id) == (status, Side.SELL, ORDER_ID)
    assert (found.quantity, found.filled_quantity) == (D("0.002"), D(filled))


@pytest.mark.parametrize(
    "events",
    [[], [PLACED], [event("OrderPlaced", "order", **REST)], [{"event": {"OrderNotFound": {}}}]],
    ids=["none", "placed", "filled in part", "another"],
)
@pytest.mark.parametrize("known", [ORDER_ID, ""], ids=["by its id", "by ours"])
def test_a_futures_order_without_an_end_is_neither_cancelled_nor_absent(
    monkeypatch: pytest.MonkeyPatch, events: list[dict[str, Any]], known: str
) -> None:
    plugin = futures(monkeypatch, events)
    with pytest.raises(NotShownError, match="cannot prove"):
        plugin.fetch_order(OrderRef(IDENTITY, symbol_of(FUTURES), known, None))


def trigger(name: str, **changes: Any) -> dict[str, Any]:
    """As "Get trigger events" documents it: a trigger has a quantity and fills nothing itself."""
    told = event(name, "order", quantity="0.002", orderType="Stop", **changes)
    del told["event"][name]["order"]["filled"]
    return told


def status(said: str, **changes: Any) -> dict[str, Any]:
    order = {
        "type": "TRIGGER_ORDER",
        "orderId": ORDER_ID,
        "cliOrdId": IDENTITY,
        "symbol": "PF_XBTUSD",
        "side": "sell",
        "quantity": "0.002",
        "filled": "0",
        "reduceOnly": True,
        "timestamp": "2026-02-13T12:09:03.738Z",
        "lastUpdateTimestamp": "2026-02-13T12:09:03.738Z",
    }
    return {"order": order | changes, "status": said, "updateReason": None, "error": None}


@pytest.mark.parametrize("known", [ORDER_ID, ""], ids=["by its id", "by ours"])
def test_a_futures_stop_that_was_cancelled_while_it_waited_has_ended(
    monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    told = [
        trigger("OrderTriggerCancelled", reason="cancelled_by_user"),
        trigger("OrderTriggerPlaced"),
    ]
    plugin = futures(monkeypatch, [], told)
    found = plugin.fetch_order(OrderRef(IDENTITY, symbol_of(FUTURES), known, None))
    assert found is not None
    assert (found.status, found.side, found.broker_order_id) == (
        VenueStatus.CANCELED,
        Side.SELL,
        ORDER_ID,
    )
    assert (found.quantity, found.filled_quantity) == (D("0.002"), D(0))


@pytest.mark.parametrize(
    "names",
    [
        ["OrderTriggerPlaced"],
        ["OrderTriggerActivated", "OrderTriggerPlaced"],
        ["OrderTriggerCancelled", "OrderTriggerActivated"],
    ],
    ids=["waits", "woke", "woke and was cancelled"],
)
def test_a_futures_stop_that_waits_or_woke_is_not_cancelled(
    monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    plugin = futures(monkeypatch, [], [trigger(name) for name in names])
    with pytest.raises(NotShownError, match="cannot prove"):
        plugin.fetch_order(OrderRef(IDENTITY, symbol_of(FUTURES), ORDER_ID, None))


def test_a_futures_stop_that_woke_ended_as_its_order_did(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [trigger("OrderTriggerActivated"), trigger("OrderTriggerPlaced")]
    plugin = futures(monkeypatch, [FILLED], told)
    found = plugin.fetch_order(OrderRef(IDENTITY, symbol_of(FUTURES), ORDER_ID, None))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.FILLED, D("0.002"))


@pytest.mark.parametrize("filled", ["0", None], ids=["told", "null"])
@pytest.mark.parametrize(
    ("said", "reported"),
    [
        ("TRIGGER_PLACED", VenueStatus.OPEN),
        ("CANCELLED", VenueStatus.CANCELED),
        ("TRIGGER_ACTIVATION_FAILURE", VenueStatus.REJECTED),
    ],
)
def test_a_futures_stop_is_what_the_exchange_says(
    monkeypatch: pytest.MonkeyPatch, said: str, reported: VenueStatus, filled: str | None
) -> None:
    plugin = futures(monkeypatch, [], shown=[status(said, filled=filled)])
    found = plugin.fetch_order(OrderRef(IDENTITY, symbol_of(FUTURES), ORDER_ID, None))
    assert found is not None
    assert (found.status, found.filled_quantity) == (reported, D(0))


# --- ids that are forgotten -----------------------------------------------------------------------

UNKNOWN = {
    "Gate spot": {"label": "ORDER_NOT_FOUND", "message": "Order not found"},
    "HTX spot": {"status": "error", "err-code": "base-record-invalid", "err-msg": "invalid"},
}


@pytest.mark.parametrize(("profile", "seconds"), [(GATE, 1800), (HTX, 7200)])
def test_only_a_venue_that_still_knows_our_id_proves_an_order_absent(
    monkeypatch: pytest.MonkeyPatch, profile: ExchangeProfile, seconds: int
) -> None:
    plugin = plugin_of(profile)

    def refuse(self: Any, *_args: object, **_kwargs: object) -> Any:
        self.gate.status, self.gate.body = 404, json.dumps(UNKNOWN[profile.label])
        raise ccxt.OrderNotFound("not there")

    monkeypatch.setattr(ccxt.Exchange, "fetch", refuse)
    assert profile.remembers == seconds
    now = datetime.now(UTC)
    sought = OrderRef(IDENTITY, symbol_of(profile), "", now - timedelta(seconds=seconds - 60))
    assert plugin.fetch_order(sought) is None
    for sent_at in (now - timedelta(seconds=seconds + 1), None):
        with pytest.raises(NotShownError, match="forgets client ids"):
            plugin.fetch_order(replace(sought, submitted_at=sent_at))


def test_bitget_finds_a_filled_order_only_in_its_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    now = str(int(datetime.now(UTC).timestamp() * 1000))
    filled = {
        "symbol": "BTCUSDT",
        "orderId": "7",
        "clientOid": IDENTITY,
        "price": "60000",
        "size": "0.002",
        "orderType": "limit",
        "side": "sell",
        "status": "filled",
        "priceAvg": "60000",
        "baseVolume": "0.002",
        "quoteVolume": "120",
        "cTime": now,
        "uTime": now,
    }
    answers = {
        "/api/v2/spot/trade/unfilled-orders": {"code": "00000", "data": []},
        "/api/v2/spot/trade/history-orders": {"code": "00000", "data": [filled]},
        "/api/v2/spot/trade/fills": {"code": "00000", "data": []},
    }
    plugin = answering(monkeypatch, BITGET, answers)
    found = plugin.fetch_order(OrderRef(IDENTITY, symbol_of(BITGET), "", None))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.FILLED, D("0.002"))
    with pytest.raises(NotShownError, match="cannot prove"):
        plugin.fetch_order(OrderRef("f" * 32, symbol_of(BITGET), "", None))


# --- lists that may not be whole ------------------------------------------------------------------


def bitget_row(number: int) -> dict[str, Any]:
    return {
        "symbol": "BTCUSDT",
        "orderId": str(number),
        "clientOid": f"foreign{number}",
        "size": "0.002",
        "priceAvg": "50000",
        "orderType": "limit",
        "side": "buy",
        "status": "live",
        "baseVolume": "0",
        "cTime": "1695865232127",
    }


def gate_row(number: int, pair: str = "BTC_USDT") -> dict[str, Any]:
    return {
        "id": str(number),
        "text": f"t-foreign{number}",
        "create_time_ms": 1695865232127,
        "status": "open",
        "currency_pair": pair,
        "type": "limit",
        "side": "buy",
        "amount": "0.002",
        "price": "50000",
        "left": "0.002",
        "filled_total": "0",
    }


def htx_row(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "client-order-id": f"foreign{number}",
        "symbol": "btcusdt",
        "amount": "0.002",
        "price": "50000",
        "filled-amount": "0",
        "filled-cash-amount": "0",
        "filled-fees": "0",
        "type": "buy-limit",
        "state": "submitted",
        "created-at": 1695865232127,
    }


LISTS: dict[str, tuple[str, str, int, Callable[[int], Any]]] = {
    "Bitget spot": (
        "/api/v2/spot/trade/unfilled-orders",
        "limit",
        100,
        lambda count: {"code": "00000", "data": [bitget_row(n) for n in range(count)]},
    ),
    "Gate spot": (
        "/api/v4/spot/open_orders",
        "limit",
        100,
        lambda count: [
            {"currency_pair": "BTC_USDT", "orders": [gate_row(n) for n in range(count)]}
        ],
    ),
    "HTX spot": (
        "/v1/order/openOrders",
        "size",
        500,
        lambda count: {"status": "ok", "data": [htx_row(n) for n in range(count)]},
    ),
}


@pytest.mark.parametrize("profile", [BITGET, GATE, HTX], ids=lambda one: one.label)
def test_a_full_page_of_open_orders_is_not_taken_for_all(
    monkeypatch: pytest.MonkeyPatch, profile: ExchangeProfile
) -> None:
    path, field, size, made = LISTS[profile.label]
    there: list[int] = [size - 1]

    def page(query: dict[str, list[str]]) -> Any:
        assert query[field] == [str(size)]
        return made(there[0])

    plugin = answering(monkeypatch, profile, {path: page})
    assert len(plugin.open_orders()) == size - 1
    there[0] = size
    with pytest.raises(QueryFailedError, match="there may be more"):
        plugin.open_orders()


def test_a_full_page_of_waiting_stops_is_not_taken_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(query: dict[str, list[str]]) -> Any:
        assert query["pageSize"] == ["500"]
        row = {"symbol": "BTC-USDT", "side": "sell", "type": "market", "size": "0.002"}
        items = [row | {"id": f"vs{n}", "status": "NEW"} for n in range(500)]
        return {"code": "200000", "data": {"totalNum": 700, "items": items}}

    plugin = answering(monkeypatch, KUCOIN, EMPTY | {"/api/v1/stop-order": stops})
    with pytest.raises(QueryFailedError, match="there may be more"):
        plugin.open_orders()


def test_gate_shows_so_many_orders_of_each_market(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [
        {"currency_pair": "BTC_USDT", "orders": [gate_row(n) for n in range(60)]},
        {"currency_pair": "ETH_USDT", "orders": [gate_row(n, "ETH_USDT") for n in range(60, 120)]},
    ]
    plugin = answering(monkeypatch, GATE, {"/api/v4/spot/open_orders": pages})
    seen: list[int] = []
    whole = open_lists._whole
    monkeypatch.setattr(open_lists, "_whole", lambda *asked: seen.append(len(whole(*asked))) or [])
    plugin.open_orders()
    assert seen == [120]
