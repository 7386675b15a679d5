"""What the ccxt plugin needs to know about one exchange's own language."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from http import HTTPStatus
from typing import Any, TypeVar

from brokers.dialects import book_rows
from brokers.dialects.fees import Fees
from brokers.errors import CredentialError, NotSupportedError, QueryFailedError
from brokers.exchanges import Endpoint, ExchangeProfile
from brokers.margin import MarginTerms
from brokers.order_form import WITH_LIMIT
from brokers.outcome import VenueError
from brokers.report_trades import with_trades
from brokers.streams import OrderNews
from brokers.transport import LooseWire, Wire
from brokers.types import (
    BalanceReport,
    FillReport,
    FundingReport,
    Instrument,
    OrderBook,
    OrderRef,
    OrderReport,
    OrderRequest,
    Permissions,
    PositionReport,
    Quote,
    TimeInForce,
    TradingFees,
)
from brokers.venue_client import Market, VenueClient, VenueRefusedError

T = TypeVar("T")

BOOK_DEPTH = 100
"""Levels of an order book that are asked for where the exchange's row says nothing else."""
UNSERVED = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
)
"""What a venue answers that does not have the question at all."""
UNTOLD = Permissions(None, None, None, "this venue does not tell")


class Dialect(ABC):
    """Questions in an exchange's words, and exact answers read from them.

    Everything that asks raises QueryFailedError when there is no trustworthy answer.
    """

    profile: ExchangeProfile
    market_facts: frozenset[str] | None = None
    """The members of a market's raw answer that this dialect and ccxt read; ``None``: any."""
    terms: MarginTerms = MarginTerms()
    placement: str = ""
    """Where the raw answer to a placement carries what ``placed`` reads."""

    @cached_property
    def fees(self) -> Fees:
        return Fees(self.profile.label)

    def params(self, request: OrderRequest) -> dict[str, Any]:
        """ccxt's parameters for ``request``, beside symbol, type, side, amount and price."""
        found: dict[str, Any] = {self.profile.client_id_param: self._client_id(request.identity)}
        if request.stop_price is not None:
            found["stopLossPrice"] = f"{request.stop_price:f}"
        if request.post_only:
            found["postOnly"] = True
        elif rests(request) and request.time_in_force is not TimeInForce.GTC:
            found["timeInForce"] = request.time_in_force.value.upper()
        return found

    def adapted(self, request: OrderRequest, instrument: Instrument) -> OrderRequest:
        """``request`` as the venue can take it, never larger. Raises NotSupportedError."""
        return request

    def amount(self, request: OrderRequest, market: Market) -> Decimal:
        """The quantity in the venue's own unit."""
        return request.quantity

    def arguments(self, request: OrderRequest, market: Market) -> dict[str, Any]:
        """ccxt's parameters for ``request`` in ``market``."""
        return self.params(request)

    def prepare(self, client: VenueClient, market: Market) -> None:
        """Set and check what ``terms`` ask for in ``market``.

        Raises ConfigurationError when the account is not as it must be.
        """
        return

    def positions(self, client: VenueClient) -> Sequence[PositionReport]:
        """Positions the venue keeps; none on spot."""
        return ()

    @property
    def tells_funding(self) -> bool:
        """Whether ``funding`` can be asked: perpetuals whose payments have a sign that is known."""
        return False

    def funding(self, client: VenueClient, since: datetime) -> Sequence[FundingReport]:
        """Funding payments at or after ``since``, oldest first; asked only where they are told."""
        raise NotSupportedError(f"{self.profile.label} tells no funding payments FKS can read")

    def endpoint(self, request: OrderRequest) -> Endpoint:
        """Where the order request must go."""
        stop = self.profile.stop_endpoint if request.stop_price is not None else None
        return stop or self.profile.order_endpoint

    def check_secret(self, secret: str) -> None:
        """Refuse a secret the exchange cannot have issued. Raises CredentialError."""
        return

    @abstractmethod
    def wire(self, request: OrderRequest, market: Market) -> Wire | LooseWire:
        """The fields the order request must carry when it leaves."""

    @abstractmethod
    def read_error(self, body: str) -> VenueError | None:
        """The venue's error in an answer, ``None`` if it is not one in the venue's own words."""

    @abstractmethod
    def placed(
        self, answer: Mapping[str, Any], request: OrderRequest, market: Market
    ) -> tuple[str, OrderReport | None]:
        """The venue's order id and what else the answer to a placement tells.

        ``answer`` is ccxt's order structure, the raw answer in its ``info``.
        """

    @abstractmethod
    def order(self, client: VenueClient, ref: OrderRef, market: Market) -> OrderReport | None:
        """The order, fills included; ``None`` only if the venue says there is none."""

    @abstractmethod
    def cancel(self, client: VenueClient, ref: OrderRef, market: Market) -> None:
        """Ask to cancel. Raises VenueRefusedError with the venue's words."""

    @abstractmethod
    def nothing_to_cancel(self, error: VenueError) -> bool:
        """Whether the venue says that there is no such working order."""

    @abstractmethod
    def open_orders(self, client: VenueClient, market: Market | None) -> Sequence[OrderReport]: ...

    @abstractmethod
    def trades(
        self, client: VenueClient, market: Market, since: datetime
    ) -> Sequence[FillReport]: ...

    @abstractmethod
    def balances(self, client: VenueClient) -> Sequence[BalanceReport]: ...

    @abstractmethod
    def instrument(self, market: Market) -> Instrument: ...

    @abstractmethod
    def quote(self, client: VenueClient, market: Market) -> Quote: ...

    def order_book(self, client: VenueClient, market: Market) -> OrderBook:
        """The best levels, in base units. Raises QuoteUnavailableError when a side is empty."""
        return book_rows.order_book(client, market, self.profile.book_depth or BOOK_DEPTH)

    def trading_fees(self, market: Market) -> TradingFees | None:
        """The exchange's ordinary schedule as ccxt knows it."""
        return book_rows.trading_fees(market)

    async def subscribe(self, client: Any) -> bool:
        """Have ccxt.pro's ``client`` subscribed to order events; whether that had to be done."""
        raise NotSupportedError(f"{self.profile.label} has no order stream")

    def subscription_answer(self, message: object) -> bool | None:
        """Whether a raw message of the stream grants or refuses what ``subscribe`` asked for; ``None``
        if it is about something else, or the library has waited for that answer itself.
        """
        return None

    def stream_events(self, message: object) -> Sequence[Mapping[str, Any]]:
        """The events about orders in a raw message of the stream, oldest first."""
        return ()

    def streamed(self, event: Mapping[str, Any], client: VenueClient) -> OrderNews | None:
        """What one of ``stream_events`` says of an order, ``None`` if nothing.

        Raises QueryFailedError for one that cannot be read.
        """
        return None

    @abstractmethod
    def server_time(self, client: VenueClient) -> datetime | None:
        """The venue's clock, ``None`` where it answers but does not tell."""

    @abstractmethod
    def permissions(self, client: VenueClient) -> Permissions: ...

    def _client_id(self, identity: str) -> str:
        return self.profile.client_id_codec(identity)

    def _assert_ours(self, named: object, identity: str) -> None:
        """Refuse what carries another id than ours. What leaves the id out was asked for by it.

        Raises QueryFailedError.
        """
        if identity and named is not None and str(named) != self._client_id(identity):
            raise QueryFailedError("the answer is about another order")

    def _with_trades(
        self,
        report: OrderReport,
        ask: Callable[[], Sequence[FillReport]],
        again: Callable[[], OrderReport | None] = lambda: None,
    ) -> OrderReport:
        return with_trades(report, ask, again, is_passing=self._is_of_the_clock)

    def _is_of_the_clock(self, error: QueryFailedError) -> bool:
        return isinstance(error, VenueRefusedError) and error.error.has(self.profile.clock)


def if_served(client: VenueClient, ask: Callable[[], T], instead: T) -> T:
    """What ``ask`` tells; ``instead`` where the venue does not have that question."""
    try:
        return ask()
    except QueryFailedError as error:
        if client.gate.status not in UNSERVED or error.code == CredentialError.code:
            raise
        return instead


def rests(request: OrderRequest) -> bool:
    """Whether the order has a limit price, so that time in force means something."""
    return request.type in WITH_LIMIT
