"""Exchanges without a dialect of their own: ccxt reads the answers, with numbers kept as text.

Orders are still compared field by field before they leave, by the templates of the matrix; what
ccxt makes of an answer is believed only where it is complete. Contracts are converted, so that
quantities are always in the base asset.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from brokers import wire
from brokers.decimals import plain
from brokers.dialects import (
    answers,
    forgotten,
    margin_setting,
    open_lists,
    prices,
    secret_forms,
    trade_pages,
)
from brokers.dialects import unified_rows as rows
from brokers.dialects.answers import at, once
from brokers.dialects.base import Dialect
from brokers.errors import (
    ConfigurationError,
    NotShownError,
    QueryFailedError,
    QuoteUnavailableError,
)
from brokers.exchanges import ExchangeProfile, Lookup
from brokers.library import library
from brokers.outcome import VenueError
from brokers.transport import LooseWire, Wire
from brokers.types import (
    BalanceReport,
    FillReport,
    FundingReport,
    Instrument,
    OrderRef,
    OrderReport,
    OrderRequest,
    OrderType,
    Permissions,
    PositionReport,
    Quote,
    Side,
)
from brokers.venue_client import Market, VenueClient, VenueRefusedError

FUNDING_PAGE = 1000
LOOK_BACK = timedelta(days=1)
"""How far recent orders are scanned where the moment of submission is not known."""
STOP = "stop-"
"""What our broker order id begins with where stops live in a list of their own."""
OWN_ID = "id"
"""What ``stop_becomes`` says where the order a stop puts in keeps the stop's id."""
RECENT = {
    "fetch_orders": "fetchOrders",
    "fetch_canceled_and_closed_orders": "fetchCanceledAndClosedOrders",
}
"""ccxt's questions for orders of every end, and its names of who answers them."""
LAST_RESORT = "fetch_closed_orders"
ABSENT = VenueError(("absent",), "no such order was found")


class Unified(Dialect):
    """Any exchange, as its row in the matrix describes it."""

    def __init__(self, profile: ExchangeProfile) -> None:
        self.profile = profile
        self.market_facts = library()[profile.id].market_facts

    def adapted(self, request: OrderRequest, instrument: Instrument) -> OrderRequest:
        """Prices as the venue takes them, and a market order by limit where it counts in quote."""
        unit = self.profile.traits.market_buy_unit
        by_limit = unit == "limit" or (unit == "quote" and request.side is Side.BUY)
        if request.type is OrderType.MARKET and by_limit:
            request = prices.by_limit(request, instrument.price_tick, self.profile.label)
        digits = self.profile.price_digits
        return request if digits is None else prices.in_digits(request, digits)

    def amount(self, request: OrderRequest, market: Market) -> Decimal:
        return plain(request.quantity / rows.contract_size(market))

    def arguments(self, request: OrderRequest, market: Market) -> dict[str, Any]:
        found = super().params(request)
        if request.reduce_only:
            found["reduceOnly"] = True
        if self.profile.margin.get("in_order"):
            found["marginMode"] = self.terms.margin_mode
        found |= wire.parameters(self.profile.wire, request, self._values(request, market))
        return {name: value for name, value in found.items() if value is not None}

    def prepare(self, client: VenueClient, market: Market) -> None:
        """Refuse an account in hedge mode, and bring the market to the account's margin terms."""
        if self.profile.position_mode:
            self._refuse_hedging(client, market)
        if self.profile.margin:
            margin_setting.settle(client, market, self.terms)

    def _refuse_hedging(self, client: VenueClient, market: Market) -> None:
        mode = self.profile.position_mode
        fields = wire.question_fields(mode.get("fields", {}), market)
        said = at(client.call(mode["call"], **fields), mode["told"])
        if said is None:
            raise QueryFailedError("unreadable answer: no position mode")
        if str(said).lower() != mode["one_way"]:
            raise ConfigurationError(f"{market['symbol']} is in hedge mode: FKS needs one-way mode")

    def wire(self, request: OrderRequest, market: Market) -> Wire | LooseWire:
        if self.profile.verified:
            return wire.fields(self.profile.wire, request, self._values(request, market))
        numbers = (self.amount(request, market), request.price)
        known = tuple(number for number in numbers if number is not None)
        return LooseWire(self._client_id(request.identity), known)

    def check_secret(self, secret: str) -> None:
        secret_forms.check(self.profile.label, self.profile.key_form, secret)

    def read_error(self, body: str) -> VenueError | None:
        try:
            answer = json.loads(body)
        except ValueError:
            return None
        for shape in self.profile.errors:
            code = at(answer, shape["code"])
            if code is not None and str(code) not in shape.get("ok", ()):
                return VenueError((str(code),), str(at(answer, shape.get("message", "")) or ""))
        return None

    def placed(
        self, answer: Mapping[str, Any], request: OrderRequest, market: Market
    ) -> tuple[str, OrderReport | None]:
        named, ours = answer.get("clientOrderId"), self._client_id(request.identity)
        if named and str(named) != ours:
            raise QueryFailedError("the answer is about another order")
        order_id = answer.get("id")
        if not isinstance(order_id, str) or not order_id:
            raise QueryFailedError("unreadable answer: no order id")
        waits = request.stop_price is not None and self.profile.stop_endpoint is not None
        return (STOP + order_id if waits else order_id), None

    def order(self, client: VenueClient, ref: OrderRef, market: Market) -> OrderReport | None:
        found, stop = self._find(client, ref)
        if found is None:
            return self._forgotten(client, ref, market)
        if not ref.identity:
            market = client.market(str(found["symbol"]))
        became = self._became(client, ref, found) if stop else found
        if became is None:
            report = rows.waiting(found, market)
        else:
            report = self._reported(client, ref, market, became)
        known = ref.broker_order_id or (STOP + answers.text(found, "id") if stop else "")
        if not known.startswith(STOP):
            return report
        ours = self._client_id(ref.identity) if ref.identity else report.client_order_id
        listed_as = "" if became is None else report.broker_order_id
        return replace(report, broker_order_id=known, client_order_id=ours, listed_as=listed_as)

    def _forgotten(self, client: VenueClient, ref: OrderRef, market: Market) -> OrderReport | None:
        if ref.submitted_at is None or not forgotten.only_if_unfilled(self.profile, ref):
            return None
        trades: Sequence[Mapping[str, Any]] = ()
        if not ref.broker_order_id.startswith(STOP):
            trades = trade_pages.since(client, ref.symbol, ref.submitted_at)
        report = forgotten.ended_unfilled(ref, self.open_orders(client, market), trades)
        return replace(report, client_order_id=self._client_id(ref.identity))

    def _reported(
        self, client: VenueClient, ref: OrderRef, market: Market, found: Mapping[str, Any]
    ) -> OrderReport:
        began = found.get("timestamp")
        since = rows.moment(began) if began else (ref.submitted_at or datetime.now(UTC) - LOOK_BACK)

        def trades() -> Sequence[FillReport]:
            listed = trade_pages.since(client, ref.symbol, since)
            ours = [trade for trade in listed if trade.get("order") == found["id"]]
            return rows.fills(ours, market, self.fees)

        return self._with_trades(rows.report(found, market), trades)

    def cancel(self, client: VenueClient, ref: OrderRef, market: Market) -> None:
        order_id = ref.broker_order_id
        if not order_id:
            found = self.order(client, ref, market)
            if found is None:
                raise VenueRefusedError(ABSENT)
            order_id = found.broker_order_id
        stop = order_id.startswith(STOP)
        try:
            self._cancel(client, market, order_id.removeprefix(STOP), stop=stop)
        except VenueRefusedError as refusal:
            if not stop or not refusal.is_answer:
                raise
            named = replace(ref, broker_order_id=order_id)
            row, waits = self._find(client, named)
            became = self._became(client, named, row) if row is not None and waits else row
            if became is None or not rows.works(became):
                raise
            self._cancel(client, market, answers.text(became, "id"), stop=False)

    def _cancel(self, client: VenueClient, market: Market, order_id: str, *, stop: bool) -> None:
        if self.profile.verified:
            templates = self.profile.wire
            client.gate.expect(wire.cancel_fields(templates, market, order_id, stop=stop))
        client.ask(
            "cancel_order", order_id, market["symbol"], dict(open_lists.STOPS) if stop else {}
        )

    def nothing_to_cancel(self, error: VenueError) -> bool:
        return error == ABSENT or error.has(self.profile.absent)

    def open_orders(self, client: VenueClient, market: Market | None) -> Sequence[OrderReport]:
        reports = [*open_lists.orders(self.profile, client, market)]
        for one in open_lists.stops(self.profile, client, market):
            reports.append(replace(one, broker_order_id=STOP + one.broker_order_id))
        return reports

    def trades(self, client: VenueClient, market: Market, since: datetime) -> Sequence[FillReport]:
        trades = trade_pages.since(client, market["symbol"], since)
        return [fill for fill in rows.fills(trades, market, self.fees) if fill.at >= since]

    def balances(self, client: VenueClient) -> Sequence[BalanceReport]:
        return rows.balances(client.ask("fetch_balance"))

    def positions(self, client: VenueClient) -> Sequence[PositionReport]:
        if self.profile.market_type == "spot":
            return ()
        listed = rows.mappings(client.ask("fetch_positions"))
        held = [
            rows.position(one, client.market_of_row(answers.text(one, "symbol"))) for one in listed
        ]
        return [position for position in held if position.quantity]

    @property
    def tells_funding(self) -> bool:
        return self.profile.funding

    def funding(self, client: VenueClient, since: datetime) -> Sequence[FundingReport]:
        """As far as one page reaches; what came later is asked for the next time."""
        asked = client.ask("fetch_funding_history", None, _milliseconds(since), FUNDING_PAGE)
        return once(rows.funding(one) for one in rows.mappings(asked))

    def instrument(self, market: Market) -> Instrument:
        return rows.instrument(market, self.profile.market_type)

    def quote(self, client: VenueClient, market: Market) -> Quote:
        found = client.ask("fetch_order_book", market["symbol"], self.profile.book_depth)
        bid, ask = rows.best(found, "bids"), rows.best(found, "asks")
        if bid is None or ask is None or not 0 < bid <= ask:
            raise QuoteUnavailableError(f"no two-sided market in {market['symbol']}")
        return Quote(market["symbol"], bid, ask, (bid + ask) / 2, datetime.now(UTC))

    def server_time(self, client: VenueClient) -> datetime | None:
        if client.ccxt.has.get("fetchTime"):
            return rows.moment(client.ask("fetch_time"))
        client.fetch_markets()
        return None

    def permissions(self, client: VenueClient) -> Permissions:
        client.ask("fetch_balance")
        return Permissions(None, None, None, f"{self.profile.label} is not asked what a key may do")

    def _values(self, request: OrderRequest, market: Market) -> dict[str, str | Decimal]:
        client_id = self._client_id(request.identity)
        values = wire.values_of(request, market, client_id, self.amount(request, market))
        modes = self.profile.margin.get("modes", {})
        return values | {"margin_mode": modes.get(self.terms.margin_mode, "")}

    def _find(self, client: VenueClient, ref: OrderRef) -> tuple[Mapping[str, Any] | None, bool]:
        """The order and whether it is in the list of stops; ``None`` only where the venue says in
        its own words that there is no such order.
        """
        known = ref.broker_order_id
        if known.startswith(STOP):
            return self._find_stop(client, ref)
        if self.profile.lookup is Lookup.SCAN and not known:
            return self._scanned(client, ref), False
        if known:
            try:
                return self._asked(client, ref, known), False
            except NotShownError:
                if self.profile.lookup is not Lookup.SCAN:
                    raise
                return self._scanned(client, ref), False
        both = [("", False), ("", True)]
        found = self._first(client, ref, both if self.profile.stop_endpoint else both[:1])
        if found[0] is None:
            forgotten.refuse_forgotten_id(self.profile, ref)
        return found

    def _find_stop(
        self, client: VenueClient, ref: OrderRef
    ) -> tuple[Mapping[str, Any] | None, bool]:
        """Also where its list knows it no more: as the order it put in."""
        theirs = ref.broker_order_id.removeprefix(STOP)
        places = [(theirs, True)]
        if self.profile.stop_becomes == OWN_ID:
            places.append((theirs, False))
        if ref.identity:
            places.append(("", False))
        found = self._first(client, ref, places)
        if found[0] is None and not forgotten.only_if_unfilled(self.profile, ref):
            raise NotShownError("a stop has left its list; what it became is not known")
        return found

    def _became(
        self, client: VenueClient, ref: OrderRef, stop: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """The order that a stop has put in, ``None`` for one that has not.

        ccxt calls a triggered stop closed or cancelled, and knows nothing of what it traded.
        """
        raw = rows.mapping(stop.get("info"))
        child = str(raw.get(self.profile.stop_becomes) or "")
        if rows.never_woke(stop) and child in ("", stop["id"]):
            return None
        places = [(child, False)] if child else []
        if ref.identity:
            places.append(("", False))
        found, _ = self._first(client, ref, places)
        if found is None:
            raise NotShownError("the order that a triggered stop put in is not shown")
        return found

    def _first(
        self, client: VenueClient, ref: OrderRef, places: Sequence[tuple[str, bool]]
    ) -> tuple[Mapping[str, Any] | None, bool]:
        """The order in the first list that shows it, asked for by the venue's id or by ours."""
        unproven: QueryFailedError | None = None
        for order_id, stop in places:
            try:
                found = self._asked(client, ref, order_id, stop=stop)
            except NotShownError as error:
                unproven = error
            except VenueRefusedError as refusal:
                if not refusal.is_answer:
                    raise
                unproven = refusal
            else:
                if found is not None:
                    return found, stop
        if unproven is not None:
            raise unproven
        return None, False

    def _asked(
        self, client: VenueClient, ref: OrderRef, order_id: str, *, stop: bool = False
    ) -> Mapping[str, Any] | None:
        """By the venue's id, or by ours without one."""
        wanted: dict[str, Any] = dict(open_lists.STOPS) if stop else {}
        if not order_id:
            wanted["clientOrderId"] = self._client_id(ref.identity)
        try:
            found = rows.mapping(client.ask("fetch_order", order_id or None, ref.symbol, wanted))
        except VenueRefusedError as refusal:
            if not refusal.error.has(self.profile.absent):
                raise
            return None
        if found.get("id") is None:
            raise NotShownError("unreadable answer: an order without an id")
        return found

    def _scanned(self, client: VenueClient, ref: OrderRef) -> Mapping[str, Any]:
        ours = {self._client_id(ref.identity)} if ref.identity else set()
        for question in (self._working, self._recent):
            for found in question(client, ref):
                named = ref.broker_order_id and found.get("id") == ref.broker_order_id
                if named or found.get("clientOrderId") in ours:
                    return found
        raise NotShownError(f"{self.profile.label} cannot prove that the order is absent")

    def _working(self, client: VenueClient, ref: OrderRef) -> Sequence[Mapping[str, Any]]:
        return rows.mappings(client.ask("fetch_open_orders", ref.symbol))

    def _recent(self, client: VenueClient, ref: OrderRef) -> Iterable[Mapping[str, Any]]:
        """Orders that may have ended lately, as ccxt reads them."""
        has = client.ccxt.has
        question = next((one for one, of in RECENT.items() if has.get(of)), LAST_RESORT)
        return rows.mappings(client.ask(question, ref.symbol, look_back(ref)))


def look_back(ref: OrderRef) -> int:
    """Since when the order is looked for among recent ones, in milliseconds."""
    return _milliseconds((ref.submitted_at or datetime.now(UTC)) - LOOK_BACK)


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
