"""Judging an order: its side and size, what risk says of it, its prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction

from brokers.capabilities import Capabilities
from brokers.decimals import decimal_text
from brokers.errors import NotSupportedError
from brokers.types import OrderRequest, OrderType, Side, TimeInForce
from execution import algorithms, allocation, attached, differences, expiry, facts, slicing
from execution.aims import Aim, aim, entry_of, entry_side, is_convertible, reducing
from execution.alerts import Alert
from execution.facts import Leg, Market
from execution.models import Order, Route, Signal, Strategy
from execution.states import HELD, TERMINAL
from risk import hits, switch
from risk.check import check, denial
from risk.limits import limits_for
from risk.prices import collar_bound, round_price
from risk.rules.strategy import confidence, price_drift
from risk.sizing import at_most, in_base, size
from risk.types import (
    Facts,
    Intent,
    Limit,
    LimitMode,
    QuantityType,
    ReasonCode,
    Refusal,
    SizingMethod,
    SizingPolicy,
    StrategyRules,
    Verdict,
)

DRIFT_SINCE_SHOWN = Decimal("0.01")
"""How far the market may go while a person decides, where the strategy names no ``max_drift``."""


def fill_in(
    order: Order,
    signal: Signal,
    alert: Alert,
    leg: Leg,
    exited: Decimal | None,
    approved: Order | None = None,
) -> None:
    """Decide a blank ``order``: side, size, prices, verdicts. Raises Refusal.

    ``approved`` is the same order as a person saw it: what is another one now is refused, and nothing
    gets larger.
    """
    market, alert = leg.market, allocation.applied(alert, leg.route.part)
    if leg.refusal is not None or market is None:
        raise leg.refusal or Refusal(ReasonCode.REFERENCE_UNAVAILABLE, "no market data")
    limits = limits_for(leg.account.pk, signal.strategy.slug, leg.symbol)
    known = facts.complete(
        market, signal.strategy, limits, but=_not_counted(order, alert, approved)
    )
    policy = _policy(leg.route)
    # A reversal somebody approved closes as it was shown; its other half is refused by itself.
    is_shown_whole = approved is not None and (approved.reverses or not approved.is_exit)
    late = None if is_shown_whole else expiry.outdated(signal, alert)
    goal = _goal(alert, policy, known, market, exited=exited, late=late)
    intent, order.reverses = goal.intent, goal.reverses
    order.side, order.type = intent.side.value, intent.type.value
    order.role = Order.Role.EXIT if intent.is_exit else Order.Role.ENTRY
    order.reduce_only = intent.is_exit and market.plugin.capabilities.reduce_only
    alert = alert.as_exit() if intent.is_exit else alert
    ease(order, market.plugin.capabilities)
    order.client_order_id = market.plugin.client_order_id(order.identity)
    if approved is not None:
        _refuse_changed(order, approved)
    switch.refuse_if_switched_off(
        account=leg.account.name,
        venue=leg.account.venue,
        symbol=leg.symbol,
        strategy=signal.strategy.slug,
        is_exit=intent.is_exit,
    )
    refuse_while_in_doubt(intent, leg)
    refuse_denied(confidence(rules_of(signal.strategy), intent))
    choice = algorithms.chosen(order, alert, leg.route)
    intent = slicing.judged_as(intent, choice.algorithm, signal.strategy)
    sized = size(intent, policy, known, limits)
    if approved is not None:
        sized = at_most(sized, approved.quantity)
    order.sizing = [
        {"label": step.label, "formula": step.formula, "result": _text(step.result)}
        for step in sized.steps
    ]
    order.quantity, order.reference_price = sized.quantity, sized.reference_price
    order.reserved_value = sized.value
    order.price, order.stop_price = prices_of(intent, market)
    attached.attach(order, alert, market)
    if intent.type is OrderType.TRAILING_STOP:
        order.trailing_percent = intent.trailing_percent
    if not intent.is_exit:
        order.expires_at = expiry.opens_until(signal, alert)
    verdicts = check(intent, sized, known, limits, rules_of(signal.strategy))
    if approved is not None:
        verdicts = (*verdicts, _drift_since_shown(intent, known, signal.strategy, approved))
    order.verdicts = [
        verdict_json(one)
        for one in (*verdicts, *choice.notes, *_protection_note(alert, intent, market))
    ]
    note_hits(order, signal, verdicts if approved is None else [v for v in verdicts if v.denies])
    refuse_denied(*verdicts)
    if not intent.is_exit:
        hold_to_collar(order, known, limits)
    try:
        market.plugin.capabilities.refuse_unsupported(request_of(order), leg.account.venue)
    except NotSupportedError as error:
        raise Refusal(ReasonCode.NOT_SUPPORTED, str(error)) from error


def _goal(
    alert: Alert,
    policy: SizingPolicy,
    known: Facts,
    market: Market,
    *,
    exited: Decimal | None = None,
    late: Refusal | None = None,
) -> Aim:
    """What the alert aims at; of one that is ``late``, or whose market is not told, what reduces."""
    held = known.position_quantity
    can_short = market.plugin.capabilities.short_selling
    asked = _asked(alert, policy, known)
    goal = aim(alert, policy, held, can_short=can_short, exited=exited, asked=asked)
    if late is not None:
        goal = reducing(goal, held, late)
    if not goal.intent.is_exit and (untold := refusal_of_untold(market)):
        goal = reducing(goal, held, untold)
    return goal


def quantity_of(alert: Alert, route: Route, market: Market) -> Decimal | None:
    """How much of the base asset the route's part of ``alert`` names, an amount of money converted;
    ``None`` where it names nothing, or that cannot be known: an exit is all that is held then.
    """
    alert = allocation.applied(alert, route.part)
    if alert.quantity_type is QuantityType.BASE:
        return alert.quantity
    return _asked(alert, _policy(route), facts.complete(market, route.strategy))


def _asked(alert: Alert, policy: SizingPolicy, known: Facts) -> Decimal | None:
    """An amount of money in the base asset, as an entry would be sized."""
    if not is_convertible(alert):
        return None
    return in_base(entry_of(alert, entry_side(alert)), policy, known)


def _not_counted(order: Order, alert: Alert, approved: Order | None) -> frozenset[UUID]:
    """What must not count against ``order``: itself; the one it replaces while that works; and once it
    is approved, entries that only wait. Each of them is judged anew when its own turn comes, so who
    is approved first goes first, and what is sent stays within the limits.
    """
    found = {order.pk}
    if alert.replaces:
        replaced = Order.objects.filter(pk=alert.replaces).exclude(state__in=TERMINAL)
        found.update(replaced.values_list("pk", flat=True))
    if approved is not None and not approved.is_exit:
        waiting = Order.objects.filter(state__in=HELD, role=Order.Role.ENTRY)
        found.update(waiting.values_list("pk", flat=True))
    return frozenset(found)


def _refuse_changed(order: Order, approved: Order) -> None:
    """A person agreed to one order; what has become another one meanwhile is not sent in its place."""
    for name in ("symbol", "side", "role", "reverses"):
        was, now = getattr(approved, name), getattr(order, name)
        if was != now:
            raise Refusal(
                ReasonCode.APPROVAL_OUTDATED,
                f"it would be another order now than the one approved: {name} {now}, not {was}",
                {"approved": str(was), "now": str(now)},
            )


def _drift_since_shown(
    intent: Intent, known: Facts, strategy: Strategy, approved: Order
) -> Verdict:
    """How far the market has gone from the price a person saw."""
    rules = rules_of(strategy)
    if rules.max_drift is None:
        rules = replace(rules, max_drift=DRIFT_SINCE_SHOWN)
    seen = replace(intent, price=approved.reference_price)
    verdict = price_drift(rules, seen, known.quote, whose="the price shown,")
    return replace(verdict, rule="approved_price")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a leg would trade. ``at_a_time`` is how much its venue would see at once: one slice."""

    intent: Intent
    quantity: Decimal
    at_a_time: Decimal


def estimate(signal: Signal, alert: Alert, leg: Leg) -> Estimate:
    """What the leg would trade by what is known now, to compare accounts by; nothing is reserved.

    Raises Refusal.
    """
    market = leg.market
    if leg.refusal is not None or market is None:
        raise leg.refusal or Refusal(ReasonCode.REFERENCE_UNAVAILABLE, "no market data")
    limits = limits_for(leg.account.pk, signal.strategy.slug, leg.symbol)
    known = facts.complete(market, signal.strategy, limits)
    policy, alert = _policy(leg.route), allocation.applied(alert, leg.route.part)
    intent = _goal(alert, policy, known, market).intent
    algorithm = algorithms.of_entry(alert, leg.route).algorithm
    judged = slicing.judged_as(intent, algorithm, signal.strategy)
    sized = size(judged, policy, known, limits)
    part = slicing.part_of(sized, algorithm, signal.strategy, market.instrument)
    return Estimate(intent, sized.quantity, part)


def note_hits(order: Order, signal: Signal, verdicts: Sequence[Verdict]) -> None:
    """Keep what was not a plain yes; a rule that halts does so once this decision stands."""
    place = hits.Place(order.account_id, signal.strategy.slug, order.symbol, order.pk)
    hits.note(place, verdicts)
    halting = next((one for one in verdicts if one.denies and hits.halts(one)), None)
    if halting is not None:
        halt = partial(hits.halt, signal.strategy.slug, halting)
        transaction.on_commit(halt)


def hold_to_collar(order: Order, known: Facts, limits: Sequence[Limit]) -> None:
    """A market order becomes an immediate-or-cancel limit at the tightest collar in force."""
    collars = [
        one.value for one in limits if one.rule == "price_collar" and one.mode is LimitMode.ENFORCE
    ]
    if order.type != OrderType.MARKET or not collars or not known.caps_market_orders:
        return
    side = Side(order.side)
    bound = collar_bound(side, known.quote.worst(side), min(collars))
    order.type, order.time_in_force = OrderType.LIMIT.value, TimeInForce.IOC.value
    order.price = round_price(side, OrderType.LIMIT, bound, known.instrument.price_tick)


def ease(order: Order, offers: Capabilities) -> None:
    """An exit is not lost over how it was to rest: what makes no sense of its kind, or its venue does
    not have, is left out.
    """
    if not order.is_exit:
        return
    is_limit, asked = order.type == OrderType.LIMIT, TimeInForce(order.time_in_force)
    if order.type == OrderType.MARKET or (order.is_immediate and not is_limit):
        asked = TimeInForce.GTC
    choices = (asked, TimeInForce.GTC, TimeInForce.DAY)
    asked = next((one for one in choices if one in offers.time_in_force), asked)
    order.time_in_force = asked.value
    may_only_rest = is_limit and asked is TimeInForce.GTC and offers.post_only
    order.post_only = order.post_only and may_only_rest


def refuse_denied(*verdicts: Verdict) -> None:
    """Raise Refusal for the first verdict that denies."""
    denied = denial(verdicts)
    if denied is not None and denied.code is not None:
        raise Refusal(denied.code, denied.detail, denied.numbers)


def refusal_of_untold(market: Market) -> Refusal | None:
    """Why nothing is opened by what is known of the market; ``None`` where its venue told all of it."""
    if market.is_told:
        return None
    return Refusal(
        ReasonCode.REFERENCE_UNAVAILABLE,
        f"the venue tells no price of {market.instrument.symbol}, or no rate; the last ones known "
        "serve to close, not to open",
    )


def refuse_while_in_doubt(intent: Intent, leg: Leg) -> None:
    """Nothing is opened where the venue and our book disagree."""
    drift = None if intent.is_exit else differences.blocks_entries(leg.account.pk, leg.symbol)
    if drift is not None:
        raise Refusal(
            ReasonCode.DRIFT,
            f"the venue and our book disagree about {leg.symbol}: {drift.detail}",
            {"ours": drift.ours, "theirs": drift.theirs},
        )


def _policy(route: Route) -> SizingPolicy:
    return SizingPolicy(
        method=SizingMethod(route.sizing),
        quantity=route.quantity,
        percent=route.percent,
        atr_multiple=route.atr_multiple,
    )


def rules_of(strategy: Strategy) -> StrategyRules:
    """The strategy's own thresholds, as risk takes them."""
    return StrategyRules(
        min_confidence=strategy.min_confidence,
        min_reward_risk=strategy.min_reward_risk,
        requires_confidence=strategy.requires_confidence,
        requires_reward_risk=strategy.requires_reward_risk,
        max_drift=strategy.max_drift,
    )


def prices_of(intent: Intent, market: Market) -> tuple[Decimal | None, Decimal | None]:
    """The limit and the trigger on the venue's grid. Raises Refusal where nothing is left of one."""
    tick = market.instrument.price_tick
    price = stop_price = None
    if intent.type in (OrderType.LIMIT, OrderType.STOP_LIMIT) and intent.price is not None:
        price = round_price(intent.side, OrderType.LIMIT, intent.price, tick)
    if intent.type in (OrderType.STOP, OrderType.STOP_LIMIT) and intent.stop_price is not None:
        stop_price = round_price(intent.side, OrderType.STOP, intent.stop_price, tick)
    return price, stop_price


def _protection_note(alert: Alert, intent: Intent, market: Market) -> list[Verdict]:
    """Say how the position will be guarded. Raises Refusal where the venue cannot hold the stop."""
    if intent.is_exit or (alert.stop_loss is None and not alert.take_profit):
        return []
    parts = []
    if alert.stop_loss is not None:
        parts.append(f"the stop loss {_how_guarded(market)}")
    if alert.take_profit:
        parts.append("FKS watches the take profit and closes when it is reached")
    return [Verdict(rule="protection", passed=True, detail="; ".join(parts))]


def _how_guarded(market: Market) -> str:
    offers = market.plugin.capabilities
    if offers.attached_stop:
        return "goes with the order"
    if offers.holds_stops:
        return "is placed at the venue as the order fills"
    if offers.watched_stop:
        return "is watched by FKS, which closes at the market; nothing guards while FKS is down"
    raise Refusal(
        ReasonCode.NOT_SUPPORTED,
        f"{market.account.venue} has no stop-market orders, so the stop loss could not be placed "
        "there, and the account does not let FKS watch it",
    )


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """``verdict`` as an order keeps it; numbers are text."""
    return {
        "rule": verdict.rule,
        "passed": verdict.passed,
        "mode": verdict.mode.value,
        "code": verdict.code.value if verdict.code else "",
        "detail": verdict.detail,
        "numbers": {name: _text(value) for name, value in verdict.numbers.items()},
    }


def _text(value: Decimal | str) -> str:
    return decimal_text(value) if isinstance(value, Decimal) else value


def request_of(order: Order) -> OrderRequest:
    """``order`` as a plugin gets it."""
    return OrderRequest(
        identity=order.identity,
        symbol=order.symbol,
        side=Side(order.side),
        type=OrderType(order.type),
        quantity=order.quantity,
        price=order.price,
        stop_price=order.stop_price,
        trailing_percent=order.trailing_percent,
        time_in_force=TimeInForce(order.time_in_force),
        post_only=order.post_only,
        reduce_only=order.reduce_only,
        reference_price=order.reference_price,
        send_before=order.lease_until,
        attached_stop=attached.asked_of(order),
        attempt=max(order.attempt, 1),
    )
