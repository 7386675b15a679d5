"""What keeps a strategy from trading, as its page says it: everything an alert would stumble over."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings

from brokers.models import Account
from brokers.types import Environment
from execution.bearer import senders_of
from execution.models import Strategy
from risk import breakers, switch
from risk.check import REQUIRED
from risk.models import RiskLimit, TradingState


def missing(strategy: Strategy) -> list[str]:
    """One sentence for each obstacle; empty when nothing is in an alert's way as of now."""
    return [*_at_the_door(strategy), *_on_the_way(strategy)]


def ending(strategy: Strategy, whose: str = "Its") -> str:
    """When the last secret it can be posted to with ends; empty where one lasts, or none is left."""
    live = list(strategy.live_secrets.values_list("expires_at", "profile"))
    ends = [one for one in live if one[1] == strategy.auth] or live
    last = max(((end, profile) for end, profile in ends if end is not None), default=None)
    if last is None or not strategy.needs_secret or any(end is None for end, _ in ends):
        return ""
    until = f"{last[0]:%Y-%m-%d %H:%M} UTC"
    return f"{whose} last {last[1]} secret ends at {until}: whoever posts with it is refused then."


def _at_the_door(strategy: Strategy) -> Iterator[str]:
    if not strategy.is_enabled:
        yield "It is switched off: alerts are stored and not traded."
    if strategy.is_manual:
        return
    if strategy.auth == Strategy.Auth.JWT:
        if not senders_of(strategy).exists():
            yield "Nobody may post: name its senders, or give a user the right “Can post alerts”."
    elif not strategy.live_secrets.filter(profile=strategy.auth).exists():
        yield f"It has no {strategy.auth} secret: nobody can post. Make a new secret."
    if strategy.allowlist is not None and not strategy.allowlist.networks.exists():
        yield f"Its allowlist “{strategy.allowlist}” is empty: every address is refused."


def _on_the_way(strategy: Strategy) -> Iterator[str]:
    enforced = RiskLimit.objects.filter(mode=RiskLimit.Mode.ENFORCE, rule__in=REQUIRED)
    for rule in sorted(set(REQUIRED) - set(enforced.values_list("rule", flat=True))):
        yield f"No limit {rule} is enforced anywhere: without one nothing trades."
    if strategy.is_manual:
        return
    enabled = strategy.routes.filter(is_enabled=True).select_related("account")
    if not enabled:
        yield "It has no enabled route: its orders have nowhere to go."
    for route in enabled:
        yield from _at_the_account(strategy, route.account)


def _at_the_account(strategy: Strategy, account: Account) -> Iterator[str]:
    if not account.is_active:
        yield f"The account {account} is switched off."
    elif account.reconciled_at is None:
        yield f"The account {account} has not been compared with its venue since the start."
    if account.environment == Environment.LIVE and not settings.FKS_LIVE_TRADING:
        yield f"{account} is a live account, and FKS_LIVE_TRADING is off."
    if account.is_key_refused:
        yield f"The key of {account} may withdraw: it opens nothing until there is another key."
    if not breakers.are_closed(account):
        yield f"A breaker of {account} is open: entries wait until the venue answers again."
    row = switch.standing(
        account=account.name,
        venue=account.venue,
        symbol="",
        strategy=strategy.slug,
    )
    if row is not None:
        word = "halted" if row.state == TradingState.State.HALTED else "reduce only"
        yield f"Trading is {word} for {row.where}: “{row.reason}”."
