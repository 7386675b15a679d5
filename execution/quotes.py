"""What the accounts of a group would do with an entry: each asked for its price, depth, fees and
health, beside each other and within a deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

from django.db import connection
from django.utils import timezone

from brokers.errors import BrokerError, UnknownSymbolError
from brokers.models import Account
from brokers.types import Environment, OrderType, TradingFees
from execution import bulkheads, differences, facts, legs
from execution.alerts import Alert
from execution.book import same_money
from execution.bulkheads import Crowded
from execution.expected_price import Expected, Terms, expected
from execution.facts import Leg
from execution.judging import estimate
from execution.models import Route, Signal
from risk import switch
from risk.arithmetic import ARITHMETIC, text
from risk.types import Intent, ReasonCode, Refusal

logger = logging.getLogger(__name__)

DEADLINE = 2.0
"""Seconds the venues have to answer; whoever is late is left out."""
RECONCILED_WITHIN = timedelta(minutes=5)
"""An account that has not been compared with its venue for so long is not given anything new."""
QUOTED_WITHIN = timedelta(seconds=10)
_SHARE = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One account's answer. ``refusal`` says why it is left out; else the other fields are set.

    It is compared by ``at_a_time``: of an order in slices the order book has to hold one.
    """

    route: Route
    leg: Leg | None = None
    refusal: Refusal | None = None
    intent: Intent | None = None
    quantity: Decimal = Decimal(0)
    at_a_time: Decimal = Decimal(0)
    best: Decimal = Decimal(0)
    expected: Expected | None = None

    @property
    def rank(self) -> tuple[bool, Decimal, Decimal, str]:
        """The better, the smaller: by what a unit comes to, the market's price, the account's name."""
        name = self.route.account.name
        if self.expected is None or self.intent is None:
            return True, Decimal(0), Decimal(0), name
        sign = self.intent.side.sign
        return False, self.expected.net * sign, self.best * sign, name

    def to_json(self, best: Candidate) -> dict[str, Any]:
        """Its numbers as text, and why it is left out or loses to ``best``."""
        account = self.route.account
        told: dict[str, Any] = {"account": account.name, "venue": account.venue}
        if self.refusal is not None:
            return told | {"code": self.refusal.code.value, "why": self.refusal.detail}
        if self.expected is None or self.leg is None:
            return told
        return (
            told
            | {
                "symbol": self.leg.symbol,
                "quantity": text(self.quantity),
                "best": text(self.best),
                "price": text(self.expected.price),
                "fee_rate": text(self.expected.fee_rate),
                "net": text(self.expected.net),
            }
            | ({} if self.at_a_time == self.quantity else {"slice": text(self.at_a_time)})
            | ({} if best is self else {"why": self._loss(best)})
        )

    def _loss(self, best: Candidate) -> str:
        if self.expected is None or best.expected is None:
            return ""
        with localcontext(ARITHMETIC):
            share = abs(self.expected.net - best.expected.net) / best.expected.net * 100
        return f"{text(share.quantize(_SHARE))} % worse after fees" if share else "as good"


def compare(signal: Signal, alert: Alert, routes: Sequence[Route]) -> list[Candidate]:
    """A candidate for each route, the best one first, those left out last."""
    asked = _ask(signal, alert, routes)
    return sorted(_of_one_instrument(asked), key=lambda candidate: candidate.rank)


def _ask(signal: Signal, alert: Alert, routes: Sequence[Route]) -> list[Candidate]:
    # Threads would not see what a transaction of ours has done so far.
    if connection.in_atomic_block:
        return [_candidate(signal, alert, route) for route in routes]
    pool = ThreadPoolExecutor(len(routes), thread_name_prefix="quote")
    asked = [
        pool.submit(copy_context().run, _in_a_thread, signal, alert, route) for route in routes
    ]
    pool.shutdown(wait=False)
    wait(asked, timeout=DEADLINE)
    return [_answer(route, one) for route, one in zip(routes, asked, strict=True)]


def _answer(route: Route, asked: Future[Candidate]) -> Candidate:
    if asked.done():
        return asked.result()
    late = Refusal(ReasonCode.VENUE_UNREACHABLE, f"no answer within {DEADLINE:g} s")
    return Candidate(route, refusal=late)


def _in_a_thread(signal: Signal, alert: Alert, route: Route) -> Candidate:
    try:
        return _candidate(signal, alert, route)
    finally:
        connection.close()


def _candidate(signal: Signal, alert: Alert, route: Route) -> Candidate:
    """The answer of one account, whatever happens."""
    try:
        with bulkheads.place([route.account_id]):
            return _told(signal, alert, route)
    except Crowded:
        busy = Refusal(ReasonCode.RATE_LIMITED, "too many questions to it are under way")
        return Candidate(route, refusal=busy)
    except UnknownSymbolError as error:
        return Candidate(route, refusal=Refusal(ReasonCode.UNKNOWN_SYMBOL, str(error)))
    except Refusal as refusal:
        return Candidate(route, refusal=refusal)
    except BrokerError as error:
        return Candidate(route, refusal=facts.refusal_of(error))
    except Exception as error:
        # The boundary to foreign code: a defect of one plugin must not stop the other accounts.
        logger.exception("comparing %s failed", route.account.name)
        broken = f"comparing it failed: {type(error).__name__}"
        return Candidate(route, refusal=Refusal(ReasonCode.INTERNAL_ERROR, broken))


def _told(signal: Signal, alert: Alert, route: Route) -> Candidate:
    if broken := facts.no_plugin(route.account):
        raise broken
    refuse_unfit(route, legs.symbol_on(route, alert))
    leg = legs.read_leg(route, alert)
    found = estimate(signal, alert, leg)
    intent = found.intent
    market = leg.market
    if market is None:
        raise Refusal(ReasonCode.REFERENCE_UNAVAILABLE, "no market data")
    refuse_old(route.account, market.quote.at)
    with facts.venue_call(route.account):
        book = market.plugin.order_book(leg.symbol)
        fees = fees_of(route.account, market.plugin.trading_fees(leg.symbol))
    refuse_old(route.account, book.at)
    limited = (OrderType.LIMIT, OrderType.STOP_LIMIT)
    terms = Terms(
        side=intent.side,
        type=intent.type,
        quantity=found.at_a_time,
        price=intent.price if intent.type in limited else None,
        time_in_force=alert.time_in_force,
        post_only=alert.post_only,
    )
    return Candidate(
        route,
        leg,
        intent=intent,
        quantity=found.quantity,
        at_a_time=found.at_a_time,
        best=market.quote.worst(intent.side),
        expected=expected(terms, book, fees),
    )


def refuse_unfit(route: Route, symbol: str) -> None:
    """Raise Refusal where our own rows say that the account opens nothing now."""
    account = route.account
    facts.refuse_key(account)
    switch.refuse_if_switched_off(
        account=account.name,
        venue=account.venue,
        symbol=symbol,
        strategy=route.strategy.slug,
        is_exit=False,
    )
    since = timezone.now() - RECONCILED_WITHIN
    if account.reconciled_at is None or account.reconciled_at < since:
        raise Refusal(ReasonCode.DRIFT, "it has not been reconciled with its venue lately")
    drift = differences.blocks_entries(account.pk, symbol)
    if drift is not None:
        raise Refusal(ReasonCode.DRIFT, f"the venue and our book disagree: {drift.detail}")


def fees_of(account: Account, common: TradingFees | None) -> TradingFees:
    """What the account pays: its operator's word before what its venue commonly charges.

    Raises Refusal where neither is known: a price without its fee cannot be compared.
    """
    maker, taker = account.maker_fee, account.taker_fee
    if common is not None:
        maker = common.maker if maker is None else maker
        taker = common.taker if taker is None else taker
    if maker is None or taker is None:
        raise Refusal(
            ReasonCode.ACCOUNT_MISCONFIGURED,
            "its fees are not known: set maker fee and taker fee on the account",
        )
    return TradingFees(maker, taker)


def refuse_old(account: Account, at: datetime) -> None:
    """Raise Refusal for a quote of long ago. At a rehearsal venue a price stands until somebody names
    another.
    """
    if account.environment == Environment.DRY_RUN:
        return
    age = timezone.now() - at
    if age > QUOTED_WITHIN:
        raise Refusal(ReasonCode.MAX_QUOTE_AGE, f"its quote is {round(age.total_seconds())} s old")


def _of_one_instrument(asked: Sequence[Candidate]) -> list[Candidate]:
    """Prices in other money, or of other coins, are not compared with those of the first account."""
    told = sorted((one for one in asked if one.leg and one.leg.market), key=_named)
    if not told:
        return list(asked)
    first = _pair(told[0])
    return [one if one.leg is None or _same(_pair(one), first) else _other(one) for one in asked]


def _named(candidate: Candidate) -> str:
    return candidate.route.account.name


def _pair(candidate: Candidate) -> tuple[str, str]:
    market = candidate.leg.market if candidate.leg else None
    return (market.instrument.base, market.instrument.quote) if market else ("", "")


def _same(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return one[0] == other[0] and same_money(one[1], other[1])


def _other(candidate: Candidate) -> Candidate:
    base, quote = _pair(candidate)
    other = Refusal(ReasonCode.CURRENCY_MISMATCH, f"{base}/{quote} is another instrument")
    return Candidate(candidate.route, refusal=other)
