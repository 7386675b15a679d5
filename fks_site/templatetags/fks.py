"""Numbers, times and states as the admin's pages show them."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django import template
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.safestring import SafeString

from brokers import access, display
from brokers.decimals import decimal_text
from brokers.display import ENVIRONMENT_COLORS
from brokers.models import Account
from execution import fee_values
from execution.models import Fill, Protection
from execution.states import GUARD_COLORS, ORDER_COLORS, SIGNAL_COLORS, OrderState, SignalState
from fks_site import account_figures, limit_use
from risk.advice import advice
from risk.colors import BREAKER_COLORS, TRADING_COLORS

register = template.Library()
register.filter("advice", advice)

MOST_COMPARED = 20
_ICONS = {
    "success": "check_circle",
    "danger": "error",
    "warning": "block",
    "info": "schedule",
    "default": "remove_circle_outline",
}


@register.filter
def number(value: Decimal | None) -> SafeString | str:
    """Fixed point, no trailing zeros."""
    return display.number(value)


@register.filter
def average(value: Decimal | None) -> SafeString | str:
    """A computed price to ten digits, exactly on hover."""
    return display.average(value)


@register.filter
def signed(value: Decimal | None) -> SafeString | str:
    """A gain or loss with its sign."""
    return display.number(value, signed=True)


@register.filter
def money(value: Decimal | None) -> SafeString | str:
    """A gain or loss to the cent, exactly on hover."""
    return display.money(value)


@register.filter
def amount(value: Decimal | None) -> SafeString | str:
    """Money to the cent, exactly on hover."""
    return display.money(value, signed=False)


@register.filter
def clock(value: datetime | None) -> SafeString | str:
    """The time of day, with the date unless that is today's."""
    return display.clock(value, timezone.now())


@register.filter
def moment(value: datetime | None) -> SafeString | str:
    """UTC to the second, microseconds on hover."""
    return display.moment(value)


@register.filter
def plain(value: Decimal) -> str:
    """A number where no markup may stand."""
    return decimal_text(value)


@register.filter
def percent(share: Decimal | None) -> str:
    """A share of one."""
    return display.EMPTY if share is None else f"{share * 100:.0f}\u00a0%"


@register.filter
def ratio(value: Decimal | None) -> str:
    """To two digits."""
    return display.EMPTY if value is None else f"{value:.2f}"


@register.filter
def lasting(value: timedelta | None) -> str:
    """A time that passed: milliseconds below ten seconds."""
    if value is None:
        return display.EMPTY
    seconds = value.total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else age(int(seconds))


@register.filter
def age(seconds: int | None) -> str:
    """Seconds in the largest unit that fits."""
    if seconds is None:
        return display.EMPTY
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@register.inclusion_tag("fks/used_bar.html")
def used_bar(row: Any) -> dict[str, Any]:
    """How much of an account's daily loss limit is used up, as a bar with its numbers."""
    return {"use": account_figures.daily_use(row)}


@register.simple_tag(takes_context=True)
def limits_in_use(context: Any) -> list[limit_use.Use]:
    """What the accounts use of their limits, for whoever may look at orders."""
    request = context["request"]
    return limit_use.latest(request) if request.user.has_perm("execution.view_order") else []


@register.simple_tag(takes_context=True)
def row_actions(context: Any, actions: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """The actions of a list's row, each with why the row's state forbids it, if it does."""
    shown, row = context["cl"], context["result"].instance
    owner = shown.model_admin
    page = f"{owner.admin_site.name}:{owner.opts.app_label}_{owner.opts.model_name}_"
    names = [one["raw_path"].removeprefix(page) for one in actions]
    refusals = [shown.refusal(name, row) for name in names]
    return list(zip(actions, refusals, strict=True))


@register.simple_tag(takes_context=True)
def compared_accounts(context: Any) -> QuerySet[Account]:
    """The accounts in use that the user sees; the one that was compared longest ago first."""
    rows = Account.objects.filter(is_active=True).order_by(F("reconciled_at").asc(nulls_first=True))
    return access.seen(context["request"].user, rows)[:MOST_COMPARED]


@register.simple_tag
def fee_of(fill: Fill) -> str:
    """A fill's fee, and what one in a third coin counts for."""
    return fee_values.shown(fill)


@register.inclusion_tag("fks/pill.html")
def order_pill(state: str) -> dict[str, Any]:
    """An order's state as a coloured word with an icon."""
    return _pill(OrderState(state).label, ORDER_COLORS[OrderState(state)])


@register.inclusion_tag("fks/pill.html")
def signal_pill(state: str) -> dict[str, Any]:
    """A signal's state as a coloured word with an icon."""
    return _pill(SignalState(state).label, SIGNAL_COLORS[SignalState(state)])


@register.inclusion_tag("fks/pill.html")
def breaker_pill(state: str) -> dict[str, Any]:
    """A breaker's state as a coloured word with an icon."""
    return _pill(state.replace("_", " "), BREAKER_COLORS[state])  # type: ignore[index]


@register.inclusion_tag("fks/pill.html")
def trading_pill(state: str) -> dict[str, Any]:
    """The kill switch's state as a coloured word with an icon."""
    return _pill(state, TRADING_COLORS[state])  # type: ignore[index]


@register.inclusion_tag("fks/pill.html")
def guard_pill(protection: Protection) -> dict[str, Any]:
    """Whether a position is guarded, as a coloured word with an icon."""
    word = protection.guard
    pill = _pill(word, GUARD_COLORS[word])
    return {**pill, "icon": "visibility"} if word == "watched" else pill


@register.inclusion_tag("fks/pill.html")
def environment_pill(environment: str) -> dict[str, Any]:
    """An account's environment as a coloured word with an icon."""
    words = {"dry_run": "paper"}
    pill = _pill(words.get(environment, environment), ENVIRONMENT_COLORS[environment])
    return {**pill, "icon": {"live": "paid", "sandbox": "science"}.get(environment, "draft")}


def _pill(text: str, color: str) -> dict[str, Any]:
    return {"text": text, "color": color, "icon": _ICONS[color]}
