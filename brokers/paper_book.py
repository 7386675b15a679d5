"""The paper venue: its own book of orders, trades, prices and balances, kept in PostgreSQL.

It is a venue, not a part of FKS's own records: only the paper plugin talks to it, as other plugins
talk to an exchange. It commits in transactions of its own, so an order it answered for survives
``kill -9``, and it knows an order by its identity for ever: the same one twice is placed once.
Depth is unlimited and the account trades on margin: no order lacks money, and shorts are allowed.

Locks are taken in one sequence, order rows before balances by currency, so that any number of
threads and processes may call at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import DataError, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from brokers import paper_market, paper_statements
from brokers.errors import QuoteUnavailableError
from brokers.models import PaperBalance, PaperFill, PaperOrder, PaperPrice
from brokers.paper_faults import Fault
from brokers.paper_market import Match, OrderTerms, VenueRefusal, match
from brokers.paper_quotes import LiveQuotes
from brokers.paper_statements import ID_PREFIX
from brokers.paper_terms import Terms
from brokers.types import (
    BalanceReport,
    FillReport,
    OrderRef,
    OrderReport,
    OrderRequest,
    OrderType,
    PositionReport,
    Quote,
    Side,
    TimeInForce,
    TradingFees,
    VenueStatus,
)

_WORKING = (VenueStatus.OPEN.value, VenueStatus.PARTIALLY_FILLED.value)


class PaperBook:
    """One account at the paper venue. Raises django.db.Error when PostgreSQL does not answer."""

    def __init__(self, account_key: str, terms: Terms, live: LiveQuotes | None = None) -> None:
        """``live``: the market, where it is not the book's own; nothing here asks it."""
        self._key = account_key
        self._terms = terms
        self._live = live

    def place(self, request: OrderRequest, fault: Fault | None = None) -> OrderReport:
        """Take an order, or find the one of that identity, and fill what can be filled at once.

        With ``fault`` (a partial fill) only its share is filled, the rest when its time has come.
        Raises VenueRefusal; must not be called inside a transaction, which could undo the answer.
        """
        try:
            with transaction.atomic(durable=True):
                order = self._take(request, fault)
        except DataError as error:  # a statement failed, so nothing was committed
            raise VenueRefusal("the numbers of this order do not fit the book") from error
        return paper_statements.order_report(order)

    def cancel(self, ref: OrderRef) -> bool:
        """Whether a working order was canceled; what the market has reached is filled instead."""
        order = self._lookup(ref)
        if order is None:
            return False
        self._match_working(order.symbol)
        rows = PaperOrder.objects.filter(pk=order.pk, status__in=_WORKING)
        return rows.update(status=VenueStatus.CANCELED.value) == 1

    def find(self, ref: OrderRef) -> OrderReport | None:
        """The order as it stands at the current price; ``None`` when there is none."""
        order = self._lookup(ref)
        if order is not None and order.status in _WORKING:
            self._match_working(order.symbol)
            order.refresh_from_db()
        return None if order is None else paper_statements.order_report(order)

    def working(self, symbol: str | None) -> list[OrderReport]:
        """Resting orders after everything at its current price was filled."""
        rows = self._working_rows(symbol)
        for name in self.resting_symbols() if symbol is None else [symbol]:
            self._match_working(name)
        return [
            paper_statements.order_report(order)
            for order in rows.order_by("pk").prefetch_related("fills")
        ]

    def trades_since(self, symbol: str, since: datetime) -> list[FillReport]:
        self._match_working(symbol)
        fills = PaperFill.objects.filter(order__account_key=self._key, order__symbol=symbol)
        return [
            paper_statements.fill_report(fill)
            for fill in fills.filter(at__gte=since).order_by("at", "pk")
        ]

    def positions(self) -> list[PositionReport]:
        return paper_statements.positions(self._key)

    def balances(self) -> list[BalanceReport]:
        return paper_statements.balances(self._key, self._terms.balance)

    def quote(self, symbol: str, hint: Decimal | None) -> Quote:
        """Bid and ask now; ``hint`` becomes the market where the options fix no price.

        Orders that the price reaches are filled. Raises QuoteUnavailableError.
        """
        price = None if self._live is not None else paper_market.usable_price(hint)
        if price is not None and symbol not in self._terms.prices:
            self._remember(symbol, price)
        market = self._market(symbol)
        if market is None:
            raise QuoteUnavailableError(f"the paper venue has not seen a usable price of {symbol}")
        self._match_working(symbol, market)
        return market

    @property
    def fees(self) -> TradingFees:
        """The account's fee, makers and takers alike."""
        fee = self._terms.fee_bps / 10_000
        return TradingFees(maker=fee, taker=fee)

    def _remember(self, symbol: str, price: Decimal) -> None:
        if PaperPrice.objects.filter(account_key=self._key, symbol=symbol, price=price).exists():
            return
        PaperPrice.objects.bulk_create(
            [PaperPrice(account_key=self._key, symbol=symbol, price=price, at=timezone.now())],
            update_conflicts=True,
            unique_fields=["account_key", "symbol"],
            update_fields=["price", "at"],
        )

    def resting_symbols(self) -> list[str]:
        """What working orders are for."""
        rows = self._working_rows(None)
        return sorted(set(rows.values_list("symbol", flat=True)))

    def _market(self, symbol: str) -> Quote | None:
        if self._live is not None:
            return self._live.known(symbol)
        price = self._terms.prices.get(symbol)
        if price is None:
            rows = PaperPrice.objects.filter(account_key=self._key, symbol=symbol)
            price = rows.values_list("price", flat=True).first()
        if price is None:
            return None
        return paper_market.quote(symbol, price, self._terms.spread_bps, timezone.now())

    def _take(self, request: OrderRequest, fault: Fault | None) -> PaperOrder:
        order, is_new = PaperOrder.objects.get_or_create(
            account_key=self._key,
            identity=request.identity,
            defaults={
                "symbol": request.symbol,
                "side": request.side.value,
                "type": request.type.value,
                "quantity": request.quantity,
                "price": request.price,
                "stop_price": request.stop_price,
                "status": VenueStatus.OPEN.value,
                "created_at": timezone.now(),
            },
        )
        if is_new:
            self._receive(order, request, fault)
        return order

    def _receive(self, order: PaperOrder, request: OrderRequest, fault: Fault | None) -> None:
        """What happens to a new order at once."""
        whole = request.time_in_force is TimeInForce.FOK
        share = Decimal(1) if fault is None or whole else fault.share
        if fault is not None and share < 1:
            order.waits_until = timezone.now() + timedelta(seconds=fault.seconds)
            order.save(update_fields=["waits_until"])
        if request.type is OrderType.MARKET:
            self._fill(order, self._price_to_take(request), share)
            self._expire_rest(order, request)
            return
        market = self._market(request.symbol)
        if market is not None:
            self._advance(order, market, arriving=True, share=share)
        if request.post_only and order.filled_quantity:
            raise VenueRefusal("the market is already at the price of this post-only order")
        self._expire_rest(order, request)

    def _expire_rest(self, order: PaperOrder, request: OrderRequest) -> None:
        immediate = request.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
        if immediate and order.status != VenueStatus.FILLED:
            order.status = VenueStatus.EXPIRED.value
            order.save(update_fields=["status"])

    def _price_to_take(self, request: OrderRequest) -> Decimal:
        reference = paper_market.usable_price(request.reference_price)
        if self._live is not None:
            reference = None  # the price of this moment, not the one the order was judged by
        if reference is None:
            market = self._market(request.symbol)
            reference = None if market is None else market.worst(request.side)
        if reference is None:
            raise VenueRefusal(
                f"no price of {request.symbol} is known", code="REFERENCE_UNAVAILABLE"
            )
        slippage = self._terms.slippage_of(request.identity)
        return paper_market.taker_price(reference, request.side, slippage)

    def _match_working(self, symbol: str, market: Quote | None = None) -> None:
        """Fill the resting orders of ``symbol`` that the market has reached, one by one."""
        waits = Q(waits_until__gt=timezone.now())
        rows = self._working_rows(symbol).exclude(waits)
        resting = list(rows.order_by("pk"))
        market = (market or self._market(symbol)) if resting else None
        if market is None:
            return
        for order in resting:
            if self._match(order, market, arriving=False) == Match(OrderType(order.type), None):
                continue
            with transaction.atomic():
                locked = rows.select_for_update().filter(pk=order.pk).first()
                if locked is not None:
                    self._advance(locked, market, arriving=False)

    def _match(self, order: PaperOrder, market: Quote, *, arriving: bool) -> Match:
        terms = OrderTerms(
            side=Side(order.side),
            type=OrderType(order.type),
            price=order.price,
            stop_price=order.stop_price,
            slippage_bps=self._terms.slippage_of(order.identity),
        )
        return match(terms, market, arriving=arriving)

    def _advance(
        self,
        order: PaperOrder,
        market: Quote,
        *,
        arriving: bool,
        share: Decimal = Decimal(1),
    ) -> None:
        """Trigger and fill one order as far as the market allows."""
        result = self._match(order, market, arriving=arriving)
        if result.type != order.type:
            order.type = result.type.value
            order.save(update_fields=["type"])
        if result.price is not None:
            self._fill(order, result.price, share)

    def _fill(self, order: PaperOrder, price: Decimal, share: Decimal = Decimal(1)) -> None:
        """Fill ``share`` of what is left at ``price``, an order that meets the market in several
        trades."""
        left = order.quantity - order.filled_quantity
        quantity = left if share == 1 else paper_market.part(left, share)
        if not quantity:
            return
        before = order.fills.count() if order.filled_quantity else 0
        rests = order.type == OrderType.LIMIT
        instrument = paper_market.instrument(order.symbol)
        fills = [
            PaperFill(
                order=order,
                trade_id=f"{ID_PREFIX}{order.pk}-{number}",
                quantity=piece,
                price=price,
                fee=paper_market.fee(piece, price, self._terms.fee_bps),
                fee_currency=instrument.quote,
                at=timezone.now(),
            )
            for number, piece in enumerate(
                paper_market.split(quantity, 1 if rests else self._terms.partial_fills), before + 1
            )
        ]
        PaperFill.objects.bulk_create(fills)
        order.filled_quantity += quantity
        whole = order.filled_quantity == order.quantity
        status = VenueStatus.FILLED if whole else VenueStatus.PARTIALLY_FILLED
        order.status = status.value
        order.save(update_fields=["status", "filled_quantity"])
        received = quantity * Side(order.side).sign
        paid = paper_market.value(received, price) + sum(fill.fee for fill in fills)
        self._pay({instrument.base: received, instrument.quote: -paid})

    def _pay(self, changes: Mapping[str, Decimal]) -> None:
        for currency, change in sorted(changes.items()):
            rows = PaperBalance.objects.filter(account_key=self._key, currency=currency)
            if rows.update(total=F("total") + change):
                continue
            start = self._terms.balance.get(currency, Decimal(0))
            PaperBalance.objects.bulk_create(
                [PaperBalance(account_key=self._key, currency=currency, total=start)],
                ignore_conflicts=True,
            )
            rows.update(total=F("total") + change)

    def _working_rows(self, symbol: str | None) -> QuerySet[PaperOrder]:
        rows = PaperOrder.objects.filter(account_key=self._key, status__in=_WORKING)
        return rows if symbol is None else rows.filter(symbol=symbol)

    def _lookup(self, ref: OrderRef) -> PaperOrder | None:
        mine = PaperOrder.objects.filter(account_key=self._key)
        if ref.identity:
            return mine.filter(identity=ref.identity).first()
        number = ref.broker_order_id.removeprefix(ID_PREFIX)
        return mine.filter(pk=number).first() if number.isdecimal() else None
