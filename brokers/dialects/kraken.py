"""Kraken spot, REST (docs.kraken.com, "Spot REST": account data and trading)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from brokers.decimals import plain
from brokers.dialects import kraken_rows, kraken_stream
from brokers.dialects.answers import Row, distinct, member, moment, number, row, text
from brokers.dialects.base import UNTOLD, Dialect, if_served
from brokers.dialects.kraken_rows import CLOCKS_DIFFER
from brokers.errors import CredentialError, QueryFailedError, QuoteUnavailableError
from brokers.exchanges import KRAKEN_SPOT
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
)
from brokers.venue_client import Market, VenueClient, VenueRefusedError

UNKNOWN_ORDER = VenueError(("EOrder:Unknown order",))
NO_SUCH_ORDER = frozenset({"EOrder:Unknown order", "EOrder:Invalid order", "EQuery:Unknown order"})
UNKNOWN_METHOD = frozenset({"EGeneral:Unknown method"})
FEE_IN_QUOTE = "fciq"
LOOK_BACK = timedelta(days=1)
"""How far trades are listed where nobody says when their order began."""
LISTS = (("privatePostOpenOrders", "open"), ("privatePostClosedOrders", "closed"))

TYPES = {
    OrderType.MARKET: "market",
    OrderType.LIMIT: "limit",
    OrderType.STOP: "stop-loss",
    OrderType.STOP_LIMIT: "stop-loss-limit",
}


class KrakenSpot(Dialect):
    """A placement answers with nothing but the id; a client id is looked up in two lists."""

    profile = KRAKEN_SPOT
    placement = "result"
    market_facts = frozenset(
        {"altname", "wsname", "tick_size", "pair_decimals", "lot_decimals", "ordermin", "costmin"}
    )

    def check_secret(self, secret: str) -> None:
        try:
            base64.b64decode(secret, validate=True)
        except (binascii.Error, ValueError):
            raise CredentialError("a Kraken API secret is base64 text") from None

    def params(self, request: OrderRequest) -> dict[str, Any]:
        latest = datetime.now(UTC) + timedelta(seconds=self.profile.deadline or 0)
        return super().params(request) | {
            "oflags": FEE_IN_QUOTE,
            "deadline": latest.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def wire(self, request: OrderRequest, market: Market) -> Wire:
        prices = [value for value in (request.stop_price, request.price) if value is not None]
        fields: dict[str, str | Decimal] = {
            "pair": market["id"],
            "type": request.side.value,
            "ordertype": TYPES[request.type],
            "volume": request.quantity,
            "oflags": f"{FEE_IN_QUOTE},post" if request.post_only else FEE_IN_QUOTE,
            self.profile.client_id_field: self._client_id(request.identity),
        }
        # a stop's trigger takes the place of the price, its limit becomes the second price
        fields |= dict(zip(("price", "price2"), prices, strict=False))
        if "timeInForce" in self.params(request):
            fields["timeinforce"] = request.time_in_force.value.upper()
        return fields

    def read_error(self, body: str) -> VenueError | None:
        try:
            answer = json.loads(body)
        except ValueError:
            return None
        errors = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(errors, list) or not errors or "txid" in (answer.get("result") or {}):
            return None
        return VenueError(tuple(str(error) for error in errors))

    def placed(
        self, answer: Mapping[str, Any], request: OrderRequest, market: Market
    ) -> tuple[str, OrderReport | None]:
        answer = row(answer, "info")
        ids = member(answer, "txid")
        if not isinstance(ids, list) or len(ids) != 1 or not isinstance(ids[0], str) or not ids[0]:
            raise QueryFailedError("unreadable answer: not one order id")
        return ids[0], None

    def order(self, client: VenueClient, ref: OrderRef, market: Market) -> OrderReport | None:
        found = self._by_id(client, ref) if ref.broker_order_id else None
        if found is None and ref.identity:
            found = self._by_client_id(client, ref)
        if found is None:
            return None
        order_id, order = found
        symbol = ref.symbol if ref.identity else client.symbol_of(text(row(order, "descr"), "pair"))

        def again() -> OrderReport | None:
            now = self._by_id(client, OrderRef(ref.identity, ref.symbol, order_id, None))
            return None if now is None else kraken_rows.report(*now, symbol)

        return self._with_trades(
            kraken_rows.report(order_id, order, symbol),
            lambda: self._fills_of(client, market, order_id, order, ref.submitted_at),
            again,
        )

    def cancel(self, client: VenueClient, ref: OrderRef, market: Market) -> None:
        if ref.broker_order_id:
            naming = {"txid": ref.broker_order_id}
        else:
            naming = {self.profile.client_id_field: self._client_id(ref.identity)}
        result = row(row(client.call("privatePostCancelOrder", **naming)), "result")
        if not number(result, "count"):
            raise VenueRefusedError(UNKNOWN_ORDER)

    def nothing_to_cancel(self, error: VenueError) -> bool:
        return error.has(NO_SUCH_ORDER)

    def open_orders(self, client: VenueClient, market: Market | None) -> Sequence[OrderReport]:
        reports = []
        for order_id, order in kraken_rows.orders(client.call("privatePostOpenOrders"), "open"):
            symbol = client.symbol_of(text(row(order, "descr"), "pair"))
            if market is None or symbol == market["symbol"]:
                reports.append(kraken_rows.report(order_id, order, symbol))
        return reports

    def trades(self, client: VenueClient, market: Market, since: datetime) -> Sequence[FillReport]:
        names = {market["id"], row(market, "info").get("altname")}
        trades = self._history(client, since)
        mine = {k: t for k, t in trades.items() if t.get("pair") in names}
        return [fill for fill in self._fills(mine, market) if fill.at >= since]

    def balances(self, client: VenueClient) -> Sequence[BalanceReport]:
        held = row(row(client.call("privatePostBalanceEx")), "result")
        reports = [
            kraken_rows.balance(client.currency_of(asset), row(b)) for asset, b in held.items()
        ]
        return [report for report in reports if report.total]

    def instrument(self, market: Market) -> Instrument:
        info = row(market, "info")
        tick = (
            number(info, "tick_size")
            if "tick_size" in info
            else kraken_rows.ulp(info, "pair_decimals")
        )
        return Instrument(
            symbol=market["symbol"],
            venue_symbol=market["id"],
            base=market["base"],
            quote=market["quote"],
            quantity_step=kraken_rows.ulp(info, "lot_decimals"),
            price_tick=plain(tick),
            min_quantity=plain(number(info, "ordermin")) if "ordermin" in info else None,
            min_value=plain(number(info, "costmin")) if "costmin" in info else None,
        )

    def quote(self, client: VenueClient, market: Market) -> Quote:
        result = row(row(client.call("publicGetTicker", pair=market["id"])), "result")
        if len(result) != 1:
            raise QueryFailedError("unreadable answer: not one ticker")
        ticker = row(next(iter(result.values())))
        bid, ask, last = (kraken_rows.first(ticker, name) for name in ("b", "a", "c"))
        if not 0 < bid <= ask or last <= 0:
            raise QuoteUnavailableError(f"no two-sided market in {market['symbol']}")
        return Quote(market["symbol"], plain(bid), plain(ask), plain(last), datetime.now(UTC))

    def server_time(self, client: VenueClient) -> datetime:
        return moment(row(row(client.call("publicGetTime")), "result"), "unixtime")

    def permissions(self, client: VenueClient) -> Permissions:
        def ask() -> Permissions:
            answer = row(client.call("privatePostGetApiKeyInfo"))
            return kraken_rows.permissions(row(answer.get("result") or {}))

        try:
            return if_served(client, ask, UNTOLD)
        except VenueRefusedError as refusal:
            if refusal.error.has(UNKNOWN_METHOD):
                return UNTOLD
            raise

    async def subscribe(self, client: Any) -> bool:
        return await kraken_stream.subscribe(client)

    def subscription_answer(self, message: object) -> bool | None:
        return kraken_stream.subscription_answer(message)

    def stream_events(self, message: object) -> Sequence[Row]:
        return kraken_stream.events(message)

    def streamed(self, event: Row, client: VenueClient) -> OrderNews | None:
        return kraken_stream.streamed(event)

    def _by_id(self, client: VenueClient, ref: OrderRef) -> tuple[str, Row] | None:
        try:
            answer = client.call("privatePostQueryOrders", txid=ref.broker_order_id, trades="true")
        except VenueRefusedError as refusal:
            if refusal.error.has(NO_SUCH_ORDER):
                return None
            raise
        result = row(row(answer), "result")
        if ref.broker_order_id not in result:
            return None
        return ref.broker_order_id, row(result, ref.broker_order_id)

    def _by_client_id(self, client: VenueClient, ref: OrderRef) -> tuple[str, Row] | None:
        """Open orders first: an order can only move from there to the closed ones.

        A list that was not filtered is looked through; all open orders are in one answer.
        """
        wanted = self._client_id(ref.identity)
        for method, name in LISTS:
            answer = client.call(method, cl_ord_id=wanted, trades="true")
            orders = kraken_rows.orders(answer, name)
            ours = [found for found in orders if found[1].get("cl_ord_id") == wanted]
            if len(ours) > 1:
                raise QueryFailedError("two orders at the venue carry the same client id")
            if ours:
                return ours[0]
            kraken_rows.assert_absent(answer, name, ref.submitted_at)
        return None

    def _fills_of(
        self,
        client: VenueClient,
        market: Market,
        order_id: str,
        order: Row,
        sent_at: datetime | None,
    ) -> Sequence[FillReport]:
        began = sent_at or datetime.now(UTC) - LOOK_BACK
        opened = moment(order, "opentm") if order.get("opentm") else began - CLOCKS_DIFFER
        closed = moment(order, "closetm") if order.get("closetm") else None
        trades = self._history(client, opened, closed)
        mine = {k: t for k, t in trades.items() if t.get("ordertxid") == order_id}
        return self._fills(mine, market)

    def _fills(self, trades: Mapping[str, Row], market: Market) -> Sequence[FillReport]:
        return distinct(kraken_rows.fill(k, t, market, self.fees) for k, t in trades.items())

    def _history(
        self, client: VenueClient, since: datetime, until: datetime | None = None
    ) -> dict[str, Row]:
        """Trades by id, page by page; Kraken's bounds are whole seconds and leave out the first."""
        span = {"start": int(since.timestamp()) - 1}
        if until is not None:
            span["end"] = int(until.timestamp()) + 1
        trades: dict[str, Row] = {}
        offset = 0
        while True:
            answer = client.call("privatePostTradesHistory", ofs=offset, **span)
            result = row(row(answer), "result")
            page = row(result, "trades")
            trades |= {trade_id: row(trade) for trade_id, trade in page.items()}
            offset += len(page)
            if not page or kraken_rows.is_last(result, len(page), offset):
                return trades
