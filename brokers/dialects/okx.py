"""OKX, REST v5: spot and linear perpetuals (okx.com/docs-v5, "Order book trading").

Stops live in a list of their own ("algo orders") with ids of their own; a triggered one puts an
ordinary order into the other list. Our broker order id of a stop is its algo id behind ``algo-``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from brokers.decimals import plain
from brokers.dialects import margin_setting, okx_rows, okx_stream
from brokers.dialects.answers import Row, distinct, member, moment, number, once, row, rows, text
from brokers.dialects.base import UNTOLD, Dialect, if_served
from brokers.dialects.okx_rows import ALGO
from brokers.errors import (
    ConfigurationError,
    NotShownError,
    QueryFailedError,
    QuoteUnavailableError,
)
from brokers.exchanges import OKX_SPOT, OKX_SWAP, Endpoint
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
HISTORY, QUICK = "privateGetTradeFillsHistory", "privateGetTradeFills"
RECENT = timedelta(days=2)
"""Younger trades are in the quick list (three days), older ones in the history (three months)."""
SET_LEVERAGE = Endpoint("POST", "/api/v5/account/set-leverage")
STOP = "conditional"
MARKET_PRICE = "-1"


class OkxSpot(Dialect):
    """Paid from the account's coins."""

    profile = OKX_SPOT
    placement = "data.0"
    market_facts = frozenset(
        {"ctVal", "lotSz", "tickSz", "minSz", "maxMktSz", "instFamily", "ruleType", "uly"}
    )
    kind = "SPOT"

    @property
    def mode(self) -> str:
        """How an order is paid for."""
        return "cash"

    def params(self, request: OrderRequest) -> dict[str, Any]:
        found = super().params(request) | {"tdMode": self.mode}
        if request.stop_price is not None:
            found["algoClOrdId"] = self._client_id(request.identity)
        if request.reduce_only:
            found["reduceOnly"] = True
        return found

    def amount(self, request: OrderRequest, market: Market) -> Decimal:
        return plain(request.quantity / okx_rows.unit(market))

    def wire(self, request: OrderRequest, market: Market) -> Wire:
        ours = self._client_id(request.identity)
        fields: dict[str, str | Decimal] = {
            "instId": market["id"],
            "side": request.side.value,
            "sz": self.amount(request, market),
            "tdMode": self.mode,
            "clOrdId": ours,
        }
        if request.reduce_only:
            fields["reduceOnly"] = "true"
        if self.kind == "SPOT" and (request.stop_price is None or request.side is Side.BUY):
            fields["tgtCcy"] = "base_ccy"
        if request.stop_price is not None:
            fields |= {"ordType": STOP, "algoClOrdId": ours, "slTriggerPxType": "last"}
            limit = MARKET_PRICE if request.price is None else request.price
            return fields | {"slTriggerPx": request.stop_price, "slOrdPx": limit}
        if request.price is not None:
            fields["px"] = request.price
        return fields | {"ordType": _order_type(request)}

    def read_error(self, body: str) -> VenueError | None:
        try:
            answer = json.loads(body)
        except ValueError:
            return None
        if not isinstance(answer, dict) or str(answer.get("code", "0")) == "0":
            return None
        data = answer.get("data")
        first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
        if first.get("sCode") not in (None, "0"):
            return VenueError((str(first["sCode"]),), str(first.get("sMsg", "")))
        return VenueError((str(answer["code"]),), str(answer.get("msg", "")))

    def placed(
        self, answer: Mapping[str, Any], request: OrderRequest, market: Market
    ) -> tuple[str, OrderReport | None]:
        info = row(answer, "info")
        stop = request.stop_price is not None
        self._assert_ours(info.get("algoClOrdId" if stop else "clOrdId"), request.identity)
        return (ALGO + text(info, "algoId") if stop else text(info, "ordId")), None

    def order(self, client: VenueClient, ref: OrderRef, market: Market) -> OrderReport | None:
        if not ref.broker_order_id.startswith(ALGO):
            found = self._plain(client, market, self._naming(ref), ref)
            if found is not None:
                return self._reported(client, market, found)
        if ref.broker_order_id and not ref.broker_order_id.startswith(ALGO):
            return None
        algo = self._algo(client, ref)
        if algo is not None and not ref.identity:
            market = self._market(client, algo)
        return None if algo is None else self._algo_reported(client, market, algo)

    def cancel(self, client: VenueClient, ref: OrderRef, market: Market) -> None:
        if not ref.broker_order_id.startswith(ALGO):
            where = {"instId": market["id"]} | self._naming(ref)
            try:
                _done(client.call("privatePostTradeCancelOrder", **where))
            except VenueRefusedError as refusal:
                if ref.broker_order_id or not self.nothing_to_cancel(refusal.error):
                    raise
            else:
                return
        algo = self._algo(client, ref)
        if algo is None:
            raise VenueRefusedError(okx_rows.NOT_FOUND)
        child = okx_rows.child_of(algo)
        if child is None:
            one = {"instId": market["id"], "algoId": text(algo, "algoId")}
            _done(client.post("privatePostTradeCancelAlgos", [one]))
        else:
            where = {"instId": market["id"], "ordId": child}
            _done(client.call("privatePostTradeCancelOrder", **where))

    def nothing_to_cancel(self, error: VenueError) -> bool:
        return error.has(self.profile.absent)

    def open_orders(self, client: VenueClient, market: Market | None) -> Sequence[OrderReport]:
        only = {"instType": self.kind} | ({} if market is None else {"instId": market["id"]})
        reports = []
        for found in self._pages(client, "privateGetTradeOrdersPending", "ordId", **only):
            reports.append(okx_rows.report(found, self._shown(client, found)))
        for algo in self._stops(client, **only):
            reports.append(okx_rows.waiting(algo, self._shown(client, algo)))
        return reports

    def trades(self, client: VenueClient, market: Market, since: datetime) -> Sequence[FillReport]:
        begin = int(since.timestamp() * 1000)
        old = datetime.now(UTC) - since > RECENT
        question = HISTORY if old else QUICK
        fills = self._fills(client, market, question, instId=market["id"], begin=begin)
        return [fill for fill in fills if fill.at >= since]

    def balances(self, client: VenueClient) -> Sequence[BalanceReport]:
        answer = rows(member(row(client.call("privateGetAccountBalance")), "data"))
        if len(answer) != 1:
            raise QueryFailedError("unreadable answer: not one account")
        held = rows(member(answer[0], "details"))
        reports = [okx_rows.balance(client.currency_of(text(b, "ccy")), b) for b in held]
        return [report for report in reports if report.total]

    def instrument(self, market: Market) -> Instrument:
        return okx_rows.instrument(market, self.profile.market_type)

    def quote(self, client: VenueClient, market: Market) -> Quote:
        answer = client.call("publicGetMarketTicker", instId=market["id"])
        listed = rows(member(row(answer), "data"))
        if len(listed) != 1:
            raise QueryFailedError("unreadable answer: not one ticker")
        names = ("bidPx", "askPx", "last")
        bid, ask, last = (okx_rows.amount(listed[0], name) for name in names)
        if not 0 < bid <= ask or last <= 0:
            raise QuoteUnavailableError(f"no two-sided market in {market['symbol']}")
        return Quote(market["symbol"], plain(bid), plain(ask), plain(last), datetime.now(UTC))

    def server_time(self, client: VenueClient) -> datetime:
        listed = rows(member(row(client.call("publicGetPublicTime")), "data"))
        return moment(listed[0] if listed else {}, "ts", per_second=1000)

    def permissions(self, client: VenueClient) -> Permissions:
        def ask() -> Permissions:
            listed = rows(row(client.call("privateGetAccountConfig")).get("data") or [])
            if len(listed) > 1:
                raise QueryFailedError("unreadable answer: not one account")
            return okx_rows.permissions(listed[0]) if listed else UNTOLD

        return if_served(client, ask, UNTOLD)

    async def subscribe(self, client: Any) -> bool:
        return await okx_stream.subscribe(client, self.kind)

    def subscription_answer(self, message: object) -> bool | None:
        return okx_stream.subscription_answer(message)

    def stream_events(self, message: object) -> Sequence[Row]:
        return okx_stream.events(message, self.kind)

    def streamed(self, event: Row, client: VenueClient) -> OrderNews:
        return okx_stream.streamed(event, self._market(client, event))

    def _reported(self, client: VenueClient, market: Market, found: Row) -> OrderReport:
        named = {"ordId": text(found, "ordId")}

        def again() -> OrderReport | None:
            now = self._plain(client, market, named, None)
            return None if now is None else okx_rows.report(now, market)

        return self._with_trades(
            okx_rows.report(found, market), lambda: self._fills_of(client, market, named), again
        )

    def _algo_reported(self, client: VenueClient, market: Market, algo: Row) -> OrderReport:
        child = okx_rows.child_of(algo)
        if child is None:
            return okx_rows.waiting(algo, market)
        found = self._plain(client, market, {"ordId": child}, None)
        if found is None:
            raise NotShownError("a triggered stop's own order is not shown yet")
        return replace(
            self._reported(client, market, found),
            broker_order_id=ALGO + text(algo, "algoId"),
            client_order_id=text(algo, "algoClOrdId"),
        )

    def _plain(
        self,
        client: VenueClient,
        market: Market,
        naming: Mapping[str, object],
        ref: OrderRef | None,
    ) -> Row | None:
        found = self._one(client, "privateGetTradeOrder", {"instId": market["id"], **naming})
        if found is not None:
            self._assert_ours(found.get("clOrdId"), "" if ref is None else ref.identity)
            if naming.get("ordId", text(found, "ordId")) != text(found, "ordId"):
                raise QueryFailedError("the answer is about another order")
        return found

    def _algo(self, client: VenueClient, ref: OrderRef) -> Row | None:
        algo_id = ref.broker_order_id.removeprefix(ALGO)
        ours = self._client_id(ref.identity) if ref.identity else ""
        naming = {"algoId": algo_id} if algo_id else {"algoClOrdId": ours}
        found = self._one(client, "privateGetTradeOrderAlgo", naming)
        if found is not None:
            self._assert_ours(found.get("algoClOrdId"), ref.identity)
            if algo_id and text(found, "algoId") != algo_id:
                raise QueryFailedError("the answer is about another order")
        return found

    def _one(self, client: VenueClient, question: str, naming: Mapping[str, object]) -> Row | None:
        try:
            listed = rows(member(row(client.call(question, **naming)), "data"))
        except VenueRefusedError as refusal:
            if refusal.error.has(self.profile.absent):
                return None
            raise
        if len(listed) != 1:
            raise QueryFailedError("the venue did not answer with one order")
        return listed[0]

    def _naming(self, ref: OrderRef) -> dict[str, object]:
        if ref.broker_order_id:
            return {"ordId": ref.broker_order_id}
        return {"clOrdId": self._client_id(ref.identity)}

    def _fills_of(
        self, client: VenueClient, market: Market, named: Mapping[str, object]
    ) -> Sequence[FillReport]:
        """Of one order, however old; where the history is not to be had, from the quick list."""
        which = {"instId": market["id"], **named}
        try:
            return self._fills(client, market, HISTORY, **which)
        except QueryFailedError:
            return self._fills(client, market, QUICK, **which)

    def _fills(
        self, client: VenueClient, market: Market, question: str, **which: object
    ) -> tuple[FillReport, ...]:
        found = self._pages(client, question, "billId", instType=self.kind, **which)
        return distinct(okx_rows.fill(trade, market, self.fees) for trade in found)

    def _pages(self, client: VenueClient, question: str, key: str, **which: object) -> list[Row]:
        found: list[Row] = []
        while True:
            answer = client.call(question, limit=PAGE, **which)
            page = rows(member(row(answer), "data"))
            found += page
            if len(page) < PAGE:
                return found
            which["after"] = text(page[-1], key)

    def _stops(self, client: VenueClient, **only: object) -> list[Row]:
        """Those that wait; none where the venue does not have their list."""
        question, which = "privateGetTradeOrdersAlgoPending", {"ordType": STOP, **only}
        return if_served(client, lambda: self._pages(client, question, "algoId", **which), [])

    def _market(self, client: VenueClient, found: Row) -> Market:
        return client.market(client.symbol_of(text(found, "instId")))

    def _shown(self, client: VenueClient, found: Row) -> Market:
        return client.market_of_row(client.symbol_of(text(found, "instId")))


class OkxSwap(OkxSpot):
    """Perpetuals settled in a stablecoin, counted in contracts at the venue; one net position."""

    profile = OKX_SWAP
    kind = "SWAP"

    @property
    def mode(self) -> str:
        return self.terms.margin_mode

    def prepare(self, client: VenueClient, market: Market) -> None:
        account = rows(member(row(client.call("privateGetAccountConfig")), "data"))
        if len(account) != 1 or text(account[0], "posMode") != "net_mode":
            raise ConfigurationError(f"{market['symbol']} is in hedge mode: FKS needs net mode")
        wanted = self.terms.leverage
        if wanted is None or self._leverage(client, market) == {wanted}:
            return
        fields = {"instId": market["id"], "lever": str(wanted), "mgnMode": self.mode}
        with margin_setting.announced(client, market, SET_LEVERAGE, fields):
            client.call("privatePostAccountSetLeverage", **fields)
        if self._leverage(client, market) != {wanted}:
            raise ConfigurationError(f"{self.profile.label} kept another leverage than {wanted}")

    @property
    def tells_funding(self) -> bool:
        return True

    def funding(self, client: VenueClient, since: datetime) -> Sequence[FundingReport]:
        """From the account's bills, which OKX lists of three months ("Get bills details")."""
        begin = int(since.timestamp() * 1000)
        question = "privateGetAccountBillsArchive"
        which = {"instType": self.kind, "type": okx_rows.FUNDING, "begin": begin}
        found = self._pages(client, question, "billId", **which)
        told = [
            okx_rows.funding(
                one, client.symbol_of(text(one, "instId")), client.currency_of(text(one, "ccy"))
            )
            for one in found
        ]
        return once([one for one in told if one.at >= since])

    def _leverage(self, client: VenueClient, market: Market) -> set[Decimal]:
        where = {"instId": market["id"], "mgnMode": self.mode}
        answer = client.call("privateGetAccountLeverageInfo", **where)
        return {number(found, "lever") for found in rows(member(row(answer), "data"))}

    def positions(self, client: VenueClient) -> Sequence[PositionReport]:
        answer = client.call("privateGetAccountPositions", instType=self.kind)
        listed = rows(member(row(answer), "data"))
        held = [okx_rows.position(one, self._shown(client, one)) for one in listed]
        return [position for position in held if position.quantity]


def _order_type(request: OrderRequest) -> str:
    if request.post_only:
        return "post_only"
    if request.price is not None and request.time_in_force is not TimeInForce.GTC:
        return request.time_in_force.value
    return request.type.value


def _done(answer: object) -> None:
    """Raise QueryFailedError unless the answer confirms the one thing asked for."""
    listed = rows(member(row(answer), "data"))
    if len(listed) != 1 or text(listed[0], "sCode") != "0":
        raise QueryFailedError("unreadable answer: the cancel is not confirmed")
