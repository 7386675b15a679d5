"""How many messages an account may send: the limit ``message_rate``, held exactly across workers.

Counted from the orders' own rows and journals, so that a restart forgets nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Count, QuerySet, Subquery
from django.utils import timezone

from brokers.models import Account
from brokers.prepared import Prepared, given
from execution.models import Order, OrderEvent
from risk.limits import limits_for
from risk.rules import RULES
from risk.rules.conduct import may_send
from risk.types import Limit, LimitMode, ReasonCode

RULE = "message_rate"
SENDING_LOCK = 0x464B5305
TRY_AGAIN = timedelta(seconds=0.2)


def lets_through(order: Order) -> bool:
    """Whether ``order`` may be sent now; call in the transaction that claims it.

    One that may not waits in its lane. It says why, so that it tells if it expires there.
    """
    limits = [
        limit
        for limit in limits_for(order.account_id, _slug(order), order.symbol, rule=RULE)
        if limit.mode is LimitMode.ENFORCE
    ]
    if not limits:
        return True
    with connection.cursor() as cursor:
        key = order.account_id % 2**31
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [SENDING_LOCK, key])
    now = timezone.now()
    if all(_has_room(limit, order, now) for limit in limits):
        return True
    Order.objects.filter(pk=order.pk).update(
        reason=ReasonCode.MESSAGE_RATE.value, next_check_at=now + TRY_AGAIN
    )
    return False


def _has_room(limit: Limit, order: Order, now: datetime) -> bool:
    settings = RULES[RULE].settings(limit.parameters)
    window = timedelta(seconds=settings["window"])
    # A cancel is repeated for as long as the venue does not comply: no exit waits for that.
    sent = sent_within(order.account_id, window, now, with_cancels=not order.is_exit)
    return may_send(limit.value, settings["kept"], sent, is_exit=order.is_exit)


def sent_within(
    account_id: int, window: timedelta, now: datetime, *, with_cancels: bool = True
) -> int:
    """Orders and cancels that were sent for the account so lately. What is further ahead of the clock
    was sent before it was set back.
    """
    [(orders, cancels)] = _sent(account=account_id, since=now - window, until=now + window)
    return (orders or 0) + ((cancels or 0) if with_cancels else 0)


@Prepared
def _sent() -> QuerySet[Account, tuple[int | None, int | None]]:
    account, since, until = given("account"), given("since"), given("until")
    orders = Order.objects.filter(account=account, submitted_at__gt=since, submitted_at__lt=until)
    cancels = OrderEvent.objects.filter(
        event="cancel_sent", at__gt=since, at__lt=until, order__account=account
    )
    mine = Account.objects.filter(pk=account).order_by()
    return mine.values_list(_counted(orders, "account"), _counted(cancels, "order__account"))


def _counted(rows: QuerySet[Any], owner: str) -> Subquery[Any]:
    return Subquery(rows.order_by().values(owner).annotate(count=Count("pk")).values("count"))


def _slug(order: Order) -> str:
    return order.strategy.slug if order.strategy else ""
