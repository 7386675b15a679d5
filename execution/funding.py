"""Funding payments: read back from the venues that tell them, each booked once.

They are the account's: those of positions FKS did not open are booked as well.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import Max, Sum
from django.utils import timezone

from brokers.base import ExecutionPlugin
from brokers.errors import BrokerError, NotSupportedError
from brokers.fields import MoneyField
from brokers.models import Account
from brokers.types import FundingReport
from execution import facts
from execution.models import SIGNED, Fill, FundingPayment
from risk.types import Refusal

logger = logging.getLogger(__name__)

READ_EVERY = timedelta(minutes=10)
"""Venues pay every hour at most."""
OVERLAP = timedelta(hours=1)
REACH = timedelta(days=30)
"""How far back an account's payments are read that has none yet."""


def read(account: Account, plugin: ExecutionPlugin) -> int:
    """Book what the venue has paid or taken since the last time; how many payments are new.

    Asks nothing of an account that was asked a moment ago, has never traded, or whose venue tells
    none. A venue that does not answer is asked again the next time.
    """
    now = timezone.now()
    if account.funding_read_at is not None and now - account.funding_read_at < READ_EVERY:
        return 0
    since = _since(account, now)
    if since is None:
        return 0
    try:
        with facts.venue_call(account):
            told = plugin.funding_since(since)
    except NotSupportedError:
        told = ()
    except (BrokerError, Refusal) as error:
        logger.warning("funding of %s cannot be read now: %s", account.name, error)
        return 0
    booked = _book(account, told, now)
    Account.objects.filter(pk=account.pk).update(funding_read_at=now)
    return booked


def _since(account: Account, now: datetime) -> datetime | None:
    """From the last payment on; of an account without any, from its first trade on."""
    payments = FundingPayment.objects.filter(account=account)
    last: datetime | None = payments.aggregate(last=Max("at"))["last"]
    if last is not None:
        return max(last - OVERLAP, now - REACH)
    first = Fill.objects.filter(account=account).order_by("id").values_list("at", flat=True).first()
    return None if first is None else max(first, now - REACH)


def _book(account: Account, told: Sequence[FundingReport], now: datetime) -> int:
    ids = [one.payment_id for one in told]
    known = set(
        FundingPayment.objects.filter(account=account, payment_id__in=ids).values_list(
            "payment_id", flat=True
        )
    )
    rows = [
        FundingPayment(
            account=account,
            payment_id=one.payment_id,
            symbol=one.symbol,
            strategy_id=_holder(account, one.symbol, one.at),
            amount=one.amount,
            currency=one.currency,
            at=one.at,
            recorded_at=now,
        )
        for one in told
        if one.payment_id not in known
    ]
    FundingPayment.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def _holder(account: Account, symbol: str, at: datetime) -> int | None:
    """The strategy whose fills alone held the position then; ``None`` where several did, or orders by
    hand that belong to no strategy."""
    held = (
        Fill.objects.filter(account=account, symbol=symbol, at__lte=at)
        .order_by()
        .values("order__strategy")
        .annotate(held=Sum(SIGNED, output_field=MoneyField()))
        .exclude(held=Decimal(0))
        .values_list("order__strategy", flat=True)[:2]
    )
    holders = list(held)
    return holders[0] if len(holders) == 1 else None
