"""What risk needs to know, in two steps: what the venue says (slow, outside any transaction), and
what our own rows say (inside the transaction that reserves)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import Error as DatabaseFailure
from django.db.models import Count, F, OuterRef, QuerySet, Subquery, Sum
from django.utils import timezone

from brokers import keys
from brokers.aliases import trades_shares
from brokers.base import ExecutionPlugin
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    QueryFailedError,
    QuoteUnavailableError,
    UnknownSymbolError,
)
from brokers.models import Account
from brokers.models import Instrument as InstrumentRow
from brokers.prepared import Prepared, given
from brokers.recent_quotes import RECENT
from brokers.sessions import ready_plugin
from brokers.types import (
    BalanceReport,
    Instrument,
    OrderType,
    Quote,
    Side,
    TimeInForce,
)
from execution import book, days, marks
from execution.alerts import Alert
from execution.book import same_money
from execution.models import COUNTED, Order, Position, Route, Strategy
from execution.states import WORKING
from risk import breakers
from risk.arithmetic import average_true_range, is_positive
from risk.book import Seen
from risk.types import Facts, Limit, ReasonCode, Refusal

logger = logging.getLogger(__name__)

INSTRUMENT_AGE = timedelta(hours=1)
ATR_PERIOD = 14
BALANCE_AGE = timedelta(seconds=90)
"""What is further ahead of the clock was read before it was set back, and is read again."""


@dataclass(frozen=True, slots=True)
class Market:
    """The venue's side of the facts, read for one account and symbol. Of one that is not ``is_told`` a
    price or a rate is what was last known: enough to close by, and to open nothing.
    """

    account: Account
    plugin: ExecutionPlugin
    instrument: Instrument
    quote: Quote
    equity: Decimal | None
    to_account_currency: Decimal
    previous: Seen | None = None
    atr: Decimal | None = None
    is_told: bool = True


@dataclass(frozen=True, slots=True)
class Leg:
    """One route of a signal, with everything read before the transaction. ``refusal`` ends it
    early; one that is late has not been read yet. ``reduces``: whether the alert made the position
    smaller when it was read; ``has_rolled``: whether its alias meant another symbol before. Where it
    has no plugin nothing can be sent, and nothing that is under way there is waited for.
    """

    route: Route
    symbol: str
    market: Market | None = None
    refusal: Refusal | None = None
    is_late: bool = False
    reduces: bool = False
    has_rolled: bool = False
    has_plugin: bool = True

    @property
    def account(self) -> Account:
        return self.route.account


def refusal_of(error: BrokerError) -> Refusal:
    """A plugin's error as a refusal; a code of the plugin's own is named in the text."""
    try:
        return Refusal(ReasonCode(error.code), str(error))
    except ValueError:
        return Refusal(ReasonCode.INTERNAL_ERROR, f"{error.code}: {error}")


def no_plugin(account: Account) -> Refusal | None:
    """Why nothing can be sent to the account, where its plugin cannot say what trades there."""
    try:
        trades_shares(account)
    except ConfigurationError as error:
        return refusal_of(error)
    return None


def refuse_key(account: Account) -> None:
    """Raise Refusal where nothing may be opened with the account's key."""
    if account.is_key_refused:
        raise Refusal(ReasonCode.KEY_MAY_WITHDRAW, f"{account.name}: {keys.REFUSED}")


@contextmanager
def venue_call(account: Account) -> Iterator[None]:
    """Guard a read with the account's breaker: refuse while it is open, and report how it went.

    A venue that refuses the question in its own words, or does not show what was asked about, works.
    """
    if not breakers.admits(account):
        raise Refusal(
            ReasonCode.BREAKER_OPEN, f"the circuit breaker of {account.name} is open after failures"
        )
    with _reported(account):
        yield


@contextmanager
def _reported(account: Account) -> Iterator[None]:
    """Tell the account's breakers how a question went. A defect of the plugin says nothing of the
    venue, and is a question without an answer.
    """
    try:
        yield
    except QueryFailedError as error:
        breakers.unanswered(account, error)
        raise
    except DatabaseFailure:
        raise
    except (BrokerError, Refusal):
        breakers.told_nothing(account)
        raise
    except Exception as error:
        # The boundary to foreign code.
        logger.exception("a question to the venue raised")
        breakers.told_nothing(account)
        broken = f"the plugin of {account.name} failed: {type(error).__name__}"
        raise QueryFailedError(broken, code=ReasonCode.INTERNAL_ERROR.value) from error
    breakers.succeeded(account)


def read_market(account: Account, symbol: str, alert: Alert, *, is_exit: bool) -> Market:
    """Everything the venue has to say. Raises Refusal or BrokerError (its code is a reason code).

    An exit goes on without a fresh quote or rate: refusing to close for want of a price would be the
    greater risk. What was last known then only serves to show a value, and is noted nowhere.
    """
    plugin = ready_plugin(account)
    row = _instrument_row(account, plugin, symbol, is_exit=is_exit)
    instrument = row.rules()
    is_told = True
    try:
        quote = _quote(account, plugin, symbol, alert)
    except (QueryFailedError, QuoteUnavailableError, UnknownSymbolError, Refusal):
        last = _last_known_price(account, symbol, alert) if is_exit else None
        if last is None:
            raise
        quote, is_told = Quote(symbol, last, last, last, timezone.now()), False
    try:
        rate = _rate(account, plugin, instrument.quote)
    except Refusal:
        if not is_exit:
            raise
        rate, is_told = row.last_rate, False
    equity = _equity(account, plugin, instrument, quote, rate)
    if not is_exit:
        days.begin(account, row.last_price_at)
    previous = marks.note(row, quote, rate) if is_told else None
    return Market(account, plugin, instrument, quote, equity, rate, previous, is_told=is_told)


def average_range(market: Market, alert: Alert) -> Decimal | None:
    """The average true range the alert names, else the one of the venue's last hours; ``None`` when
    neither is to be had: then nothing can be sized by it.
    """
    if alert.atr is not None:
        return alert.atr
    try:
        with venue_call(market.account):
            candles = market.plugin.candles(market.instrument.symbol, ATR_PERIOD + 2)
    except (BrokerError, Refusal):
        return None
    return average_true_range(candles[:-1], ATR_PERIOD)


def _quote(account: Account, plugin: ExecutionPlugin, symbol: str, alert: Alert) -> Quote:
    """The price an order is valued by. For a market order it may be another account's, of the same
    venue and moment: it goes out at whatever the market is by then, and its quote says how old it is.
    """
    shared_as = plugin.shares_quotes_as if alert.order_type is OrderType.MARKET else ""
    if not shared_as or not breakers.are_closed(account):
        with venue_call(account):
            return _fresh_quote(plugin, symbol, alert)

    def question() -> Quote:
        with _reported(account):
            return _fresh_quote(plugin, symbol, alert)

    return RECENT.ask(shared_as, symbol, question)


def _fresh_quote(plugin: ExecutionPlugin, symbol: str, alert: Alert) -> Quote:
    if alert.order_type is OrderType.MARKET:
        return plugin.fetch_data(symbol, alert.price)
    try:
        return plugin.fetch_data(symbol)
    except QuoteUnavailableError:
        return plugin.fetch_data(symbol, alert.price or alert.stop_price)


def _last_known_price(account: Account, symbol: str, alert: Alert) -> Decimal | None:
    if alert.price is not None:
        return alert.price
    row = Position.objects.filter(account=account, symbol=symbol).first()
    return row.average_price if row else None


def instrument_of(
    account: Account, plugin: ExecutionPlugin, symbol: str, *, is_exit: bool = False
) -> Instrument:
    """The trading rules, from our table while they are fresh, else from the venue.

    An exit makes do with older ones when the venue does not answer, and has fewer to keep.
    """
    rules = _instrument_row(account, plugin, symbol, is_exit=is_exit).rules()
    return rules.of_exits if is_exit else rules


def _instrument_row(
    account: Account, plugin: ExecutionPlugin, symbol: str, *, is_exit: bool = False
) -> InstrumentRow:
    row = _known_rules.first(account=account.pk, symbol=symbol)
    now = timezone.now()
    if row is not None and abs(now - row.refreshed_at) < INSTRUMENT_AGE:
        return row
    try:
        with venue_call(account):
            rules = plugin.instrument(symbol)
    except (QueryFailedError, Refusal):
        if row is None or not is_exit:
            raise
        return row
    row, _ = InstrumentRow.objects.update_or_create(
        account=account,
        symbol=symbol,
        defaults={
            "venue_symbol": rules.venue_symbol,
            "base": rules.base,
            "quote": rules.quote,
            "market_type": rules.market_type,
            "quantity_step": rules.quantity_step,
            "price_tick": rules.price_tick,
            "min_quantity": rules.min_quantity,
            "max_quantity": rules.max_quantity,
            "min_value": rules.min_value,
            "refreshed_at": now,
        },
    )
    return row


@Prepared
def _known_rules() -> QuerySet[InstrumentRow]:
    return InstrumentRow.objects.filter(account=given("account"), symbol=given("symbol"))


def _rate(account: Account, plugin: ExecutionPlugin, quote_currency: str) -> Decimal:
    """What one unit of ``quote_currency`` is worth in the account's, at the venue's worse side: too
    high a value sizes too small. Raises Refusal where the venue quotes none.
    """
    own = account.quote_currency
    if same_money(quote_currency, own):
        return Decimal(1)
    for symbol, is_inverse in (
        (f"{quote_currency}/{own}", False),
        (f"{own}/{quote_currency}", True),
    ):
        try:
            with venue_call(account):
                pair = plugin.fetch_data(symbol)
        except (BrokerError, Refusal):
            continue
        if is_positive(pair.bid) and is_positive(pair.ask):
            return 1 / pair.bid if is_inverse else pair.ask
    raise Refusal(
        ReasonCode.CURRENCY_MISMATCH,
        f"limits are counted in {own}, this symbol trades in {quote_currency}, and the venue quotes "
        "no rate between them",
        {"quote_currency": quote_currency, "account_currency": own},
    )


def _equity(
    account: Account, plugin: ExecutionPlugin, instrument: Instrument, quote: Quote, rate: Decimal
) -> Decimal | None:
    """Quote currency plus the traded coin at the bid, and no more than the account was worth when last
    reconciled: what it owed and what open contracts had lost was taken off there. Other coins are not
    counted, on purpose: too little equity sizes too small. ``None`` when the venue does not answer.
    """
    try:
        totals = balances_of(account, plugin)
    except (BrokerError, Refusal):
        return None
    held = book.cash(account, totals)
    if not same_money(instrument.base, account.quote_currency):
        held += totals.get(instrument.base, Decimal(0)) * quote.bid * rate
    return held if account.equity is None else min(held, account.equity)


def balances_of(account: Account, plugin: ExecutionPlugin) -> dict[str, Decimal]:
    """Total balances by currency, at most 90 s old. Raises BrokerError or Refusal."""
    at = account.balances_at
    if at is None or abs(timezone.now() - at) >= BALANCE_AGE:
        refresh_balances(account, plugin)
    return book.totals(account)


def refresh_balances(account: Account, plugin: ExecutionPlugin) -> None:
    """Read the balances from the venue and keep them on the account, as of when they were asked for:
    what is sent while it answers is not in them.
    """
    asked_at = timezone.now()
    with venue_call(account):
        reports = plugin.balances()
    account.balances = {one.currency: _stored(one) for one in reports}
    account.balances_at = asked_at
    account.save(update_fields=["balances", "balances_at"])


def refresh_marks(account: Account, plugin: ExecutionPlugin) -> None:
    """See anew what open positions are worth, and how the account's day goes.

    A price the venue does not tell stays as it was, and grows too old to be counted. An adopted
    position that nobody knows the cost of counts from the price of now. A day begins with the prices
    known before it: what happened while a market was closed belongs to it.
    """
    held = Position.objects.filter(account=account).exclude(quantity=0)
    for symbol, cost in held.values_list("symbol", "average_price"):
        try:
            row = _instrument_row(account, plugin, symbol)
            with venue_call(account):
                quote = plugin.fetch_data(symbol)
            rate = _rate(account, plugin, row.quote)
            days.begin(account, row.last_price_at)
            marks.note(row, quote, rate)
            if cost is None and is_positive(quote.mid):
                held.filter(symbol=symbol, average_price=None).update(average_price=quote.mid)
        except (BrokerError, Refusal):
            continue
    days.today(account, timezone.now())


def _stored(report: BalanceReport) -> dict[str, str]:
    return {"total": format(report.total, "f"), "free": format(report.free, "f")}


def complete(
    market: Market,
    strategy: Strategy,
    limits: Sequence[Limit] = (),
    *,
    but: frozenset[UUID] = frozenset(),
) -> Facts:
    """The facts as of now that ``limits`` ask for; call inside the transaction that holds the
    account's lock. ``but`` is the order being judged, which must not count against itself, and the
    one it replaces.
    """
    symbol = market.instrument.symbol
    now = timezone.now()
    case = book.Case(market.account, strategy, symbol, limits, now, but)
    lane = _lane(case)
    capabilities = market.plugin.capabilities
    return Facts(
        at=now,
        instrument=market.instrument,
        quote=market.quote,
        equity=market.equity,
        position_quantity=lane["held"] or Decimal(0),
        working_buy_quantity=lane["buying"] or Decimal(0),
        working_sell_quantity=lane["selling"] or Decimal(0),
        open_orders=lane["open_orders"] or 0,
        to_account_currency=market.to_account_currency,
        atr=market.atr,
        caps_market_orders=OrderType.LIMIT in capabilities.order_types
        and TimeInForce.IOC in capabilities.time_in_force,
        book=book.gather(case, market.previous),
    )


def _lane(case: book.Case) -> Mapping[str, Any]:
    """Position and working orders in one statement: a fill that commits between two would move a
    quantity from the orders to the position unseen, and count it in neither."""
    row: Mapping[str, Any]
    [row] = _lanes(account=case.account.pk, symbol=case.symbol, but=list(case.but))
    return row


@Prepared
def _lanes() -> QuerySet[Account, Any]:
    here = {"account": OuterRef("pk"), "symbol": given("symbol")}
    orders = Order.objects.exclude(pk__any=given("but")).order_by()
    working = orders.filter(account=OuterRef("pk"), state__in=WORKING)
    lane = orders.filter(**here, state__in=WORKING).values("account")
    left = (
        lane.filter(COUNTED).annotate(left=Sum(F("quantity") - F("filled_quantity"))).values("left")
    )
    held = Position.objects.filter(**here).order_by().values("quantity")
    return (
        Account.objects.filter(pk=given("account"))
        .order_by()
        .values(
            held=Subquery(held),
            buying=Subquery(left.filter(side=Side.BUY.value)),
            selling=Subquery(left.filter(side=Side.SELL.value)),
            open_orders=Subquery(
                working.values("account").annotate(count=Count("pk")).values("count")
            ),
        )
    )
