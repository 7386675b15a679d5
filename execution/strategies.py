"""Making strategies: a webhook with its secret, its rules, and routes to accounts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction

from brokers.models import Account
from execution.authentication import new_secret
from execution.models import Route, Strategy
from execution.parsing import Unreadable, decimal_from
from execution.standard_webhooks import MalformedSecret
from risk import audit
from risk.models import IPAllowlist

TRADINGVIEW = "tradingview"
NO_ALLOWLIST = "none"
SECRET_NAMES = {
    Strategy.Auth.TOKEN: "token",
    Strategy.Auth.HMAC: "hmac_secret",
    Strategy.Auth.STANDARD: "standard_secret",
    Strategy.Auth.JWT: "",
}
_ROUTE_OPTIONS = {"quantity": "quantity", "risk_percent": "percent", "percent": "percent"}
_DECIMAL_OPTIONS = {
    "min_confidence",
    "min_reward_risk",
    "max_drift",
    "slice_quantity",
    "trail_percent",
    "trail_distance",
    "break_even_percent",
}
_WHOLE_OPTIONS = {
    "max_age",
    "dedupe_window",
    "most_alerts_window",
    "approval_seconds",
    "slices",
    "slicing_seconds",
}
_GIVEN_OPTIONS = {"ladder_percent", "trail_step"}
_FLAG_OPTIONS = {"allows_delayed", "needs_approval", "exits_need_approval"}
_COUNT_OPTIONS = {"most_alerts", "expects_minutes"}
_FRACTIONS = {"min_confidence", "risk_percent", "max_drift"}
OPTIONS = {
    "quantity": "base quantity of an order when the alert names none (fixed_quantity)",
    "percent": "fraction of equity per order: 0.02 is 2 % (fixed_percent)",
    "risk_percent": "fraction of equity lost at the stop: 0.01 is 1 % (risk, atr)",
    "atr_multiple": "stop distance in ATRs (atr)",
    "max_age": "seconds after which an alert is stale",
    "min_confidence": "least confidence of an entry, to 1; a missing one is then refused; 0 for none",
    "min_reward_risk": "least reward-to-risk of an entry; a missing one is then refused; 0 for none",
    "max_drift": "how far the market may be from an entry's price, as a fraction: 0.005 is 0.5 %",
    "allows_delayed": "true to trade on delayed data (exchanges ending in _DL, _DLY)",
    "format_options": "a JSON object: the mapping, or what PineConnector's fields mean",
    "dedupe_window": "seconds in which the same body counts as one delivery",
    "on_naked": "alarm, replace or close, when a stop loss is missing at the venue",
    "trail_percent": "the stop follows the market so many percent behind it: 2 is 2 %",
    "trail_distance": "instead: so far behind it, in the quote asset",
    "trail_step": "it is moved by at least so many percent of the price",
    "break_even_percent": "the stop goes to the entry plus fees once the market is so much better",
    "execution": "whole, twap, iceberg or ladder: how its entries are sent",
    "exit_execution": "the same for exits that an alert asks for",
    "allowed_executions": "which of these an alert may ask for itself, with commas; empty: none",
    "slices": "in how many parts",
    "slicing_seconds": "twap: spread over how long",
    "slice_quantity": "iceberg: how much is shown at a time",
    "ladder_percent": "ladder: how many percent each rung is better than the one before it",
    "allowlist": "name of an address allowlist, or none",
    "needs_approval": "true: its orders wait until a person approves them",
    "approval_seconds": "how long they wait before they expire",
    "exits_need_approval": "true: exits wait too",
    "most_alerts": "how many alerts may open positions within most_alerts_window; 0 for no limit",
    "most_alerts_window": "seconds",
    "expects_minutes": "an alarm is raised after so many minutes without an alert",
    "expects_market": "a market (XNYS) whose weekends, holidays and half days do not count for that",
    "route_group": "a name: one of the accounts takes each entry, by price; empty: all take it",
    "senders": "jwt: users who may post, separated by commas, beside those who may post everywhere",
}


class StrategyError(Exception):
    """The strategy cannot be made as asked; the message is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Created:
    """A new strategy and its secret, which nothing shows again. ``secret_name`` is for answers; both
    are empty for the profile jwt, whose senders are users.
    """

    strategy: Strategy
    secret_name: str
    secret: str


def create_strategy(
    slug: str,
    *,
    accounts: Iterable[str],
    auth: str = Strategy.Auth.TOKEN,
    format: str = Strategy.Format.FKS,
    sizing: str = Route.Sizing.FIXED_QUANTITY,
    options: Mapping[str, Any] | None = None,
    secret: str = "",
) -> Created:
    """A new strategy with its routes and first secret, in one transaction. Raises StrategyError."""
    given = dict(options or {})
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise StrategyError(f"there is no option {unknown[0]!r}; known: {', '.join(OPTIONS)}")
    strategy = Strategy(slug=slug, auth=auth, format=format, allowlist=_allowlist(given, auth))
    strategy.is_enabled = False
    _apply(strategy, given)
    try:
        strategy.full_clean()
        with transaction.atomic():
            strategy.save()
            for name in accounts:
                _add_route(strategy, name, sizing, given)
            strategy.senders.set(_senders(given, auth))
            value = "" if auth == Strategy.Auth.JWT else new_secret(strategy, auth, secret)[1]
            strategy.is_enabled = True
            strategy.full_clean()
            strategy.save()
            audit.record("strategy.created", f"strategy {slug}", after=audit.snapshot(strategy))
    except ValidationError as error:
        raise StrategyError("; ".join(error.messages)) from error
    except MalformedSecret as error:
        raise StrategyError(str(error)) from None
    return Created(strategy, SECRET_NAMES[Strategy.Auth(auth)], value)


def _apply(strategy: Strategy, given: Mapping[str, Any]) -> None:
    for name in _WHOLE_OPTIONS & set(given):
        setattr(strategy, name, _whole_number(name, given[name]))
    for name in _GIVEN_OPTIONS & set(given):
        setattr(strategy, name, _number(name, given[name]))
    for name in _DECIMAL_OPTIONS & set(given):
        number = _number(name, given[name])
        setattr(strategy, name, number if number or name == "max_drift" else None)
    for name in _COUNT_OPTIONS & set(given):
        setattr(strategy, name, _whole_number(name, given[name]) or None)
    strategy.expects_market = str(given.get("expects_market", ""))
    for name in _FLAG_OPTIONS & set(given):
        setattr(strategy, name, _flag(name, given[name]))
    strategy.format_options = json.loads(
        json.dumps(given.get("format_options", {}), default=_whole)
    )
    for name in ("on_naked", "execution", "exit_execution", "allowed_executions"):
        setattr(strategy, name, str(given.get(name, getattr(strategy, name))))


def _allowlist(given: Mapping[str, Any], auth: str) -> IPAllowlist | None:
    """The named allowlist; without a name, token webhooks get TradingView's own addresses."""
    usual = TRADINGVIEW if auth == Strategy.Auth.TOKEN else NO_ALLOWLIST
    name = given.get("allowlist", usual)
    if name == NO_ALLOWLIST:
        return None
    found = IPAllowlist.objects.filter(name=name).first()
    if found is None:
        known = ", ".join(IPAllowlist.objects.values_list("name", flat=True))
        raise StrategyError(f"there is no allowlist {name!r}; known: {known}, {NO_ALLOWLIST}")
    return found


def _senders(given: Mapping[str, Any], auth: str) -> list[User]:
    names = [name.strip() for name in str(given.get("senders", "")).split(",") if name.strip()]
    if names and auth != Strategy.Auth.JWT:
        raise StrategyError("senders are for the profile jwt; the others have a secret")
    users = list(User.objects.filter(username__in=names))
    missing = sorted(set(names) - {user.username for user in users})
    if missing:
        raise StrategyError(f"there is no user {missing[0]!r}")
    return users


def _add_route(strategy: Strategy, name: str, sizing: str, given: Mapping[str, Any]) -> None:
    account = Account.objects.filter(name=name).first()
    if account is None:
        raise StrategyError(f"there is no account {name!r}; make it with add_account")
    route = Route(strategy=strategy, account=account, sizing=sizing)
    route.group = str(given.get("route_group", ""))
    for option, column in _ROUTE_OPTIONS.items():
        if option in given:
            setattr(route, column, _number(option, given[option]))
    if "atr_multiple" in given:
        route.atr_multiple = _number("atr_multiple", given["atr_multiple"])
    route.full_clean()
    route.save()


def _whole(number: Decimal) -> int | str:
    """A number inside JSON options: whole, or as exact text."""
    return int(number) if number == number.to_integral_value() else format(number, "f")


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise StrategyError(f"the option {name} is true or false")
    return value


def _whole_number(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != number.to_integral_value():
        raise StrategyError(f"the option {name} must be a whole number")
    return int(number)


def _number(name: str, value: Any) -> Decimal:
    try:
        number = decimal_from(value if isinstance(value, str) else json.dumps(value))
    except (Unreadable, TypeError) as error:
        raise StrategyError(f"the option {name} must be a number") from error
    if number < 0:
        raise StrategyError(f"the option {name} must not be negative")
    if name in _FRACTIONS and number > 1:
        raise StrategyError(f"the option {name} is a fraction, at most 1 (0.02 is 2 %)")
    return number
