"""Binance spot, REST v3 (developers.binance.com, "Spot API": trading and account endpoints)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from brokers.decimals import plain
from brokers.dialects import binance_stream
from brokers.dialects.answers import (
    Row,
    distinct,
    member,
    moment,
    number,
    number_if_told,
    row,
    rows,
    smallest,
    text,
)
from brokers.dialects.base import UNTOLD, Dialect, if_served, rests
from brokers.errors import QueryFailedError, QuoteUnavailableError
from brokers.exchanges import BINANCE_SPOT
from brokers.outcome import VenueError
from brokers.streams import OrderNews
from brokers.transport import Wire
from brokers.types import (
    BalanceReport,
    FillReport,
    Instrument,
    OrderRef,
    OrderReport,
    OrderRequest,
    OrderType,
    Permissions,
    Quote,
    Side,
    VenueStatus,
)
from brokers.venue_client import Market, VenueClient, VenueRefusedError

NO_SUCH_ORDER = frozenset({"-2013"})
NOTHING_TO_CANCEL = frozenset({"-2011"})
PAGE = 1000
ASSET_PRECISION = 8
"""Decimals of an asset where the symbol list does not tell them."""

STATUSES = {
    "NEW": VenueStatus.OPEN,
    "PENDING_NEW": VenueStatus.OPEN,
    "PENDING_CANCEL": VenueStatus.OPEN,
    "PARTIALLY_FILLED": VenueStatus.PARTIALLY_FILLED,
    "FILLED": VenueStatus.FILLED,
    "CANCELED": VenueStatus.CANCELED,
    "REJECTED": VenueStatus.REJECTED,
    "EXPIRED": VenueStatus.EXPIRED,
    "EXPIRED_IN_MATCH": VenueStatus.EXPIRED,
}
TYPES = {
    OrderType.MARKET: "MARKET",
    OrderType.LIMIT: "LIMIT",
    OrderType.STOP: "STOP_LOSS",
    OrderType.STOP_LIMIT: "STOP_LOSS_LIMIT",
}


class BinanceSpot(Dialect):
    """A client id may be used again once its order is closed; orders stay findable by it."""

    profile = BINANCE_SPOT
    market_facts = frozenset(
        {
            "filters",
            "baseAssetPrecision",
            "quoteAssetPrecision",
            "orderTypes",
            "pair",
            "contractType",
        }
    )

    def wire(self, request: OrderRequest, market: Market) -> Wire:
        fields: dict[str, str | Decimal] = {
            "symbol": market["id"],
            "side": request.side.value.upper(),
            "type": "LIMIT_MAKER" if request.post_only else TYPES[request.type],
            "quantity": request.quantity,
            self.profile.client_id_field: self._client_id(request.identity),
        }
        if request.price is not None:
            fields["price"] = request.price
        if request.stop_price is not None:
            fields["stopPrice"] = request.stop_price
        if rests(request) and not request.post_only:
            fields["timeInForce"] = request.time_in_force.value.upper()
        return fields

    def read_error(self, body: str) -> VenueError | None:
        try:
            answer = json.loads(body)
        except ValueError:
            return None
        if not isinstance(answer, dict) or "orderId" in answer or "code" not in answer:
            return None
        return VenueError((str(answer["code"]),), str(answer.get("msg", "")))

    def placed(
        self, answer: Mapping[str, Any], request: OrderRequest, market: Market
    ) -> tuple[str, OrderReport | None]:
        answer = row(answer, "info")
        self._assert_ours(answer.get("clientOrderId"), request.identity)
        order_id = text(answer, "orderId")
        try:
            fills = [
                self._fill(market, fill, answer, "tradeId", "transactTime")
                for fill in rows(answer.get("fills", []))
            ]
            return order_id, _report(answer, request.symbol, fills)
        except QueryFailedError:
            # the id alone proves that it is there; how it stands is asked
            return order_id, None

    def order(self, client: VenueClient, ref: OrderRef, market: Market) -> OrderReport | None:
        report = self._find(client, ref, market)
        if report is None:
            return None
        return self._with_trades(
            report,
            lambda: self._trades(client, market, orderId=report.broker_order_id),
            lambda: self._find(client, ref, market),
        )

    def cancel(self, client: VenueClient, ref: OrderRef, market: Market) -> None:
        answer = client.call("privateDeleteOrder", symbol=market["id"], **self._naming(ref))
        text(row(answer), "orderId")

    def nothing_to_cancel(self, error: VenueError) -> bool:
        return error.has(NOTHING_TO_CANCEL)

    def open_orders(self, client: VenueClient, market: Market | None) -> Sequence[OrderReport]:
        only = {} if market is None else {"symbol": market["id"]}
        found = rows(client.call("privateGetOpenOrders", **only))
        return [_report(order, client.symbol_of(text(order, "symbol")), ()) for order in found]

    def trades(self, client: VenueClient, market: Market, since: datetime) -> Sequence[FillReport]:
        start: dict[str, object] = {"startTime": int(since.timestamp() * 1000)}
        return [fill for fill in self._trades(client, market, **start) if fill.at >= since]

    def balances(self, client: VenueClient) -> Sequence[BalanceReport]:
        held = rows(member(row(client.call("privateGetAccount")), "balances"))
        reports = [_balance(client.currency_of(text(b, "asset")), b) for b in held]
        return [report for report in reports if report.total]

    def instrument(self, market: Market) -> Instrument:
        info = row(market, "info")
        told = {text(f, "filterType"): f for f in rows(info.get("filters") or [])}
        lot, market_lot = told.get("LOT_SIZE", {}), told.get("MARKET_LOT_SIZE", {})
        value = told.get("NOTIONAL") or told.get("MIN_NOTIONAL") or {}
        return Instrument(
            symbol=market["symbol"],
            venue_symbol=market["id"],
            base=market["base"],
            quote=market["quote"],
            quantity_step=_step(lot, "stepSize", info, "baseAssetPrecision"),
            price_tick=_step(told.get("PRICE_FILTER", {}), "tickSize", info, "quoteAssetPrecision"),
            min_quantity=_limit(lot, "minQty"),
            max_quantity=smallest(_limit(lot, "maxQty"), _limit(market_lot, "maxQty")),
            min_value=_limit(value, "minNotional"),
        )

    def quote(self, client: VenueClient, market: Market) -> Quote:
        found = row(client.call("publicGetTicker24hr", symbol=market["id"]))
        bid, ask, last = (number(found, name) for name in ("bidPrice", "askPrice", "lastPrice"))
        if not 0 < bid <= ask or last <= 0:
            raise QuoteUnavailableError(f"no two-sided market in {market['symbol']}")
        return Quote(market["symbol"], plain(bid), plain(ask), plain(last), datetime.now(UTC))

    async def subscribe(self, client: Any) -> bool:
        return await binance_stream.subscribe(client)

    def stream_events(self, message: object) -> Sequence[Row]:
        return binance_stream.events(message)

    def streamed(self, event: Row, client: VenueClient) -> OrderNews:
        return binance_stream.streamed(event, client.symbol_of, STATUSES)

    def server_time(self, client: VenueClient) -> datetime:
        return moment(row(client.call("publicGetTime")), "serverTime", per_second=1000)

    def permissions(self, client: VenueClient) -> Permissions:
        if not client.serves("sapi"):
            return Permissions(None, None, None, "the sandbox does not tell")
        question = "sapiGetAccountApiRestrictions"
        return if_served(client, lambda: _permissions(row(client.call(question))), UNTOLD)

    def _find(self, client: VenueClient, ref: OrderRef, market: Market) -> OrderReport | None:
        try:
            found = row(client.call("privateGetOrder", symbol=market["id"], **self._naming(ref)))
        except VenueRefusedError as refusal:
            if refusal.error.has(NO_SUCH_ORDER):
                return None
            raise
        self._assert_ours(found.get("clientOrderId"), ref.identity)
        if ref.broker_order_id and text(found, "orderId") != ref.broker_order_id:
            raise QueryFailedError("the answer is about another order")
        return _report(found, ref.symbol, ())

    def _naming(self, ref: OrderRef) -> dict[str, object]:
        if ref.broker_order_id:
            return {"orderId": ref.broker_order_id}
        return {"origClientOrderId": self._client_id(ref.identity)}

    def _trades(
        self, client: VenueClient, market: Market, **which: object
    ) -> tuple[FillReport, ...]:
        """All trades from a start on; a full page is followed by the next."""
        fills: list[FillReport] = []
        while True:
            page = rows(client.call("privateGetMyTrades", symbol=market["id"], limit=PAGE, **which))
            fills += [self._fill(market, trade, trade, "id", "time") for trade in page]
            if len(page) < PAGE:
                return distinct(fills)
            which.pop("startTime", None)
            which["fromId"] = int(text(page[-1], "id")) + 1

    def _fill(
        self, market: Market, trade: Row, timed: Row, id_name: str, time_name: str
    ) -> FillReport:
        asset = trade.get("commissionAsset")
        fee, currency = self.fees.paid(trade.get("commission"), asset, market)
        return FillReport(
            # trade ids count per symbol
            trade_id=f"{market['id']}-{text(trade, id_name)}",
            quantity=plain(number(trade, "qty")),
            price=plain(number(trade, "price")),
            fee=fee,
            fee_currency=currency,
            at=moment(timed, time_name, per_second=1000),
        )


def _report(order: Mapping[str, Any], symbol: str, fills: Sequence[FillReport]) -> OrderReport:
    status = STATUSES.get(text(order, "status"))
    if status is None:
        raise QueryFailedError(f"unreadable answer: order status {text(order, 'status')!r}")
    filled, value = number(order, "executedQty"), number_if_told(order, "cummulativeQuoteQty")
    return OrderReport(
        broker_order_id=text(order, "orderId"),
        client_order_id=str(order.get("clientOrderId") or ""),
        symbol=symbol,
        side=Side(text(order, "side").lower()),
        status=status,
        quantity=plain(number(order, "origQty")),
        filled_quantity=plain(filled),
        # a negative value means that Binance no longer knows it
        average_price=value / filled if filled > 0 and value and value > 0 else None,
        fills=distinct(fills),
    )


def _balance(currency: str, held: Row) -> BalanceReport:
    free, locked = number(held, "free"), number_if_told(held, "locked") or Decimal(0)
    return BalanceReport(currency, plain(free + locked), plain(free))


def _step(found: Row, name: str, info: Row, precision: str) -> Decimal:
    """A filter's step; zero switches the filter off and leaves the asset's precision, as none does."""
    step, digits = number_if_told(found, name), number_if_told(info, precision)
    if step and step > 0:
        return plain(step)
    return plain(Decimal(1).scaleb(-int(ASSET_PRECISION if digits is None else digits)))


def _limit(found: Row, name: str) -> Decimal | None:
    limit = number_if_told(found, name)
    return plain(limit) if limit and limit > 0 else None


def _permissions(found: Row) -> Permissions:
    return Permissions(
        trade=_flag(found, "enableSpotAndMarginTrading"),
        withdraw=_flag(found, "enableWithdrawals"),
        ip_restricted=_flag(found, "ipRestrict"),
    )


def _flag(found: Row, name: str) -> bool | None:
    value = found.get(name)
    return value if isinstance(value, bool) else None
