"""Venues that say less than they might: what nobody needs is not demanded, the rest is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import ccxt
import pytest

from brokers.dialects import unified_rows
from brokers.dialects.fees import Fees
from brokers.errors import QueryFailedError
from brokers.plugins.ccxt import CcxtPlugin
from brokers.types import OrderReport, OrderRequest, Outcome, Permissions, VenueStatus
from brokers.venue_client import VenueClient
from tests.brokers.contract import CCXT_VENUES, SYMBOLS, ccxt_plugin, limit, order, ref
from tests.venues.client import RunningVenue
from tests.venues.faults import Action, Fault, When

D = Decimal
Change = Callable[[Any], Any]
OKX_HISTORY, OKX_QUICK = "/api/v5/trade/fills-history", "/api/v5/trade/fills"
TRADES = {
    "binance": ("/api/v3/myTrades",),
    "kraken": ("/0/private/TradesHistory",),
    "bybit": ("/v5/execution/list",),
    "bybit-linear": ("/v5/execution/list",),
    "okx": (OKX_HISTORY, OKX_QUICK),
    "okx-swap": (OKX_HISTORY, OKX_QUICK),
}
ORDER = {
    "binance": "/api/v3/order",
    "bybit": "/v5/order/realtime",
    "bybit-linear": "/v5/order/realtime",
    "okx": "/api/v5/trade/order",
    "okx-swap": "/api/v5/trade/order",
}
PLACING = ORDER | dict.fromkeys(("bybit", "bybit-linear"), "/v5/order/create")
ECHO = {"binance": "clientOrderId", "bybit": "orderLinkId", "bybit-linear": "orderLinkId"}
ECHO |= dict.fromkeys(("okx", "okx-swap"), "clOrdId")
VALUE = {"binance": "cummulativeQuoteQty", "kraken": "price", "okx": "avgPx", "okx-swap": "avgPx"}
VALUE |= dict.fromkeys(("bybit", "bybit-linear"), "avgPrice")


class Answers:
    """Changes what venues answer, by the path that is asked; a number is an HTTP status instead."""

    def __init__(self) -> None:
        self.changes: dict[str, Change | int] = {}

    def __setitem__(self, path: str, change: Change | int) -> None:
        self.changes[path] = change

    def read(self, gate: Any, url: str, method: str, ask: Callable[[], Any]) -> Any:
        change = self.changes.get(urlsplit(url).path)
        if isinstance(change, int):
            gate.answered(url, method, change, {}, "<html>no such page</html>")
            raise ccxt.ExchangeNotAvailable("no such page")
        return ask() if change is None else change(ask())


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    made, whole = Answers(), ccxt.Exchange.fetch

    def fetch(self: Any, url: str, method: str = "GET", *rest: Any) -> Any:
        return made.read(self.gate, url, method, lambda: whole(self, url, method, *rest))

    monkeypatch.setattr(ccxt.Exchange, "fetch", fetch)
    return made


def without(*names: str) -> Change:
    def strip(answer: Any) -> Any:
        if isinstance(answer, dict):
            return {name: strip(value) for name, value in answer.items() if name not in names}
        return [strip(one) for one in answer] if isinstance(answer, list) else answer

    return strip


def saying(name: str, value: object) -> Change:
    def say(answer: Any) -> Any:
        if isinstance(answer, dict):
            told = {key: say(one) for key, one in answer.items()}
            return told | ({name: value} if name in answer else {})
        return [say(one) for one in answer] if isinstance(answer, list) else answer

    return say


def found(plugin: CcxtPlugin, request: OrderRequest, order_id: str = "") -> OrderReport:
    report = plugin.fetch_order(ref(request, order_id))
    assert report is not None
    return report


def filled(venue: RunningVenue, exchange: str) -> tuple[CcxtPlugin, OrderRequest]:
    """An account whose order has filled, and nobody has asked about it yet."""
    plugin, request = ccxt_plugin(exchange, venue.base_url), order(symbol=SYMBOLS[exchange])
    assert plugin.execute_order(request).outcome is Outcome.ACCEPTED
    return plugin, request


# --- trades ---------------------------------------------------------------------------------------

FEES = ("commission", "commissionAsset", "fee", "feeCcy", "execFee", "feeCurrency")


@pytest.mark.parametrize("exchange", CCXT_VENUES)
def test_a_trade_counts_without_its_fee_which_is_said_once(
    venue: RunningVenue, answers: Answers, exchange: str, caplog: pytest.LogCaptureFixture
) -> None:
    for path in TRADES[exchange]:
        answers[path] = without(*FEES)
    with caplog.at_level(logging.WARNING, "brokers.dialects.fees"):
        plugin, request = filled(venue, exchange)
        report = found(plugin, request)
        assert found(plugin, request) == report
    assert (report.status, report.filled_quantity) == (VenueStatus.FILLED, request.quantity)
    assert sum(fill.quantity for fill in report.fills) == request.quantity
    assert {(fill.fee, fill.fee_currency) for fill in report.fills} == {(D(0), "USDT")}
    assert caplog.text.count("leaves out the fees of trades") == 1


def test_a_placement_that_tells_trades_without_fees_is_booked_at_once(
    venue: RunningVenue, answers: Answers
) -> None:
    answers[PLACING["binance"]] = without(*FEES)
    request = order()
    result = ccxt_plugin("binance", venue.base_url).execute_order(request)
    assert result.report is not None
    assert sum(fill.quantity for fill in result.report.fills) == request.quantity
    assert {(fill.fee, fill.fee_currency) for fill in result.report.fills} == {(D(0), "USDT")}


@pytest.mark.parametrize("fee", [None, {"cost": None, "currency": None}, {"cost": "1"}])
def test_a_trade_that_ccxt_reads_counts_without_its_fee(fee: object) -> None:
    trade = {"id": "1", "amount": "2", "price": "3", "timestamp": 1_785_000_000_000, "fee": fee}
    market = {"symbol": "BTC/USDT", "quote": "USDT"}
    (fill,) = unified_rows.fills([trade], market, Fees("Bitget"))
    assert (fill.quantity, fill.fee, fill.fee_currency) == (D(2), D(0), "USDT")


@pytest.mark.parametrize(
    ("told", "fee", "coin"),
    [
        ({"fee": "0", "gt_fee": "0.0022", "point_fee": "0"}, "0.0022", "GT"),
        ({"fee": "0", "gt_fee": "0", "point_fee": "1.1"}, "1.1", "GATEPOINT"),
        ({"fee": "0.00001", "gt_fee": "0", "point_fee": "1.1"}, "0.00001", "BTC"),
        ({"fee": "0.00002", "gt_fee": "0", "point_fee": "0"}, "0.00002", "BTC"),
        ({"fee": "0", "gt_fee": "0", "point_fee": "0"}, "0", "BTC"),
    ],
    ids=["in GT", "in points", "in coins and points", "in coins", "none"],
)
def test_a_fee_gate_takes_from_another_coin_is_told(
    told: dict[str, str], fee: str, coin: str
) -> None:
    row = {
        "id": "2876130500",
        "create_time_ms": "1645464610777.399200",
        "currency_pair": "BTC_USDT",
        "side": "buy",
        "amount": "0.02",
        "price": "60000",
        "order_id": "125924049993",
        "fee_currency": "BTC",
    }
    gate = ccxt.gate()
    gate.number = str
    market = {"symbol": "BTC/USDT", "base": "BTC", "quote": "USDT"}
    (fill,) = unified_rows.fills([gate.parse_trade(row | told)], market, Fees("Gate"))
    assert (fill.fee, fill.fee_currency) == (D(fee), coin)


@pytest.mark.parametrize("exchange", ["bybit", "bybit-linear"])
def test_an_execution_that_does_not_tell_its_kind_is_a_trade(
    venue: RunningVenue, answers: Answers, exchange: str
) -> None:
    answers[TRADES[exchange][0]] = without("execType")
    plugin, request = filled(venue, exchange)
    assert sum(fill.quantity for fill in found(plugin, request).fills) == request.quantity


@pytest.mark.parametrize("exchange", CCXT_VENUES)
@pytest.mark.parametrize("change", [404, 500, without("tradeId", "id", "execId", "vol")])
def test_an_order_whose_trades_cannot_be_read_is_told_without_them(
    venue: RunningVenue, answers: Answers, exchange: str, change: Change | int
) -> None:
    for path in TRADES[exchange]:
        answers[path] = change
    plugin, request = filled(venue, exchange)
    report = found(plugin, request)
    assert (report.status, report.filled_quantity) == (VenueStatus.FILLED, request.quantity)
    assert report.fills == ()
    assert report.reason.startswith("its trades cannot be read: ")
    answers.changes.clear()
    report = found(plugin, request)
    assert (sum(fill.quantity for fill in report.fills), report.reason) == (request.quantity, "")


def test_trades_refused_for_the_time_of_the_question_are_asked_for_again(
    venue: RunningVenue, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    whole = VenueClient.call

    def call(self: VenueClient, method: str, **params: object) -> Any:
        if method == "privateGetMyTrades" and not refused:
            refused.append(method)
            venue.control.queue_faults(Fault(Action.CODE, When.BEFORE, code="-1021"))
        return whole(self, method, **params)

    plugin, request = filled(venue, "binance")
    monkeypatch.setattr(VenueClient, "call", call)
    report = found(plugin, request)
    assert (len(refused), sum(fill.quantity for fill in report.fills)) == (1, request.quantity)


@pytest.mark.parametrize("exchange", ["okx", "okx-swap"])
def test_okx_is_asked_for_its_latest_trades_where_it_has_no_history(
    venue: RunningVenue, answers: Answers, exchange: str
) -> None:
    answers[OKX_HISTORY] = 404
    plugin, request = filled(venue, exchange)
    report = found(plugin, request)
    assert (sum(fill.quantity for fill in report.fills), report.reason) == (request.quantity, "")


def test_krakens_trades_end_with_a_page_that_is_not_full(
    venue: RunningVenue, answers: Answers
) -> None:
    answers[TRADES["kraken"][0]] = without("count")
    plugin, since = ccxt_plugin("kraken", venue.base_url), datetime.now(UTC) - timedelta(minutes=1)
    for _ in range(51):
        assert plugin.execute_order(order()).outcome is Outcome.ACCEPTED
    assert len(plugin.trades_since(SYMBOLS["kraken"], since)) == 51


@pytest.mark.parametrize("known", [True, False], ids=["sent at", "whenever"])
def test_krakens_trades_are_found_though_it_does_not_tell_when_their_order_began(
    venue: RunningVenue, answers: Answers, *, known: bool
) -> None:
    answers["/0/private/QueryOrders"] = without("opentm", "closetm")
    plugin, request = ccxt_plugin("kraken", venue.base_url), order()
    sent_at = datetime.now(UTC) if known else None
    placed = plugin.execute_order(request)
    named = replace(ref(request, placed.broker_order_id), submitted_at=sent_at)
    report = plugin.fetch_order(named)
    assert report is not None
    assert (sum(fill.quantity for fill in report.fills), report.reason) == (request.quantity, "")


# --- echoes and values ----------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", ECHO)
def test_an_answer_need_not_repeat_the_id_it_was_asked_by(
    venue: RunningVenue, answers: Answers, exchange: str
) -> None:
    for path in (PLACING[exchange], ORDER[exchange]):
        answers[path] = without(ECHO[exchange])
    plugin, request = ccxt_plugin(exchange, venue.base_url), order(symbol=SYMBOLS[exchange])
    placed = plugin.execute_order(request)
    assert placed.outcome is Outcome.ACCEPTED, placed
    for order_id in ("", placed.broker_order_id):
        report = found(plugin, request, order_id)
        assert (report.broker_order_id, report.status) == (
            placed.broker_order_id,
            VenueStatus.FILLED,
        )


@pytest.mark.parametrize("exchange", ECHO)
@pytest.mark.parametrize("named", ["another", ""])
def test_an_answer_with_another_id_is_refused(
    venue: RunningVenue, answers: Answers, exchange: str, named: str
) -> None:
    plugin, request = ccxt_plugin(exchange, venue.base_url), order(symbol=SYMBOLS[exchange])
    answers[PLACING[exchange]] = saying(ECHO[exchange], named)
    assert plugin.execute_order(request).outcome is Outcome.UNKNOWN
    answers[ORDER[exchange]] = saying(ECHO[exchange], named)
    with pytest.raises(QueryFailedError, match="another order"):
        plugin.fetch_order(ref(request))


@pytest.mark.parametrize("exchange", ECHO)
def test_an_answer_about_another_order_is_refused_though_it_names_no_id_of_ours(
    venue: RunningVenue, answers: Answers, exchange: str
) -> None:
    plugin, request = filled(venue, exchange)
    known = found(plugin, request).broker_order_id
    answers[ORDER[exchange]] = lambda said: without(ECHO[exchange])(saying(ID[exchange], "7")(said))
    with pytest.raises(QueryFailedError, match="another order"):
        plugin.fetch_order(ref(request, known))


ID = {"binance": "orderId", "bybit": "orderId", "bybit-linear": "orderId"}
ID |= dict.fromkeys(("okx", "okx-swap"), "ordId")


def test_an_acceptance_that_tells_the_id_alone_is_one(
    venue: RunningVenue, answers: Answers
) -> None:
    answers[PLACING["binance"]] = lambda said: {"orderId": said["orderId"]}
    request = order()
    placed = ccxt_plugin("binance", venue.base_url).execute_order(request)
    assert (placed.outcome, placed.report) == (Outcome.ACCEPTED, None)
    assert placed.broker_order_id


@pytest.mark.parametrize("exchange", CCXT_VENUES)
def test_an_order_need_not_tell_what_it_traded_for(
    venue: RunningVenue, answers: Answers, exchange: str
) -> None:
    plugin, request = filled(venue, exchange)
    path = ORDER.get(exchange, "/0/private/ClosedOrders")
    answers[path] = without(VALUE[exchange])
    report = found(plugin, request)
    assert (report.filled_quantity, report.average_price) == (request.quantity, None)
    assert sum(fill.quantity for fill in report.fills) == request.quantity


@pytest.mark.parametrize(
    ("exchange", "path"),
    [
        ("binance", "/api/v3/openOrders"),
        ("bybit", "/v5/order/realtime"),
        ("okx", "/api/v5/trade/orders-pending"),
        ("kraken", "/0/private/OpenOrders"),
    ],
)
def test_working_orders_are_listed_without_ids_of_ours(
    venue: RunningVenue, answers: Answers, exchange: str, path: str
) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    placed = plugin.execute_order(limit())
    answers[path] = without("clientOrderId", "orderLinkId", "clOrdId", "cl_ord_id")
    told = [(one.broker_order_id, one.client_order_id) for one in plugin.open_orders()]
    assert told == [(placed.broker_order_id, "")]


# --- balances and keys ----------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", ["okx", "okx-swap"])
def test_okx_need_not_tell_cash_apart_from_equity(
    venue: RunningVenue, answers: Answers, exchange: str
) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    whole = {one.currency: one.total for one in plugin.balances()}
    answers["/api/v5/account/balance"] = renamed("cashBal", "eq")
    assert {one.currency: one.total for one in plugin.balances()} == whole


def renamed(name: str, other: str) -> Change:
    def rename(answer: Any) -> Any:
        if isinstance(answer, dict):
            kept = {key: rename(one) for key, one in answer.items() if key not in (name, other)}
            return kept | ({other: answer[name]} if name in answer else {})
        return [rename(one) for one in answer] if isinstance(answer, list) else answer

    return rename


@pytest.mark.parametrize(
    ("exchange", "path", "name"),
    [
        ("binance", "/api/v3/account", "locked"),
        ("kraken", "/0/private/BalanceEx", "hold_trade"),
        ("okx", "/api/v5/account/balance", "availBal"),
    ],
)
def test_balances_need_not_tell_what_orders_keep(
    venue: RunningVenue, answers: Answers, exchange: str, path: str, name: str
) -> None:
    plugin = ccxt_plugin(exchange, venue.base_url)
    whole = plugin.balances()
    answers[path] = without(name)
    assert plugin.balances() == whole


RIGHTS = {
    "binance": "/sapi/v1/account/apiRestrictions",
    "kraken": "/0/private/GetApiKeyInfo",
    "bybit": "/v5/user/query-api",
    "bybit-linear": "/v5/user/query-api",
    "okx": "/api/v5/account/config",
    "okx-swap": "/api/v5/account/config",
}


@pytest.mark.parametrize("exchange", CCXT_VENUES)
@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_venue_that_has_no_question_for_a_keys_rights_does_not_tell(
    venue: RunningVenue, answers: Answers, exchange: str, status: int
) -> None:
    answers[RIGHTS[exchange]] = status
    told = ccxt_plugin(exchange, venue.base_url).check_permissions()
    assert told == Permissions(None, None, None, "this venue does not tell")


@pytest.mark.parametrize("exchange", CCXT_VENUES)
@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_question_for_a_keys_rights_that_failed_tells_nothing(
    venue: RunningVenue, answers: Answers, exchange: str, status: int
) -> None:
    answers[RIGHTS[exchange]] = status
    with pytest.raises(QueryFailedError):
        ccxt_plugin(exchange, venue.base_url).check_permissions()


# --- Kraken's lists, when they are not filtered ---------------------------------------------------

OPEN, CLOSED = "/0/private/OpenOrders", "/0/private/ClosedOrders"


@contextmanager
def unfiltered() -> Iterator[None]:
    """The venue lists all orders, whatever id is asked for."""
    whole = VenueClient.call

    def call(self: VenueClient, method: str, **params: object) -> Any:
        if method.endswith("Orders"):
            params.pop("cl_ord_id", None)
        return whole(self, method, **params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VenueClient, "call", call)
        yield


def lost(plugin: CcxtPlugin, venue: RunningVenue, when: When) -> OrderRequest:
    request = order()
    venue.control.queue_faults(Fault(Action.DROP, when))
    assert plugin.execute_order(request).outcome is Outcome.UNKNOWN
    return request


@pytest.fixture
def kraken(venue: RunningVenue) -> CcxtPlugin:
    """An account with an order at rest and one that has ended."""
    plugin = ccxt_plugin("kraken", venue.base_url)
    for request in (limit(), order()):
        assert plugin.execute_order(request).outcome is Outcome.ACCEPTED
    return plugin


def test_an_order_is_found_in_lists_that_are_not_filtered(
    venue: RunningVenue, kraken: CcxtPlugin
) -> None:
    request = lost(kraken, venue, When.AFTER)
    with unfiltered():
        report = found(kraken, request)
    assert report.client_order_id == kraken.client_order_id(request.identity)
    assert (report.status, report.filled_quantity) == (VenueStatus.FILLED, request.quantity)


def test_an_order_in_neither_whole_list_is_absent(venue: RunningVenue, kraken: CcxtPlugin) -> None:
    request = lost(kraken, venue, When.BEFORE)
    with unfiltered():
        assert kraken.fetch_order(ref(request)) is None


@pytest.mark.parametrize("count", [51, None], ids=["counted", "a full page"])
def test_a_closed_list_that_goes_on_proves_nothing(
    venue: RunningVenue, kraken: CcxtPlugin, answers: Answers, count: int | None
) -> None:
    if count is None:
        for _ in range(50):
            assert kraken.execute_order(order()).outcome is Outcome.ACCEPTED
        answers[CLOSED] = without("count")
    else:
        answers[CLOSED] = saying("count", count)
    request = lost(kraken, venue, When.BEFORE)
    with unfiltered(), pytest.raises(QueryFailedError, match="only the latest"):
        kraken.fetch_order(ref(request))


@pytest.mark.parametrize("path", [OPEN, CLOSED])
def test_an_order_without_an_id_that_may_be_ours_proves_nothing(
    venue: RunningVenue, kraken: CcxtPlugin, answers: Answers, path: str
) -> None:
    """Placed by hand, or ours at a venue that does not repeat ids."""
    answers[path] = without("cl_ord_id")
    request = lost(kraken, venue, When.BEFORE)
    later = datetime.now(UTC) + timedelta(minutes=5)
    with unfiltered():
        for sent_at in (None, datetime.now(UTC)):
            with pytest.raises(QueryFailedError, match="may be ours"):
                kraken.fetch_order(replace(ref(request), submitted_at=sent_at))
        # all of them began long before this one was sent
        assert kraken.fetch_order(replace(ref(request), submitted_at=later)) is None
