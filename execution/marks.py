"""The last price FKS saw of each symbol, with its rate to the account's currency: what positions are
worth, and whether a price has jumped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import Q, QuerySet
from django.utils import timezone

from brokers.models import Instrument
from brokers.prepared import Prepared, given
from brokers.types import Environment, Quote
from risk.arithmetic import is_positive
from risk.book import Seen

KEPT_APART = timedelta(seconds=5)
"""A price is noted no more often: one that jumped is compared with the one before it until then."""

TOO_OLD = timedelta(minutes=5)
"""A price further ahead of the clock was seen before it was set back, and says nothing of now."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One symbol's last price and rate. ``is_fresh`` always holds at a rehearsal venue, where a price
    stands until somebody names another."""

    price: Decimal
    rate: Decimal
    at: datetime
    is_fresh: bool

    @property
    def value(self) -> Decimal:
        """Of one unit, in the account's currency."""
        return self.price * self.rate


def note(row: Instrument, quote: Quote, rate: Decimal) -> Seen | None:
    """Keep the quote's middle as the symbol's last price; returns the one noted before."""
    if not is_positive(quote.mid):
        return None
    now, before = timezone.now(), None
    earliest, latest = now - KEPT_APART, now + KEPT_APART
    if row.last_price is not None and row.last_price_at is not None and row.last_price_at < latest:
        before = Seen(row.last_price, row.last_price_at)
    if before is None or before.at <= earliest:
        due = Q(last_price_at=None) | Q(last_price_at__lte=earliest) | Q(last_price_at__gte=latest)
        Instrument.objects.filter(due, pk=row.pk).update(
            last_price=quote.mid, last_rate=rate, last_price_at=now
        )
    return before


def is_recent(at: datetime, now: datetime) -> bool:
    """Whether a price seen ``at`` says what something is worth ``now``."""
    return abs(now - at) <= TOO_OLD


def marks_of(places: Iterable[tuple[int, str]], now: datetime) -> dict[tuple[int, str], Mark]:
    """The marks of (account, symbol) pairs, those without one left out. One query."""
    wanted = set(places)
    if not wanted:
        return {}
    rows = _priced(
        accounts=[account for account, _ in wanted], symbols=[symbol for _, symbol in wanted]
    )
    return {
        (row.account_id, row.symbol): Mark(
            price=row.last_price or Decimal(0),
            rate=row.last_rate,
            at=row.last_price_at or now,
            is_fresh=row.account.environment == Environment.DRY_RUN
            or is_recent(row.last_price_at or now, now),
        )
        for row in rows
        if (row.account_id, row.symbol) in wanted
    }


@Prepared
def _priced() -> QuerySet[Instrument]:
    return Instrument.objects.filter(
        account__any=given("accounts"),
        symbol__any=given("symbols"),
        last_price__isnull=False,
        last_price_at__isnull=False,
    ).select_related("account")
