"""The arbitrage monitor: the gap between venues after fees, seen and told. It trades nothing.

Each look reads one quote per account, within a deadline and the venues' own limits. Wider gaps than the
operator's threshold are told to the channels, and then not again for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from itertools import permutations
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from brokers.aliases import symbol_for
from brokers.errors import BrokerError
from brokers.models import Account
from brokers.sessions import plugin_for
from brokers.types import Quote
from execution import bulkheads, facts, quotes
from execution.bulkheads import Crowded
from execution.models import SpreadWatch
from risk import notices
from risk.arithmetic import ARITHMETIC, is_positive, text
from risk.channels import Event
from risk.types import ReasonCode, Refusal

DEADLINE = 3.0
"""Seconds the venues have to answer; a look without them is made with the others."""
_STORED = Decimal("1E-8")


@dataclass(frozen=True, slots=True)
class Seen:
    """One account's quote with its taker's fee, or why there is none."""

    account: str
    quote: Quote | None = None
    taker: Decimal = Decimal(0)
    refusal: Refusal | None = None

    @property
    def cost(self) -> Decimal:
        """Of one unit bought here."""
        return self.quote.ask * (1 + self.taker) if self.quote else Decimal(0)

    @property
    def proceeds(self) -> Decimal:
        """Of one unit sold here."""
        return self.quote.bid * (1 - self.taker) if self.quote else Decimal(0)

    def to_json(self) -> dict[str, Any]:
        if self.refusal is not None or self.quote is None:
            refusal = self.refusal or Refusal(ReasonCode.REFERENCE_UNAVAILABLE, "no quote")
            return {"account": self.account, "code": refusal.code.value, "why": refusal.detail}
        return {
            "account": self.account,
            "bid": text(self.quote.bid),
            "ask": text(self.quote.ask),
            "taker_fee": text(self.taker),
            "buys_at": text(self.cost),
            "sells_at": text(self.proceeds),
            "at": self.quote.at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Gap:
    """The widest gap after fees; negative where every pair of accounts would lose."""

    net: Decimal
    buy_on: str
    sell_on: str


def due(now: datetime) -> list[int]:
    """Watches whose time has come."""
    rows = SpreadWatch.objects.filter(is_enabled=True).values_list("pk", "looked_at", "every")
    return [pk for pk, at, every in rows if at is None or at + timedelta(seconds=every) <= now]


def look(watch_id: int) -> SpreadWatch | None:
    """Compare the watch's accounts now; ``None`` when somebody has just done so."""
    watch = SpreadWatch.objects.filter(pk=watch_id, is_enabled=True).first()
    if watch is None or not _take(watch):
        return None
    accounts = watch.accounts.filter(is_active=True).order_by("name")
    seen = read(watch.symbol, list(accounts))
    gap = widest(seen)
    with transaction.atomic():
        _keep(watch, seen, gap)
        if gap is not None and gap.net > watch.threshold:
            _tell(watch, gap)
    return watch


def read(symbol: str, accounts: Sequence[Account]) -> list[Seen]:
    """Every account's quote, asked beside each other."""
    # Threads would not see what a transaction of ours has done so far.
    if connection.in_atomic_block:
        return [_seen(symbol, account) for account in accounts]
    pool = ThreadPoolExecutor(max(len(accounts), 1), thread_name_prefix="spread")
    asked = [pool.submit(_in_a_thread, symbol, account) for account in accounts]
    pool.shutdown(wait=False)
    wait(asked, timeout=DEADLINE)
    return [_answer(account, one) for account, one in zip(accounts, asked, strict=True)]


def widest(seen: Iterable[Seen]) -> Gap | None:
    """The best pair to buy and sell on; of equal ones the first by name. ``None`` with fewer than two
    quotes.
    """
    told = sorted((one for one in seen if one.quote is not None), key=lambda one: one.account)
    with localcontext(ARITHMETIC):
        gaps = [
            Gap((sell.proceeds / buy.cost - 1).quantize(_STORED), buy.account, sell.account)
            for buy, sell in permutations(told, 2)
        ]
    return max(gaps, key=lambda gap: gap.net, default=None)


def _take(watch: SpreadWatch) -> bool:
    """Whether this look is ours: of two at once one goes on."""
    mine = SpreadWatch.objects.filter(pk=watch.pk, looked_at=watch.looked_at)
    watch.looked_at = timezone.now()
    return mine.update(looked_at=watch.looked_at) == 1


def _keep(watch: SpreadWatch, seen: Iterable[Seen], gap: Gap | None) -> None:
    watch.quotes = [one.to_json() for one in seen]
    watch.net = gap.net if gap else None
    watch.buy_on, watch.sell_on = (gap.buy_on, gap.sell_on) if gap else ("", "")
    watch.save(update_fields=["quotes", "net", "buy_on", "sell_on"])


def _tell(watch: SpreadWatch, gap: Gap) -> None:
    now = timezone.now()
    is_quiet = Q(told_at=None) | Q(told_at__lte=now - timedelta(seconds=watch.quiet))
    if SpreadWatch.objects.filter(is_quiet, pk=watch.pk).update(told_at=now):
        notices.tell(Event.SPREAD_SEEN, lambda: _news(watch, gap))


def _news(watch: SpreadWatch, gap: Gap) -> notices.News:
    told = {one["account"]: one for one in watch.quotes}
    buy, sell = told[gap.buy_on], told[gap.sell_on]
    return notices.News(
        f"{watch.symbol}: {text(gap.net * 100)} % between {gap.buy_on} and {gap.sell_on}",
        f"After fees: bought at {buy['buys_at']} on {gap.buy_on} (ask {buy['ask']}), sold at "
        f"{sell['sells_at']} on {gap.sell_on} (bid {sell['bid']}). The threshold is "
        f"{text(watch.threshold * 100)} %. FKS trades nothing on this.",
        symbol=watch.symbol,
    )


def _in_a_thread(symbol: str, account: Account) -> Seen:
    try:
        return _seen(symbol, account)
    finally:
        connection.close()


def _answer(account: Account, asked: Future[Seen]) -> Seen:
    if asked.done():
        return asked.result()
    late = Refusal(ReasonCode.VENUE_UNREACHABLE, f"no answer within {DEADLINE:g} s")
    return Seen(account.name, refusal=late)


def _seen(symbol: str, account: Account) -> Seen:
    try:
        with bulkheads.place([account.pk]):
            return _quoted(symbol, account)
    except Crowded:
        busy = Refusal(ReasonCode.RATE_LIMITED, "too many questions to it are under way")
        return Seen(account.name, refusal=busy)
    except Refusal as refusal:
        return Seen(account.name, refusal=refusal)
    except BrokerError as error:
        return Seen(account.name, refusal=facts.refusal_of(error))


def _quoted(symbol: str, account: Account) -> Seen:
    ours = symbol_for(account, symbol, timezone.now().date(), allows_delayed=False)
    if _money(ours) != _money(symbol):
        other = f"{ours} is not priced in {_money(symbol)}"
        raise Refusal(ReasonCode.CURRENCY_MISMATCH, other)
    plugin = plugin_for(account)
    with facts.venue_call(account):
        quote = plugin.fetch_data(ours)
        fees = quotes.fees_of(account, plugin.trading_fees(ours))
    quotes.refuse_old(account, quote.at)
    if not (is_positive(quote.bid) and is_positive(quote.ask)):
        raise Refusal(ReasonCode.REFERENCE_UNAVAILABLE, "its quote has no usable price")
    return Seen(account.name, quote, fees.taker)


def _money(symbol: str) -> str:
    """What prices are counted in: two kinds of dollars are two prices here."""
    return symbol.partition("/")[2].partition(":")[0]
