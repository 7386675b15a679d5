"""The weekly summary: what the past week brought, told on Monday morning to channels that asked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, Sum
from django.utils import timezone

from brokers.decimals import decimal_text
from brokers.models import Account
from execution import equity
from execution.marks import marks_of
from execution.models import Alarm, Fill, FundingPayment, Order, Signal
from execution.states import OrderState
from risk import notices
from risk.channels import Channel, Event

HOUR = time(7, tzinfo=UTC)
MOST_REASONS = 3
_Account = tuple[str, str]
"""Name and currency."""


def look() -> int:
    """Write this week's summary for every channel that has not had it; returns for how many."""
    now = timezone.now()
    monday = datetime.combine(now.date() - timedelta(days=now.weekday()), HOUR)
    if now < monday:
        return 0
    told = 0
    asked = Channel.objects.filter(is_active=True, weekly_summary=True)
    for channel in asked.filter(Q(summarised_at=None) | Q(summarised_at__lt=monday)):
        news = summary(monday - timedelta(days=7), monday, accounts=channel.accounts)
        with transaction.atomic():
            mine = Channel.objects.filter(pk=channel.pk, summarised_at=channel.summarised_at)
            if mine.update(summarised_at=now):
                notices.write(Event.WEEKLY_SUMMARY, news, [channel])
                told += 1
    return told


def summary(since: datetime, until: datetime, *, accounts: Sequence[str] = ()) -> notices.News:
    """The week in a few lines: results by account, alerts, orders, refusals, alarms.

    With ``accounts``, of these only: alerts that led to an order of theirs, and alarms about them or
    about no account.
    """
    theirs = Q(account__name__in=accounts) if accounts else Q()
    orders = Order.objects.filter(theirs, created_at__gte=since, created_at__lt=until).order_by()
    orders = orders.filter(parent__isnull=True)
    received = Signal.objects.filter(received_at__gte=since, received_at__lt=until)
    if accounts:
        ordered = Order.objects.filter(theirs, signal=OuterRef("pk"))
        received = received.filter(Exists(ordered))
    raised = Alarm.objects.filter(raised_at__gte=since, raised_at__lt=until)
    alarms = raised.filter(theirs | Q(account=None) if accounts else Q()).count()
    states = dict(orders.values_list("state").annotate(count=Count("pk")))
    filled = states.get(OrderState.FILLED, 0)
    lines = [*_results(since, until, theirs)]
    lines.append(f"{received.count()} alerts, {sum(states.values())} orders, {filled} filled")
    refused = orders.filter(state__in=(OrderState.DENIED, OrderState.REJECTED))
    reasons = refused.values_list("reason").annotate(count=Count("pk")).order_by("-count", "reason")
    for reason, count in reasons[:MOST_REASONS]:
        lines.append(f"refused {count} × {reason}")
    lines.append(f"{alarms} alarms")
    return notices.News(f"Week to {until:%Y-%m-%d}", "\n".join(lines))


def _results(since: datetime, until: datetime, theirs: Q) -> list[str]:
    traded = _traded(since, until, theirs)
    payments = FundingPayment.objects.filter(theirs, at__gte=since, at__lt=until).order_by()
    paid = {
        (name, currency): f"funding {_signed(total)} {currency}"
        for name, currency, total in payments.values_list("account__name", "currency").annotate(
            total=Sum("amount")
        )
    }
    worth = _worths({name for name, _ in {**traded, **paid}}, since, until)
    return [
        f"{account[0]}: {', '.join(one[account] for one in (traded, paid, worth) if account in one)}"
        for account in sorted({**traded, **paid})
    ] or ["no fills"]


def _traded(since: datetime, until: datetime, theirs: Q) -> dict[_Account, str]:
    """What was realised, in the account's currency at each symbol's last rate."""
    fills = Fill.objects.filter(theirs, recorded_at__gte=since, recorded_at__lt=until).order_by()
    rows = fills.values_list(
        "account", "symbol", "account__name", "account__quote_currency"
    ).annotate(result=Sum("realised_pnl"), count=Count("pk"))
    marks = marks_of([(account, symbol) for account, symbol, *_ in rows], until)
    results: defaultdict[_Account, Decimal] = defaultdict(Decimal)
    counts: Counter[_Account] = Counter()
    for pk, symbol, name, currency, result, count in rows:
        mark = marks.get((pk, symbol))
        results[name, currency] += result * mark.rate if mark else result
        counts[name, currency] += count
    return {
        account: f"{_signed(result)} {account[1]} in {counts[account]} fills"
        for account, result in results.items()
    }


def _worths(names: Collection[str], since: datetime, until: datetime) -> dict[_Account, str]:
    """What the accounts were worth at the end, and how that changed; of those with samples."""
    accounts = Account.objects.filter(name__in=names)
    samples = equity.curves(accounts, since, until)
    found = {}
    for account in accounts:
        if points := samples[account.pk]:
            first, last = points[0].total, points[-1].total
            worth = f"equity {decimal_text(_cents(last))} ({_signed(last - first)})"
            found[account.name, account.quote_currency] = worth
    return found


def _signed(amount: Decimal) -> str:
    return f"{'+' if amount > 0 else ''}{decimal_text(_cents(amount))}"


def _cents(amount: Decimal) -> Decimal:
    """To the cent; what is less than one as it is."""
    return round(amount, 2) or amount
