"""Making the next slice of an order: judged anew with all that is left, and made once.

A slice is stored under the locks of its account and its plan, in the transaction that moves the plan
on: two workers make one, and one that dies makes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal, localcontext
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from brokers.errors import BrokerError, NotSupportedError
from brokers.models import Account
from brokers.sessions import plugin_for
from brokers.types import Side
from execution import facts, legs, parents, protect, slicing
from execution.aims import entry_of, exit_of
from execution.alerts import Alert
from execution.facts import Leg, Market
from execution.judging import (
    ease,
    hold_to_collar,
    note_hits,
    prices_of,
    refusal_of_untold,
    refuse_denied,
    refuse_while_in_doubt,
    request_of,
    rules_of,
    verdict_json,
)
from execution.models import Order, OrderEvent, Signal, SlicePlan, Strategy
from execution.orders import blank
from execution.precedence import announce_exit, let_exits_pass
from execution.states import OrderState
from execution.under_way import lets_exits_leave
from risk.arithmetic import ARITHMETIC, floor_to, shown, text
from risk.check import check
from risk.limits import limits_for, take_turns
from risk.prices import entry_price
from risk.types import Facts, Intent, Limit, ReasonCode, Refusal, Size, Verdict

TRY_AGAIN = timedelta(seconds=5)
WAITS_FOR_STOP = "the stop is still in the way; it is taken off once a slice could leave"
PASSING = frozenset(
    {
        ReasonCode.VENUE_UNREACHABLE,
        ReasonCode.RATE_LIMITED,
        ReasonCode.BREAKER_OPEN,
        ReasonCode.REFERENCE_UNAVAILABLE,
        ReasonCode.EQUITY_UNKNOWN,
        ReasonCode.DRIFT,
        ReasonCode.MAX_QUOTE_AGE,
        ReasonCode.MAX_SPREAD,
        ReasonCode.MAX_PRICE_JUMP,
        ReasonCode.MAX_OPEN_ORDERS,
        ReasonCode.MAX_SYMBOL_ORDERS,
        ReasonCode.MESSAGE_RATE,
    }
)
"""Refusals that may pass by themselves: the next slice waits. Any other one ends the parent."""


def look(parent_id: UUID) -> Order | None:
    """Follow the slices so far, end the parent where something demands it, else start the next slice
    if it is due; returns that slice. Raises Crowded when the venue holds its share of threads already.
    """
    parent = parents.follow(parent_id)
    if parent.state != OrderState.SLICING or parent.cancel_reason:
        return None
    plan = SlicePlan.objects.get(pk=parent_id)
    if ending := parents.demand(parent, plan):
        parents.end(parent, *ending)
        parents.follow(parent_id)
        return None
    if parent.is_exit:
        parents.fit_to_position(parent)
    return _start(parent) if parents.is_due(parent, plan) else None


def stops_in_the_way(parent_id: UUID) -> tuple[UUID, ...]:
    """Stops to cancel before the next slice of an exit, where they hold the coins it needs or could
    fill beside it. They come back, of the size of what is left, as soon as the slice is at the venue.
    """
    parent = Order.objects.select_related("account", "strategy", "signal").get(pk=parent_id)
    if not parent.is_exit or parent.state != OrderState.SLICING:
        return ()
    plan = SlicePlan.objects.get(pk=parent_id)
    if not parents.is_due(parent, plan) or parents.demand(parent, plan):
        return ()
    if not _stops_go_first(parent) or _keeps_its_stop(parent):
        return ()
    return protect.suspend(parent.account, parent.symbol)


def _keeps_its_stop(parent: Order) -> bool:
    """Whether a stop is in the way, and a slice could not leave now."""
    account, symbol, reduce_only = parent.account, parent.symbol, parent.reduce_only
    return _is_in_the_way(parent) and not lets_exits_leave(account, symbol, reduce_only=reduce_only)


def _is_in_the_way(parent: Order) -> bool:
    """Whether a stop still has to go before the next slice of an exit."""
    if not parent.is_exit or not _stops_go_first(parent):
        return False
    return bool(protect.live_stops(parent.account_id, parent.symbol))


def _stops_go_first(parent: Order) -> bool:
    """Whether a slice leaves after the stops; not known of a venue without a plugin now."""
    try:
        offers = plugin_for(parent.account).capabilities
        return offers.stops_go_first(is_immediate=parent.is_immediate)
    except BrokerError:
        return False


@dataclass(frozen=True, slots=True)
class _Case:
    """A parent whose next slice is being made; ``left`` is what no slice has been given yet."""

    parent: Order
    plan: SlicePlan
    signal: Signal
    strategy: Strategy
    alert: Alert
    leg: Leg
    left: Decimal

    @property
    def asked(self) -> Intent:
        side = Side(self.parent.side)
        return exit_of(self.alert, side) if self.parent.is_exit else entry_of(self.alert, side)

    @property
    def whole(self) -> Intent:
        """What is left of the parent, as one order."""
        asked = self.asked
        if self.plan.algorithm != slicing.LADDER or asked.is_exit:
            return asked
        return slicing.dearest(asked, self.plan.ladder_percent, self.plan.slices)

    @property
    def slice(self) -> Intent:
        """What the slice asks for: of a ladder its own rung."""
        asked = self.asked
        if self.plan.algorithm != slicing.LADDER or asked.price is None:
            return asked
        number = min(self.plan.started + 1, self.plan.slices)
        percent = self.plan.ladder_percent
        return replace(asked, price=slicing.rung_price(asked.price, asked.side, percent, number))

    def market(self) -> Market:
        """What the venue says now. Raises Refusal."""
        if self.leg.refusal is not None:
            raise self.leg.refusal
        if self.leg.market is None:
            raise Refusal(ReasonCode.REFERENCE_UNAVAILABLE, "no market data")
        if self.leg.symbol != self.parent.symbol:
            raise Refusal(ReasonCode.UNKNOWN_SYMBOL, f"its symbol means {self.leg.symbol} by now")
        if not self.parent.is_exit and (untold := refusal_of_untold(self.leg.market)):
            raise untold
        return self.leg.market


def _start(parent: Order) -> Order | None:
    """Make the slice, unless somebody was faster; what refuses it puts it off or ends the parent."""
    signal, strategy = parent.signal, parent.strategy
    if signal is None or strategy is None:
        return None
    alert = Alert.from_json(signal.alert)
    if parent.is_exit:  # what is held is left, whatever its alias means by now
        alert = replace(alert, symbol=parent.symbol)
    leg = legs.leg_on(parent.account, signal, alert, needs_route=not parent.is_exit)
    if not parent.is_exit:
        let_exits_pass([parent.account_id])
    with transaction.atomic():
        if parent.is_exit:
            announce_exit([parent.account_id])
        take_turns(strategy.pk)
        list(Account.objects.select_for_update(no_key=True).filter(pk=parent.account_id))
        plan = SlicePlan.objects.select_for_update(of=("self",)).get(pk=parent.pk)
        parent.refresh_from_db(fields=["state", "cancel_reason", "filled_quantity"])
        slices = parents.slices_of(parent)
        if not parents.is_due(parent, plan) or any(parents.has_failed(s, plan) for s in slices):
            return None
        if _is_in_the_way(parent):
            SlicePlan.objects.filter(pk=plan.pk).update(detail=WAITS_FOR_STOP)
            return None
        left = parents.left_of(parent, slices)
        try:
            made = _made(_Case(parent, plan, signal, strategy, alert, leg, left))
        except Refusal as refusal:
            _put_off(parent, plan, refusal)
            return None
        _moved_on(plan)
        return made


def _made(case: _Case) -> Order:
    """The next slice, stored. Raises Refusal."""
    market, parent = case.market(), case.parent
    parents.refuse_forbidden(parent)
    limits = limits_for(parent.account_id, case.strategy.slug, parent.symbol)
    known = facts.complete(market, case.strategy, limits, but=frozenset({parent.pk}))
    price = entry_price(case.slice, market.quote)
    made = blank(case.signal, case.alert, case.leg)
    made.parent, made.slice_number = parent, case.plan.started + 1
    made.side, made.role = parent.side, parent.role
    made.quantity = _quantity(case, market, price)
    made.reduce_only = parent.is_exit and market.plugin.capabilities.reduce_only
    if not parent.is_exit:
        made.expires_at = made.created_at + timedelta(seconds=case.strategy.max_age)
    made.reference_price, made.reserved_value = price, _value(made.quantity, price, known)
    made.verdicts = [verdict_json(one) for one in _judged(case, known, limits)]
    made.price, _ = prices_of(case.slice, market)
    ease(made, market.plugin.capabilities)
    if not parent.is_exit:
        hold_to_collar(made, known, limits)
    made.client_order_id = market.plugin.client_order_id(made.identity)
    try:
        market.plugin.capabilities.refuse_unsupported(request_of(made), parent.account.venue)
    except NotSupportedError as error:
        raise Refusal(ReasonCode.NOT_SUPPORTED, str(error)) from error
    _save(made, case.plan)
    return made


def _quantity(case: _Case, market: Market, price: Decimal) -> Decimal:
    plan, now = case.plan, timezone.now()
    rules = market.instrument.of_exits if case.parent.is_exit else market.instrument
    least, step = slicing.least_order(rules, price), rules.quantity_step
    left = floor_to(case.left, step)
    quantity = slicing.next_quantity(plan, left, now, step=step, least=least)
    if rules.max_quantity is not None:
        quantity = floor_to(min(quantity, rules.max_quantity), step)
    if quantity == 0:
        detail = f"the rest of {text(left)} is below the smallest order of {text(least)}"
        raise Refusal(ReasonCode.SIZE_TOO_SMALL, detail, {"left": left, "min_quantity": least})
    return quantity


def _judged(case: _Case, known: Facts, limits: Sequence[Limit]) -> tuple[Verdict, ...]:
    """What risk says of all that is left of the parent, as one order. Raises Refusal for a no."""
    intent = case.whole
    rest = case.left if intent.is_exit else case.parent.remaining
    price = entry_price(intent, known.quote)
    refuse_while_in_doubt(intent, case.leg)
    whole = Size(rest, price, _value(rest, price, known), ())
    verdicts = check(intent, whole, known, limits, rules_of(case.strategy))
    note_hits(case.parent, case.signal, [one for one in verdicts if one.denies])
    refuse_denied(*verdicts)
    return verdicts


def _value(quantity: Decimal, price: Decimal, known: Facts) -> Decimal:
    with localcontext(ARITHMETIC):
        return shown(quantity * price * known.to_account_currency)


def _save(made: Order, plan: SlicePlan) -> None:
    said = f"slice {made.slice_number}: {text(made.quantity)}"
    made.save(force_insert=True)
    for order_id, event, state in (
        (made.pk, "create", made.state),
        (plan.pk, "slice", OrderState.SLICING),
    ):
        OrderEvent.objects.create(
            order_id=order_id,
            at=made.created_at,
            event=event,
            to_state=state,
            actor=plan.algorithm,
            detail=said,
        )


def _moved_on(plan: SlicePlan) -> None:
    now = timezone.now()
    due = plan.next_at or now
    is_twap = plan.algorithm == slicing.TWAP
    plan.next_at = slicing.pace_of(plan).next_at(due, now) if is_twap else now
    plan.started += 1
    plan.detail = ""
    plan.save(update_fields=["next_at", "started", "detail"])


def _put_off(parent: Order, plan: SlicePlan, refusal: Refusal) -> None:
    if parent.is_exit:
        protect.resume(parent.account_id, parent.symbol)
    if refusal.code not in PASSING:
        parents.end(parent, refusal.code, refusal.detail)
        return
    plan.next_at = timezone.now() + TRY_AGAIN
    plan.detail = f"{refusal.code.value}: {refusal.detail}"
    plan.save(update_fields=["next_at", "detail"])
