"""All open orders of an account as ccxt lists them, or no answer where there may be more of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from brokers.dialects import answers
from brokers.dialects import unified_rows as rows
from brokers.dialects.answers import at
from brokers.dialects.base import if_served
from brokers.errors import NotShownError, QueryFailedError, UnknownSymbolError
from brokers.exchanges import ExchangeProfile
from brokers.types import OrderReport
from brokers.venue_client import Market, VenueClient

STOPS = {"trigger": True}
"""What ccxt is told where the list of stops is meant."""


def orders(
    profile: ExchangeProfile, client: VenueClient, market: Market | None
) -> Sequence[OrderReport]:
    """Raises QueryFailedError."""
    asked = _symbols_at_work(profile, client) if market is None else [market["symbol"]]
    found = [one for symbol in asked for one in _whole(profile, client, symbol, "orders", {})]
    return [rows.report(one, market or _market_of(client, one)) for one in found]


def stops(
    profile: ExchangeProfile, client: VenueClient, market: Market | None
) -> Sequence[OrderReport]:
    """Those that wait in a list of their own, none where the venue does not have it; one that woke is
    among the orders. Raises QueryFailedError.
    """
    if profile.stop_endpoint is None:
        return ()
    symbol = None if market is None else market["symbol"]
    listed = STOPS | profile.open_symbols.get("stops", {})

    def ask() -> Sequence[Mapping[str, Any]]:
        return _whole(profile, client, symbol, "stops", listed)

    found: Sequence[Mapping[str, Any]] = if_served(client, ask, ())
    working = filter(rows.works, found)
    return [rows.waiting(one, market or _market_of(client, one)) for one in working]


def _market_of(client: VenueClient, found: Mapping[str, Any]) -> Market:
    return client.market_of_row(answers.text(found, "symbol"))


def _whole(
    profile: ExchangeProfile,
    client: VenueClient,
    symbol: str | None,
    name: str,
    more: Mapping[str, Any],
) -> Sequence[Mapping[str, Any]]:
    pages = profile.open_pages
    page = pages.get(name, {})
    found = rows.mappings(client.ask("fetch_open_orders", symbol, None, None, {**more, **page}))
    counted = Counter(one.get("symbol") if pages.get("each_market") else "" for one in found)
    for size in page.values():
        if max(counted.values(), default=0) >= size:
            raise QueryFailedError(
                f"{profile.label} shows {size} open orders at once: there may be more"
            )
    return found


def _symbols_at_work(profile: ExchangeProfile, client: VenueClient) -> list[str | None]:
    """What open orders are asked for by: ``None`` for all of the account at once."""
    question = profile.open_symbols
    if not question:
        return [None]
    where, _, name = question["told"].rpartition(".")
    said = answers.member(answers.row(at(client.call(question["call"]), where)), name)
    if not isinstance(said or [], list):
        raise QueryFailedError("unreadable answer: no list of symbols")
    return [_listed(client, str(one)) for one in said or ()]


def _listed(client: VenueClient, name: str) -> str:
    """Our symbol of a market with orders; one that is not listed, or not yet, cannot be asked about."""
    try:
        return str(client.market(client.symbol_of(name))["symbol"])
    except UnknownSymbolError as error:
        raise NotShownError(f"{error}, where orders are open") from error
