"""The interface every broker plugin implements.

A plugin is one file in ``brokers/plugins/`` (or a third party's package under the entry point
``fks.brokers``). It never sees a Django model; it gets an ``AccountConfig`` and frozen values. SDKs
are imported inside ``init``. One plugin object serves one account in one process and must be safe
to call from several threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from brokers.capabilities import Capabilities, VenueCard
from brokers.errors import NotSupportedError
from brokers.streams import OrderStream
from brokers.symbols import Shares
from brokers.types import (
    AccountConfig,
    BalanceReport,
    CancelResult,
    Candle,
    ExecutionResult,
    FillReport,
    FundingReport,
    Health,
    Instrument,
    LoginTerms,
    OrderBook,
    OrderRef,
    OrderReport,
    OrderRequest,
    Permissions,
    PositionReport,
    Quote,
    TradingFees,
)


class ExecutionPlugin(ABC):
    """One venue, one account."""

    name: ClassVar[str]
    """Short id used in ``add_account --broker``; also a metrics label."""
    label: ClassVar[str]
    credential_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the secrets the account needs; empty for none."""
    optional_credentials: ClassVar[frozenset[str]] = frozenset()
    """Those of them that only some accounts need."""
    option_fields: ClassVar[dict[str, str]] = {}
    """Option name to a sentence of help; options not listed are refused."""
    quote_currency: ClassVar[str] = "USDT"
    """What limits of a new account are counted in, unless its operator says otherwise."""

    @abstractmethod
    def init(self, config: AccountConfig) -> None:
        """Make ready for use; may import an SDK, must not place or change anything.

        Raises ConfigurationError or CredentialError.
        """

    def check_config(self, config: AccountConfig) -> None:
        """Refuse what cannot work; nothing is sent anywhere. Web processes ask this.

        A plugin whose ``init`` imports an SDK overrides it with what can be said without that SDK.
        Raises ConfigurationError or CredentialError.
        """
        self.init(config)
        self.close()

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this account's venue can do; valid after ``init``, but of a plugin that has to ask: it
        asks once, and raises QueryFailedError until it was told."""

    @abstractmethod
    def client_order_id(self, identity: str) -> str:
        """``identity`` (32 hex digits) as this venue writes it."""

    @abstractmethod
    def execute_order(self, request: OrderRequest) -> ExecutionResult:
        """Send one order, at most once. Never raises for anything the venue or network does."""

    @abstractmethod
    def cancel_order(self, ref: OrderRef) -> CancelResult:
        """Ask the venue to cancel. Never raises for anything the venue or network does."""

    @abstractmethod
    def fetch_order(self, ref: OrderRef) -> OrderReport | None:
        """The order as the venue knows it, fills included; ``None`` only if it says "no such
        order".

        Looks by client id, then in open and closed orders and trades, as far as the venue allows.
        Raises QueryFailedError when there is no trustworthy answer, NotSupportedError for a ``ref``
        without identity where the venue's id alone finds nothing.
        """

    @abstractmethod
    def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """All working orders, ours and foreign. Raises QueryFailedError."""

    @abstractmethod
    def trades_since(self, symbol: str, since: datetime) -> Sequence[FillReport]:
        """Own trades in ``symbol`` at or after ``since``, oldest first. Raises QueryFailedError."""

    @abstractmethod
    def positions(self) -> Sequence[PositionReport]:
        """Positions the venue keeps; empty for spot. Raises QueryFailedError."""

    @abstractmethod
    def balances(self) -> Sequence[BalanceReport]:
        """Non-zero balances. Raises QueryFailedError."""

    @abstractmethod
    def instrument(self, symbol: str) -> Instrument:
        """Trading rules of ``symbol``. Raises UnknownSymbolError or QueryFailedError."""

    @abstractmethod
    def fetch_data(self, symbol: str, hint: Decimal | None = None) -> Quote:
        """A fresh quote. ``hint`` is the alert's own price; only rehearsal venues may use it,
        and venues that tell no prices where the account's operator asked for it.

        Raises QuoteUnavailableError, UnknownSymbolError or QueryFailedError.
        """

    @property
    def shares_quotes_as(self) -> str:
        """Accounts that give the same name here are told the same prices, so that the answer to one
        is good for all; valid after ``init``. Empty, as here, where each has to ask for itself.
        """
        return ""

    @abstractmethod
    def health_check(self) -> Health:
        """One cheap read call; never raises for anything the venue or network does."""

    @abstractmethod
    def check_permissions(self) -> Permissions:
        """What the credentials may do at the venue. Raises QueryFailedError or CredentialError."""

    @classmethod
    def cards(cls) -> Sequence[VenueCard]:
        """What can be done at each kind of venue behind this plugin, for ``list_brokers``."""
        return ()

    @classmethod
    def trades_shares(cls, options: Mapping[str, Any]) -> Shares:
        """Whether a lone ticker (``NASDAQ:AAPL``) is a share for dollars on such an account, and
        whether other things trade beside.
        """
        return Shares.NONE

    @classmethod
    def login_terms(cls, options: Mapping[str, Any]) -> LoginTerms | None:
        """How a person logs such an account in at the venue; ``None`` where keys are all it takes."""
        return None

    def candles(self, symbol: str, count: int) -> Sequence[Candle]:
        """The last ``count`` candles of an hour, oldest first; the newest may be unfinished.

        Raises QueryFailedError, or NotSupportedError where the venue has none.
        """
        raise NotSupportedError(f"{self.label} has no candles")

    def order_book(self, symbol: str) -> OrderBook:
        """The best levels of the order book now, about a hundred where the venue shows as many.

        Raises QueryFailedError, QuoteUnavailableError or UnknownSymbolError, or NotSupportedError
        where the venue shows none.
        """
        raise NotSupportedError(f"{self.label} shows no order book")

    def funding_since(self, since: datetime) -> Sequence[FundingReport]:
        """Funding payments of the account's perpetuals at or after ``since``, oldest first.

        Raises QueryFailedError, or NotSupportedError where there are none, or the venue's way of
        telling who paid whom is not known for sure.
        """
        raise NotSupportedError(f"{self.label} tells no funding payments FKS can read")

    def trading_fees(self, symbol: str) -> TradingFees | None:
        """What the venue commonly charges; ``None`` where it is not known. Asks nobody, or as
        ``instrument`` does. Raises UnknownSymbolError or QueryFailedError.
        """
        return None

    def order_stream(self) -> OrderStream:
        """A stream of the account's order events, not connected yet; its use is never required.

        Raises NotSupportedError where there is none that is proven to be read right, QueryFailedError
        when the venue's symbols are not known.
        """
        raise NotSupportedError(f"{self.label} has no order stream FKS can read; it is polled")

    def close(self) -> None:
        """Release connections; called when the account's configuration changed. What is under way must
        end as if nothing had happened, and whoever still holds this plugin may ask once more."""
        return
