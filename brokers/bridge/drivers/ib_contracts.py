"""What TWS knows of a contract: which one it is, its steps, its price now.

Quantities are units: what a contract's price is multiplied by to give its value, 50 for ES, 1 for a
share (contract details: multiplier over price magnifier).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from brokers import order_books
from brokers.bridge.driver import Listed
from brokers.bridge.drivers.ib_numbers import decimal
from brokers.bridge.drivers.ib_session import RefusedError, Session
from brokers.bridge.drivers.ib_settings import MARKET_TYPES, ContractTerms
from brokers.decimals import plain
from brokers.errors import QueryFailedError, QuoteUnavailableError, UnknownSymbolError
from brokers.types import Instrument, OrderBook, Quote

NO_SUCH_CONTRACT = 200
LIVE_PRICES = 1
"""Of market data types; the others are frozen or delayed (tws-api/market_data_type.html)."""


@dataclass(frozen=True, slots=True)
class Traded:
    """An allowed symbol and TWS's contract; ``units`` per contract, ``step`` in contracts."""

    symbol: str
    contract: Any
    units: Decimal
    step: Decimal
    minimum: Decimal
    tick: Decimal
    outside_rth: bool

    def instrument(self) -> Instrument:
        return Instrument(
            symbol=self.symbol,
            venue_symbol=self.contract.localSymbol or self.contract.symbol,
            base=self.symbol.partition("/")[0].partition(" ")[0],
            quote=self.contract.currency,
            quantity_step=plain(self.step * self.units),
            price_tick=plain(self.tick),
            min_quantity=plain(self.minimum * self.units),
            market_type=MARKET_TYPES[self.contract.secType],
        )


async def traded(session: Session, listed: Listed, terms: ContractTerms) -> Traded:
    """Learnt once per connection. Raises UnknownSymbolError unless it is exactly one contract."""
    known = session.known.get(listed.symbol)
    if known is None:
        known = session.known[listed.symbol] = await _learn(session, listed, terms)
    found: Traded = known
    return found


async def _learn(session: Session, listed: Listed, terms: ContractTerms) -> Traded:
    wanted = session.package.Contract(**terms.fields)
    try:
        rows = await session.ask(
            "contract details", lambda: session.ib.reqContractDetailsAsync(wanted)
        )
    except RefusedError as error:
        if error.number != NO_SUCH_CONTRACT:
            raise
        rows = []
    if len(rows) != 1:
        raise UnknownSymbolError(
            f"TWS knows {len(rows)} contracts for {listed.symbol}: its settings must name one"
        )
    details = rows[0]
    step = decimal(details.sizeIncrement) or Decimal(1)
    if details.contract.secType == "STK":
        # fractions of shares are shown and then refused over the API (10243)
        step = max(step, Decimal(1))
    return Traded(
        symbol=listed.symbol,
        contract=details.contract,
        units=units_of(details),
        step=step,
        minimum=max(decimal(details.minSize), step),
        tick=terms.tick or await _tick(session, details),
        outside_rth=terms.outside_rth,
    )


def units_of(details: Any) -> Decimal:
    """Price times units is money: a contract of 5,000 bushels quoted in cents is 50."""
    return Decimal(details.contract.multiplier or 1) / (decimal(details.priceMagnifier) or 1)


async def _tick(session: Session, details: Any) -> Decimal:
    """The widest step of the exchange's market rule; the minimum tick where it has none.

    Finer steps hold for lower prices only, and minTick is the finest of all
    (tws-api/minimum_increment.html).
    """
    exchanges, rules = details.validExchanges.split(","), details.marketRuleIds.split(",")
    number = dict(zip(exchanges, rules, strict=False)).get(details.contract.exchange)
    if not number:
        return decimal(details.minTick)
    steps = await session.ask("market rule", lambda: session.ib.reqMarketRuleAsync(int(number)))
    if not steps:
        raise QueryFailedError(f"TWS did not tell market rule {number}")
    return max(decimal(one.increment) for one in steps)


async def quote(session: Session, one: Traded) -> Quote:
    """The first live bid and ask. Raises QuoteUnavailableError, also where prices come late."""
    return _quoted(one, await _ticker(session, one, _has_prices))


async def best_prices(session: Session, one: Traded) -> OrderBook:
    """The first live bid and ask with their sizes, in units. Raises QuoteUnavailableError."""
    ticker = await _ticker(session, one, _has_sizes)
    sizes = (decimal(size) * one.units for size in (ticker.bidSize, ticker.askSize))
    return order_books.best_prices(_quoted(one, ticker), *sizes)


def _quoted(one: Traded, ticker: Any) -> Quote:
    bid, ask = decimal(ticker.bid), decimal(ticker.ask)
    last = decimal(ticker.last) if ticker.last > 0 else bid
    return Quote(one.symbol, plain(bid), plain(ask), plain(last), datetime.now(UTC))


def _has_prices(ticker: Any) -> bool:
    return bool(ticker.bid > 0 and ticker.ask > 0)


def _has_sizes(ticker: Any) -> bool:
    return _has_prices(ticker) and bool(ticker.bidSize > 0 and ticker.askSize > 0)


async def _ticker(session: Session, one: Traded, is_enough: Callable[[Any], bool]) -> Any:
    """What TWS tells of the contract until it is enough. Raises QuoteUnavailableError."""
    contract, tickers = one.contract, session.ib.wrapper.tickers

    async def look() -> Any:
        ticker = session.ib.reqMktData(contract)
        number = session.ib.wrapper.ticker2ReqId["mktData"][ticker]
        said = session.listen(number)
        until = asyncio.get_running_loop().time() + session.patience * 3 / 4
        try:
            while not is_enough(ticker) and not _refused(said):
                if not await session.news(until):
                    break
        finally:
            session.forget(number, said)
            await session.pace.turn()
            if session.alive:
                session.ib.cancelMktData(contract)
            # kept, it would show its old prices as new ones the next time
            tickers.pop(hash(contract), None)
        return ticker, list(said)

    ticker, said = await session.ask(f"price of {one.symbol}", look, whole=False)
    if not is_enough(ticker) or ticker.marketDataType != LIVE_PRICES:
        why = "; ".join(f"{text} ({code})" for code, text in said) or "no live bid and ask"
        raise QuoteUnavailableError(f"{one.symbol}: {why}")
    return ticker


def _refused(said: list[tuple[int, str]]) -> bool:
    return any(not 2100 <= code < 2200 for code, _ in said)
