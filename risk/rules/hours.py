"""When entries may be made: a trading window with its time zone and the holidays of a market."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from risk import calendars
from risk.rules.parameters import Parameter, clock, days, zone
from risk.rules.registry import Unit, failed, passed, rule
from risk.types import Facts, Intent, Limit, ReasonCode, Size, Verdict


@rule(
    "trading_hours",
    label="trading hours",
    unit=Unit.MINUTES,
    default="0",
    help="Refuse entries outside the window, and this many minutes before it closes. A window that "
    "closes before it opens ends on the next day.",
    parameters=[
        Parameter("days", days, "mon-fri", "weekdays on which it opens"),
        Parameter("opens", clock, "09:30", "time of day"),
        Parameter("closes", clock, "16:00", "time of day"),
        Parameter("zone", zone, "America/New_York", "time zone of both"),
        Parameter("holidays", calendars.market, "", "a market whose holidays are kept, e.g. XNYS"),
        Parameter("half_day_closes", clock, "13:00", "when it closes on that market's half days"),
    ],
    more_is_stricter=True,
)
def trading_hours(
    limit: Limit, intent: Intent, size: Size, facts: Facts, settings: Mapping[str, Any]
) -> Verdict:
    """Local times are those of the zone, so that a change of its clocks moves the window with them."""
    now = facts.at.astimezone(settings["zone"])
    margin = timedelta(minutes=int(limit.value))
    for day in (now.date(), now.date() - timedelta(days=1)):
        window = _window(day, settings)
        # Compared in UTC: on the day of a clock change local times run unevenly.
        if window and window[0] <= facts.at < window[1] - margin:
            return passed(limit, f"open until {window[1].astimezone(settings['zone']):%H:%M}")
    where = f"{now:%a %H:%M} {settings['zone'].key}"
    detail = f"{where} is outside the trading hours ({limit.scope})"
    return failed(limit, ReasonCode.TRADING_HOURS, detail, now=where)


def _window(day: date, settings: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """Opening and closing of ``day``; ``None`` when it does not open."""
    market = settings["holidays"]
    if day.weekday() not in settings["days"] or (market and calendars.is_holiday(market, day)):
        return None
    opens, closes = settings["opens"], settings["closes"]
    until = day if closes > opens else day + timedelta(days=1)
    if market and calendars.is_half_day(market, until):
        closes = min(closes, settings["half_day_closes"])
    where = settings["zone"]
    return (
        datetime.combine(day, opens, where).astimezone(calendars.UTC),
        datetime.combine(until, closes, where).astimezone(calendars.UTC),
    )
