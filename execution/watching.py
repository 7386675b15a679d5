"""What FKS watches itself: take-profit targets, stops the venue does not take, and positions whose stop
is not at the venue.

What it finds is an alert FKS sends itself, which then walks the same path as any other. It is stored
in the transaction that crosses the target off, so a target is reached once, whoever looks and however
often.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from brokers.errors import BrokerError, QueryFailedError
from brokers.sessions import plugin_for
from brokers.types import Quote, Side
from execution import differences, exposure, intake, trailing, venue_holds, watched_stops
from execution.alerts import Action, Alert, MarketPosition
from execution.closable import held_by_both
from execution.facts import venue_call
from execution.fee_values import FEE_COLUMNS, Fee
from execution.models import Difference, Fill, Order, Position, Protection, Signal, Strategy
from execution.states import TERMINAL, OrderState, SignalState
from risk import switch
from risk.arithmetic import shown, text
from risk.models import TradingState
from risk.types import Refusal

logger = logging.getLogger(__name__)

ALARM_AFTER = timedelta(seconds=5)
CLOSE_AGAIN = timedelta(seconds=30)
QUOTED_WITHIN = timedelta(seconds=60)
"""An older price reaches no target and moves no stop: of a closed market it may be yesterday's."""
LONG, SHORT = MarketPosition.LONG, MarketPosition.SHORT
OWN_ALERT = "own"
"""``Signal.auth`` of alerts FKS sends itself; no webhook can bring it about."""


_unanswered: dict[int, float] = {}
"""When this process last got no answer about a plan's symbol, by the plan's id."""

_FOLLOWS = Q(stop_price__isnull=False) & (
    Q(entry__strategy__trail_percent__isnull=False)
    | Q(entry__strategy__trail_distance__isnull=False)
    | Q(entry__strategy__break_even_percent__isnull=False)
)
"""Plans whose stop follows the market."""

_HOLDS_FOREIGN = Exists(
    Difference.objects.filter(
        Difference.BEING_CLOSED, account=OuterRef("account"), symbol=OuterRef("symbol")
    )
)
"""Whether a position's average price is not ours alone: somebody else's part is in it to be closed."""


def watched() -> QuerySet[Protection]:
    """Active plans with a target to reach, with a stop that follows the market or is watched, or whose
    stop is not at the venue; the latter first, then the stops whose price is longest not seen.
    """
    return (
        Protection.objects.filter(is_active=True, account__is_active=True)
        .filter(
            ~Q(targets=[]) | Q(naked_since__isnull=False) | Q(watched_at__isnull=False) | _FOLLOWS
        )
        .order_by(F("naked_since").asc(nulls_last=True), F("watched_at").asc(nulls_last=True), "pk")
    )


def watched_accounts() -> list[int]:
    """Accounts with something to watch."""
    return list(watched().order_by().values_list("account_id", flat=True).distinct())


def watch(account_id: int) -> list[UUID]:
    """Look after the account's plans, one quote each; returns the signals FKS sent itself.

    A venue that does not answer about one symbol is not asked about the next one in this round; in
    the next round that symbol comes last, so that it cannot keep the others from being looked at.
    """
    sent: list[UUID] = []
    for plan_id in _in_turn(account_id):
        try:
            sent += look(plan_id)
        except Refusal:
            break  # the breaker is open: that was said when it opened
        except QueryFailedError as error:
            _unanswered[plan_id] = time.monotonic()
            logger.warning("protection %s cannot be watched now: %s", plan_id, error)
            if not error.is_answer:
                break
        except BrokerError as error:
            logger.warning("protection %s cannot be watched now: %s", plan_id, error)
        else:
            _unanswered.pop(plan_id, None)
    return sent


def _in_turn(account_id: int) -> list[int]:
    """The account's plans, those without an answer last: the one tried least lately before others."""
    plans = watched().filter(account_id=account_id).values_list("pk", flat=True)
    return sorted(plans, key=lambda pk: _unanswered.get(pk, 0.0))


def look(plan_id: int) -> list[UUID]:
    """Compare the market with the plan's next target, and with a stop that is not at the venue; have
    a stop that follows the market follow it, also while trading is halted. What may be gone at the
    venue is not closed.

    Returns the signals FKS sent itself. Raises BrokerError when there is no quote, Refusal while the
    account's breaker is open.
    """
    plan = watched().select_related("account", "entry__strategy").filter(pk=plan_id).first()
    if plan is None or plan.entry.strategy is None:
        return []
    may_close = not _may_not_close(plan, plan.entry.strategy)
    if not (may_close or plan.watched_at or _rules_of(plan.entry.strategy)):
        return []
    plugin = plugin_for(plan.account)
    with venue_call(plan.account):
        quote = plugin.fetch_data(plan.symbol)
    most = venue_holds.most_to_close(plan, plugin) if may_close else Decimal(0)
    with transaction.atomic():
        now = Protection.objects.select_for_update(of=("self",)).select_related(
            "account", "entry__strategy"
        )
        plan = now.filter(pk=plan_id, is_active=True, entry_id=plan.entry_id).first()
        if plan is None or plan.entry.strategy is None:
            return []
        watched_stops.compare(plan, quote)
        if _is_current(quote):
            _move_stop(plan, plan.entry.strategy, quote)
        return [] if most == 0 else _react(plan, plan.entry.strategy, quote, most)


def _is_current(quote: Quote) -> bool:
    return quote.bid <= quote.ask and timezone.now() - quote.at <= QUOTED_WITHIN


def _may_not_close(plan: Protection, strategy: Strategy) -> bool:
    """Whether an alert would be denied: then no target is used up, and a closing waits."""
    account = plan.account
    standing = switch.standing(
        account=account.name, venue=account.venue, symbol=plan.symbol, strategy=strategy.slug
    )
    return standing is not None and standing.state == TradingState.State.HALTED


def _rules_of(strategy: Strategy) -> trailing.Rules | None:
    """How the strategy's stops follow the market, if they do."""
    rules = trailing.Rules(
        trail_percent=strategy.trail_percent,
        trail_distance=strategy.trail_distance,
        step=strategy.trail_step,
        break_even_percent=strategy.break_even_percent,
    )
    return None if rules == trailing.Rules(step=rules.step) else rules


def _move_stop(plan: Protection, strategy: Strategy, quote: Quote) -> None:
    """Note the better place of the stop; ``protect`` replaces what is at the venue."""
    rules = _rules_of(strategy)
    if rules is None or plan.stop_price is None or plan.passed_at is not None:
        return
    here = Position.objects.filter(account=plan.account, symbol=plan.symbol)
    # In one statement with the average: another one could find the difference just ended.
    told = here.annotate(holds_foreign=_HOLDS_FOREIGN)
    row = told.values_list("quantity", "average_price", "holds_foreign").first()
    quantity, average, holds_foreign = row or (Decimal(0), None, False)
    if not quantity or average is None:
        return
    side = Side.BUY if quantity > 0 else Side.SELL
    if plan.entry.side != side:
        return
    if holds_foreign:
        rules = replace(rules, break_even_percent=None)
    market = quote.bid if side is Side.BUY else quote.ask
    rate = trailing.fee_rate(_paid(plan.entry))
    held = trailing.Held(side, average, plan.stop_price, market, rate)
    if move := trailing.better_stop(held, rules):
        plan.stop_price, plan.moved_why = move.stop, move.why
        plan.moved_at, plan.aligned_at = timezone.now(), None
        plan.save(update_fields=["stop_price", "moved_why", "moved_at", "aligned_at"])


def _paid(entry: Order) -> list[trailing.Paid]:
    """The entry's fills, those of its slices included. A fee that could not be valued is left out."""
    mine = Fill.objects.filter(Q(order=entry) | Q(order__parent=entry))
    return [
        trailing.Paid(quantity, fee[1], Fee(*fee).counted or Decimal(0))
        for quantity, *fee in mine.values_list("quantity", *FEE_COLUMNS)
    ]


def _react(plan: Protection, strategy: Strategy, quote: Quote, most: Decimal | None) -> list[UUID]:
    """Close what is to be closed: ``most`` of it where the venue is known to hold less than we do."""
    sent = _reached_target(plan, strategy, quote, most) if _is_current(quote) else []
    if _must_close(plan, strategy, quote, most):
        waited = timezone.now() - (plan.naked_since or timezone.now())
        event = f"naked since {plan.naked_since} {waited // CLOSE_AGAIN}"
        sent += _send(plan, strategy, event, _named(plan, most), "its stop is not at the venue")
    return sent


def _named(plan: Protection, most: Decimal | None) -> Decimal | None:
    """The quantity a close of all there is has to name: none where a known difference keeps it from
    selling more than ``most`` anyway. Without one it also takes the place of the exits that rest.
    """
    if most is None:
        return None
    held = Position.objects.get(account=plan.account, symbol=plan.symbol).quantity
    return most if abs(held_by_both(plan.account_id, plan.symbol, held)) > most else None


def _reached_target(
    plan: Protection, strategy: Strategy, quote: Quote, most: Decimal | None
) -> list[UUID]:
    if not plan.targets:
        return []
    target, price = plan.targets[0], Decimal(plan.targets[0]["price"])
    is_long = plan.entry.side == Side.BUY
    if (quote.bid < price) if is_long else (quote.ask > price):
        return []
    percent, left = Decimal(target["percent"]), Decimal(target["of"])
    if percent < left and _is_closing(plan):
        return []
    share = _named(plan, most)
    if percent < left:
        if (ours := _held_by_us(plan)) <= 0:
            return []
        part = shown(ours * percent / left)
        share = part if most is None else min(part, most)
    event = f"target {len(plan.targets)} {price}"
    sent = _send(plan, strategy, event, share, f"take profit at {text(price)}")
    plan.targets = plan.targets[1:]
    plan.save(update_fields=["targets"])
    return sent


def _held_by_us(plan: Protection) -> Decimal:
    """What the position holds without what the closes of a difference have yet to sell."""
    here = Position.objects.filter(account=plan.account, symbol=plan.symbol)
    # In one statement: between two a close could fill.
    told = here.annotate(foreign=differences.left_to_close())
    quantity, foreign = told.values_list("quantity", "foreign").first() or (Decimal(0), Decimal(0))
    return abs(quantity) - foreign


def _is_closing(plan: Protection) -> bool:
    """Whether a close of FKS's own is under way: what is held after it, and so a target's share, is not
    known yet. One that only a person can clear up holds up no target.
    """
    known = TERMINAL | {OrderState.NEEDS_OPERATOR}
    moving = Order.objects.filter(signal=OuterRef("pk")).exclude(state__in=known)
    own = Signal.objects.filter(
        auth=OWN_ALERT, symbol=plan.symbol, alert__account=plan.account.name
    )
    waits = Q(state=SignalState.RECEIVED) | Q(Exists(moving), state=SignalState.WORKING)
    return own.filter(waits).exists()


def _must_close(plan: Protection, strategy: Strategy, quote: Quote, most: Decimal | None) -> bool:
    """An unguarded position is closed if the policy says so, or if the stop's price has passed.

    Not while an exit is under way that had the stop taken off, nor while what the venue is known to
    hold has its stop there.
    """
    if plan.stop_price is None or plan.naked_since is None or plan.is_suspended:
        return False
    if plan.watched_at is not None:
        return watched_stops.is_stuck(plan, ALARM_AFTER)
    is_long = plan.entry.side == Side.BUY
    passed = quote.bid <= plan.stop_price if is_long else quote.ask >= plan.stop_price
    if passed and (most is None or _exposed_since(plan, most) is not None):
        return True
    return strategy.on_naked == Strategy.OnNaked.CLOSE and _is_exposed(plan, most)


def _is_exposed(plan: Protection, most: Decimal | None) -> bool:
    """Whether something that no resting exit keeps has been without its stop too long."""
    long_ago = timezone.now() - ALARM_AFTER
    if plan.naked_since is None or plan.naked_since >= long_ago:
        return False
    since = _exposed_since(plan, most)
    return since is not None and since < long_ago


def _exposed_since(plan: Protection, most: Decimal | None) -> datetime | None:
    return exposure.exposed_since(plan, plugin_for(plan.account).capabilities, most)


def _send(
    plan: Protection, strategy: Strategy, event: str, quantity: Decimal | None, why: str
) -> list[UUID]:
    """Post an alert to ourselves: once per plan and event, decided like any other."""
    alert = Alert(
        symbol=plan.symbol,
        account=plan.account.name,
        action=Action.CLOSE,
        quantity=quantity,
        prev_market_position=LONG if plan.entry.side == Side.BUY else SHORT,
        idempotency_key=f"fks {plan.entry_id} {event}",
        comment=f"{why}, for the entry {plan.entry_id}",
        sent_at=timezone.now(),
    )
    accepted = intake.accept(
        intake.Received(
            strategy_id=strategy.pk,
            dedupe_window=0,
            raw=b"",
            body=alert.comment,
            alert=alert,
            header_key="",
            address=None,
            auth=OWN_ALERT,
        )
    )
    return [] if accepted.is_duplicate else [accepted.signal_id]
