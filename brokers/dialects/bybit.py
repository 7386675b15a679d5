"""Bybit, REST v5, unified account: spot and linear perpetuals (bybit-exchange.github.io/docs/v5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from brokers.decimals import plain
from brokers.dialects import bybit_rows, bybit_stream, margin_setting
from brokers.dialects.answers import (
    Row,
    distinct,
    member,
    moment,
    once,
    row,
    rows,
    text,
)
from brokers.dialects.base import UNTOLD, Dialect, if_served
from brokers.errors import ConfigurationError, QueryFailedError, QuoteUnavailableError
from brokers.exchanges import BYBIT_LINEAR, BYBIT_SPOT, Endpoint
from brokers.outcome import VenueError
from brokers.streams import OrderNews
from brokers.transport import Wire
from brokers.types import (
    BalanceReport,
    FillReport,
    FundingReport,
    Instrument,
    OrderRef,
    OrderReport,
    OrderRequest,
    Permissions,
    PositionReport,
    Quote,
    Side,
    TimeInForce,
)
from brokers.venue_client import Market, VenueClient, VenueRefusedError

PAGE = 100
STOP = "tpslOrder"
SET_LEVERAGE = Endpoint("POST", "/v5/position/set-leverage")
MARGIN_MODES = {"cross": "REGULAR_MARGIN", "isolated": "ISOLATED_MARGIN"}
LONGEST_SPAN = timedelta(days=7)
"""How far apart the bounds of a question for trades may be."""


class BybitSpot(Dialect):
    """An id is taken once and for ever; orders are found by it while open and afterwards."""

    profile = BYBIT_SPOT
    placement = "result"
    market_facts = frozenset({"lotSizeFilter", "priceFilter", "fundingInterval"})
    category = "spot"
    kinds: Sequence[Mapping[str, str]] = ({"orderFilter": "Order"}, {"orderFilter": STOP})
    """What a cancel may be for; spot's look at one kind only ("Cancel Order"), and a stop that was
    triggered is of the other."""

    def params(self, request: OrderRequest) -> dict[str, Any]:
        found = super().params(request)
        if request.type.value == "limit" and request.time_in_force is TimeInForce.GTC:
            found.setdefault("timeInForce", "PostOnly" if request.post_only else "GTC")
        return found

    def wire(self, request: OrderRequest, market: Market) -> Wire:
        fields: dict[str, str | Decimal] = {
            "category": self.category,
            "symbol": market["id"],
            "side": request.side.value.capitalize(),
            "orderType": "Market" if request.price is None else "Limit",
            "qty": request.quantity,
            self.profile.client_id_field: self._client_id(request.identity),
        }
        if request.price is not None:
            fields["price"] = request.price
        if "timeInForce" in self.params(request):
            fields["timeInForce"] = self.params(request)["timeInForce"]
        if request.post_only:
            fields["timeInForce"] = "PostOnly"
        return fields | self._kind(request)

    def read_error(self, body: str) -> VenueError | None:
        try:
            answer = json.loads(body)
        except ValueError:
            return None
        if not isinstance(answer, dict) or answer.get("retCode") in (0, "0", None):
            return None
        return VenueError((str(answer["retCode"]),), str(answer.get("retMsg", "")))

    def placed(
        self, answer: Mapping[str, Any], request: OrderRequest, market: Market
    ) -> tuple[str, OrderReport | None]:
        info = row(answer, "info")
        self._assert_ours(info.get("orderLinkId"), request.identity)
        return text(info, "orderId"), None

    def order(self, client: VenueClient, ref: OrderRef, market: Market) -> OrderReport | None:
        report = self._find(client, ref, market)
        if report is None:
            return None
        return self._with_trades(
            report,
            lambda: self._executions(client, market, orderId=report.broker_order_id),
            lambda: self._find(client, ref, market),
        )

    def cancel(self, client: VenueClient, ref: OrderRef, market: Market) -> None:
        where = {"category": self.category, "symbol": market["id"]} | self._naming(ref)
        for kind in self.kinds:
            try:
                answer = client.call("privatePostV5OrderCancel", **where, **kind)
                break
            except VenueRefusedError as refusal:
                if kind is self.kinds[-1] or not self.nothing_to_cancel(refusal.error):
                    raise
        text(row(row(answer), "result"), "orderId")

    def nothing_to_cancel(self, error: VenueError) -> bool:
        return error.has(self.profile.absent)

    def open_orders(self, client: VenueClient, market: Market | None) -> Sequence[OrderReport]:
        only = self._scope(market)
        found = self._pages(client, "privateGetV5OrderRealtime", limit=50, openOnly=0, **only)
        return [bybit_rows.report(one, client.symbol_of(text(one, "symbol"))) for one in found]

    def trades(self, client: VenueClient, market: Market, since: datetime) -> Sequence[FillReport]:
        fills: list[FillReport] = []
        start, now = since, datetime.now(UTC)
        while start <= now:
            end = start + LONGEST_SPAN
            span = {"startTime": _milliseconds(start), "endTime": _milliseconds(end)}
            fills += self._executions(client, market, symbol=market["id"], **span)
            start = end
        return [fill for fill in distinct(fills) if fill.at >= since]

    def balances(self, client: VenueClient) -> Sequence[BalanceReport]:
        answer = client.call("privateGetV5AccountWalletBalance", accountType="UNIFIED")
        wallets = rows(member(row(row(answer), "result"), "list"))
        if len(wallets) != 1:
            raise QueryFailedError("unreadable answer: not one wallet")
        held = rows(member(wallets[0], "coin"))
        reports = [bybit_rows.balance(client.currency_of(text(b, "coin")), b) for b in held]
        return [report for report in reports if report.total]

    def instrument(self, market: Market) -> Instrument:
        return bybit_rows.instrument(market, self.profile.market_type)

    def quote(self, client: VenueClient, market: Market) -> Quote:
        where = {"category": self.category, "symbol": market["id"]}
        answer = client.call("publicGetV5MarketTickers", **where)
        listed = rows(member(row(row(answer), "result"), "list"))
        if len(listed) != 1:
            raise QueryFailedError("unreadable answer: not one ticker")
        names = ("bid1Price", "ask1Price", "lastPrice")
        bid, ask, last = (bybit_rows.amount(listed[0], name) for name in names)
        if not 0 < bid <= ask or last <= 0:
            raise QuoteUnavailableError(f"no two-sided market in {market['symbol']}")
        return Quote(market["symbol"], plain(bid), plain(ask), plain(last), datetime.now(UTC))

    def server_time(self, client: VenueClient) -> datetime:
        return moment(row(client.call("publicGetV5MarketTime")), "time", per_second=1000)

    def permissions(self, client: VenueClient) -> Permissions:
        def ask() -> Permissions:
            answer = row(client.call("privateGetV5UserQueryApi"))
            found = row(answer.get("result") or {})
            return bybit_rows.permissions(found, self.profile.market_type)

        return if_served(client, ask, UNTOLD)

    async def subscribe(self, client: Any) -> bool:
        return await bybit_stream.subscribe(client)

    def subscription_answer(self, message: object) -> bool | None:
        return bybit_stream.subscription_answer(message)

    def stream_events(self, message: object) -> Sequence[Row]:
        return bybit_stream.events(message, self.category)

    def streamed(self, event: Row, client: VenueClient) -> OrderNews | None:
        return bybit_stream.streamed(event, client, self.fees)

    def _kind(self, request: OrderRequest) -> dict[str, str | Decimal]:
        """What is only in some orders: the unit of a market order, the trigger of a stop."""
        fields: dict[str, str | Decimal] = {}
        if request.price is None:
            fields["marketUnit"] = "baseCoin"
        if request.stop_price is not None:
            fields |= {"triggerPrice": request.stop_price, "orderFilter": STOP}
            fields |= {"triggerDirection": _direction(request), "reduceOnly": "true"}
        return fields

    def _find(self, client: VenueClient, ref: OrderRef, market: Market) -> OrderReport | None:
        """Working and recent orders first: an order can only move from there to the history."""
        where = {"category": self.category, "symbol": market["id"]} | self._naming(ref)
        for question in ("privateGetV5OrderRealtime", "privateGetV5OrderHistory"):
            listed = rows(member(row(row(client.call(question, **where)), "result"), "list"))
            if len(listed) > 1:
                raise QueryFailedError("the venue did not answer with one order")
            if listed:
                return self._read(client, ref, listed[0])
        return None

    def _read(self, client: VenueClient, ref: OrderRef, found: Row) -> OrderReport:
        self._assert_ours(found.get("orderLinkId"), ref.identity)
        if ref.broker_order_id and text(found, "orderId") != ref.broker_order_id:
            raise QueryFailedError("the answer is about another order")
        symbol = ref.symbol if ref.identity else client.symbol_of(text(found, "symbol"))
        return bybit_rows.report(found, symbol)

    def _naming(self, ref: OrderRef) -> dict[str, object]:
        if ref.broker_order_id:
            return {"orderId": ref.broker_order_id}
        return {self.profile.client_id_field: self._client_id(ref.identity)}

    def _scope(self, market: Market | None) -> dict[str, object]:
        return {} if market is None else {"symbol": market["id"]}

    def _executions(
        self, client: VenueClient, market: Market, **which: object
    ) -> tuple[FillReport, ...]:
        found = self._pages(client, "privateGetV5ExecutionList", limit=PAGE, **which)
        trades = filter(bybit_rows.is_trade, found)
        return distinct(bybit_rows.fill(trade, market, self.fees) for trade in trades)

    def _pages(self, client: VenueClient, question: str, **which: object) -> list[Row]:
        found: list[Row] = []
        while True:
            answer = client.call(question, category=self.category, **which)
            page = row(row(answer), "result")
            found += rows(member(page, "list"))
            cursor = page.get("nextPageCursor")
            if not cursor or not page["list"]:
                return found
            which["cursor"] = cursor


class BybitLinear(BybitSpot):
    """Perpetuals settled in a stablecoin: one net position per symbol."""

    profile = BYBIT_LINEAR
    category = "linear"
    kinds = ({},)

    def params(self, request: OrderRequest) -> dict[str, Any]:
        found = super().params(request)
        if found.pop("stopLossPrice", None) is not None:
            direction = "ascending" if request.side is Side.BUY else "descending"
            found |= {"triggerPrice": f"{request.stop_price:f}", "triggerDirection": direction}
        if request.reduce_only:
            found["reduceOnly"] = True
        return found

    def prepare(self, client: VenueClient, market: Market) -> None:
        wanted = MARGIN_MODES[self.terms.margin_mode]
        account = row(row(client.call("privateGetV5AccountInfo")), "result")
        if text(account, "marginMode") != wanted:
            raise ConfigurationError(
                f"the account is in {text(account, 'marginMode')}, not {wanted}: change it there"
            )
        leverage = self._leverage(client, market)
        if self.terms.leverage is None or leverage == {self.terms.leverage}:
            return
        said = str(self.terms.leverage)
        fields = {"category": self.category, "symbol": market["id"]}
        fields |= {"buyLeverage": said, "sellLeverage": said}
        with margin_setting.announced(client, market, SET_LEVERAGE, fields):
            client.call("privatePostV5PositionSetLeverage", **fields)
        if self._leverage(client, market) != {self.terms.leverage}:
            raise ConfigurationError(f"{self.profile.label} kept another leverage than {said}")

    @property
    def tells_funding(self) -> bool:
        return True

    def funding(self, client: VenueClient, since: datetime) -> Sequence[FundingReport]:
        """From the transaction log, seven days at a time (v5 docs, "Get Transaction Log")."""
        found: list[Row] = []
        start, now = since, datetime.now(UTC)
        while start <= now:
            end = start + LONGEST_SPAN
            span = {"startTime": _milliseconds(start), "endTime": _milliseconds(end)}
            question = "privateGetV5AccountTransactionLog"
            found += self._pages(
                client, question, accountType="UNIFIED", type="SETTLEMENT", limit=50, **span
            )
            start = end
        paid = [one for one in found if bybit_rows.amount(one, "funding")]
        told = [bybit_rows.funding(one, client.symbol_of(text(one, "symbol"))) for one in paid]
        return once([one for one in told if one.at >= since])

    def _leverage(self, client: VenueClient, market: Market) -> set[Decimal]:
        """Read only where the account's terms name one. Raises ConfigurationError in hedge mode."""
        found = self._pages(client, "privateGetV5PositionList", symbol=market["id"])
        if any(bybit_rows.is_hedged(one) for one in found):
            raise ConfigurationError(f"{market['symbol']} is in hedge mode: FKS needs one-way mode")
        if self.terms.leverage is None:
            return set()
        return {bybit_rows.amount(one, "leverage") for one in found}

    def positions(self, client: VenueClient) -> Sequence[PositionReport]:
        listed: list[PositionReport] = []
        for coin in ("USDT", "USDC"):
            found = self._pages(client, "privateGetV5PositionList", settleCoin=coin, limit=200)
            for one in found:
                listed.append(bybit_rows.position(one, client.symbol_of(text(one, "symbol"))))
        # each once, as with open orders
        return [position for position in dict.fromkeys(listed) if position.quantity]

    def open_orders(self, client: VenueClient, market: Market | None) -> Sequence[OrderReport]:
        if market is not None:
            return super().open_orders(client, market)
        found = []
        for coin in ("USDT", "USDC"):
            more = {"limit": 50, "openOnly": 0, "settleCoin": coin}
            found += self._pages(client, "privateGetV5OrderRealtime", **more)
        # a venue that looks at no coin lists all of them each time
        each = {text(one, "orderId"): one for one in found}.values()
        return [bybit_rows.report(one, client.symbol_of(text(one, "symbol"))) for one in each]

    def _kind(self, request: OrderRequest) -> dict[str, str | Decimal]:
        fields: dict[str, str | Decimal] = {}
        if request.stop_price is not None:
            fields = {"triggerPrice": request.stop_price, "triggerDirection": _direction(request)}
        if request.reduce_only:
            fields["reduceOnly"] = "true"
        return fields


def _direction(request: OrderRequest) -> str:
    """1: triggered when the price rises to it, 2: when it falls to it."""
    return "1" if request.side is Side.BUY else "2"


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
