"""How a strategy's alerts come in: too many, none where one was expected, or one lost in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from django.db.models import Max
from django.utils import timezone

from execution import alarms
from execution.alarms import Kind, Seen
from execution.alerts import Alert, MarketPosition
from execution.models import Alarm, Signal, Strategy
from risk import calendars
from risk.types import ReasonCode, Refusal

LONGEST_LOOK = timedelta(days=21)
"""Silence longer than this is overdue whatever the hours: no market rests so long."""
NEARLY = Decimal("0.005")
"""Venues take fees in the coin, so the book holds a little less than the sender believes."""
_SATURDAY = 5


def over_limit(signal: Signal) -> Refusal | None:
    """THROTTLED when the strategy has sent more than its limit before ``signal``; the refusal is kept
    on the signal, which stays stored.

    Signals refused for this are not counted, so that what the limit allows always goes through.
    Counted from the database: the same after a restart and in every worker.
    """
    strategy = signal.strategy
    if strategy.most_alerts is None:
        return None
    since = signal.received_at - timedelta(seconds=strategy.most_alerts_window)
    earlier = Signal.objects.filter(
        strategy=strategy, pk__lt=signal.pk, pk__gte=_first_id_at(since), received_at__gt=since
    ).exclude(reason=ReasonCode.THROTTLED.value)
    if not earlier.order_by("-pk").values("pk")[strategy.most_alerts - 1 :].exists():
        return None
    seconds = strategy.most_alerts_window
    return Refusal(
        ReasonCode.THROTTLED,
        f"{strategy.slug} has sent {strategy.most_alerts} alerts in {seconds} s already",
        {"most": str(strategy.most_alerts), "window": str(seconds)},
    )


def _first_id_at(moment: datetime) -> UUID:
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def gap(alert: Alert, held: Iterable[tuple[str, Decimal]], *, compares_size: bool) -> str:
    """What the sender believes it held before this alert, where our book says otherwise; else empty.

    ``held`` are the accounts' names with their signed quantities. An alert between this one and the
    last has probably not arrived, or was refused. Sizes are compared only where ours follow theirs.
    """
    if alert.prev_market_position is None:
        return ""
    for account, quantity in held:
        side = _side(quantity)
        size = alert.prev_market_position_size if compares_size else None
        if side is alert.prev_market_position and _same_size(size, abs(quantity)):
            continue
        believed = alert.prev_market_position.value + ("" if size is None else f" {size:f}")
        found = side.value + ("" if side is MarketPosition.FLAT else f" {abs(quantity):f}")
        return f"the sender was {believed} before this alert, {account} is {found}"
    return ""


def _side(quantity: Decimal) -> MarketPosition:
    if not quantity:
        return MarketPosition.FLAT
    return MarketPosition.LONG if quantity > 0 else MarketPosition.SHORT


def _same_size(believed: Decimal | None, held: Decimal) -> bool:
    return believed is None or abs(believed - held) <= believed * NEARLY


def note_gap(signal: Signal, found: str) -> None:
    """Keep ``found`` on the signal and raise an alarm; the next alert without a gap ends it."""
    key = f"{signal.strategy.slug} {signal.symbol}"
    if not found:
        alarms.clear(Kind.GAP, key)
    elif Signal.objects.filter(pk=signal.pk, gap="").update(gap=found):
        alarms.sound(Seen(Kind.GAP, key, found))


def look_for_silence(now: datetime | None = None) -> list[Alarm]:
    """Raise an alarm for every strategy whose expected alert is overdue, and end those of strategies
    that were heard again or are expected no longer; returns the new ones.
    """
    now = now or timezone.now()
    expecting = Strategy.objects.filter(is_enabled=True, expects_minutes__isnull=False)
    silent: dict[str, Seen] = {}
    for strategy in expecting.annotate(heard_at=Max("signals__received_at")):
        since = strategy.heard_at or strategy.created_at
        minutes = strategy.expects_minutes or 0
        if expected_time(strategy, since, now) >= timedelta(minutes=minutes):
            text = (
                f"no alert since {since:%Y-%m-%d %H:%M} UTC, one expected every {minutes} minutes"
            )
            silent[strategy.slug] = Seen(Kind.SILENT, strategy.slug, text)
    for alarm in Alarm.objects.filter(kind=Kind.SILENT, cleared_at=None):
        if alarm.key not in silent:
            alarms.clear(Kind.SILENT, alarm.key)
    return [alarm for alarm in map(alarms.sound, silent.values()) if alarm is not None]


def expected_time(strategy: Strategy, since: datetime, now: datetime) -> timedelta:
    """How much of the time from ``since`` to ``now`` lies in the hours alerts are expected in."""
    since = max(since, now - LONGEST_LOOK)
    total = timedelta()
    for opens, closes in _hours(strategy, since, now):
        total += max(min(closes, now) - max(opens, since), timedelta())
    return total


def _hours(
    strategy: Strategy, since: datetime, now: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """The expected hours of each day, a day early because hours may run past midnight."""
    opens = strategy.expects_from or time.min
    closes = strategy.expects_until or time.min
    day = since.astimezone(UTC).date() - timedelta(days=1)
    while day <= now.astimezone(UTC).date():
        if _is_open(strategy.expects_market, day):
            last = day if closes > opens else day + timedelta(days=1)
            yield datetime.combine(day, opens, UTC), datetime.combine(last, closes, UTC)
        day += timedelta(days=1)


def _is_open(market: str, day: date) -> bool:
    return not market or (day.weekday() < _SATURDAY and not calendars.is_holiday(market, day))
