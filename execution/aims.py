"""What an alert aims at, given what is held: open, reduce, close, or turn the position over.

Pure. A reversal is two orders: the first closes what is held; the second opens the other side once the
position is confirmed flat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

from brokers.types import Side
from execution.alerts import REDUCES, Action, Alert, Algorithm, MarketPosition
from risk.arithmetic import ARITHMETIC, shown
from risk.types import Intent, QuantityType, ReasonCode, Refusal, SizingMethod, SizingPolicy

NEARLY = Decimal("0.005")
"""Venues take fees in the coin: what differs from a position by less than this share equals it."""


@dataclass(frozen=True, slots=True)
class Aim:
    """One order to make; ``reverses`` when a second one follows after it."""

    intent: Intent
    reverses: bool = False


def only_exits(alert: Alert) -> bool:
    """Whether the alert can open nothing, whatever is held."""
    is_share = alert.quantity_type is QuantityType.PERCENT_OF_POSITION
    return alert.wants_flat or alert.reduce_only or is_share


def names_target(alert: Alert) -> bool:
    """Whether the alert says which position to end up with, rather than what to trade; what only exits
    takes off what it says, whatever the sender holds then.
    """
    has_side = alert.market_position in (MarketPosition.LONG, MarketPosition.SHORT)
    return has_side and alert.market_position_size is not None and not only_exits(alert)


def only_reduces(alert: Alert) -> bool:
    """Whether the alert makes a position smaller by its own words."""
    return (alert.action, alert.market_position) in REDUCES


def turns_over(alert: Alert) -> bool:
    """Whether the alert leaves nothing of a position on the other side, however small its quantity: the
    sender ends on the side it trades to.
    """
    return (alert.action, alert.market_position) in (
        (Action.BUY, MarketPosition.LONG),
        (Action.SELL, MarketPosition.SHORT),
    )


def depends_on_position(alert: Alert) -> bool:
    """Whether how much the alert trades follows from what is held when it is decided."""
    is_share = alert.quantity_type is QuantityType.PERCENT_OF_POSITION
    return alert.wants_flat or names_target(alert) or is_share


def is_plain(alert: Alert) -> bool:
    """Whether the alert trades a quantity, whatever the position is."""
    trades = alert.action in (Action.BUY, Action.SELL) and not alert.replaces
    return trades and not depends_on_position(alert)


def is_convertible(alert: Alert) -> bool:
    """Whether the alert's quantity is an amount of money, to be compared with what is held."""
    is_money = alert.quantity_type in (QuantityType.QUOTE, QuantityType.PERCENT_OF_EQUITY)
    return is_money and alert.quantity is not None


def is_sized(alert: Alert) -> bool:
    """Whether the alert's quantity is all it can trade against a position."""
    is_base = alert.quantity is not None and alert.quantity_type is QuantityType.BASE
    return is_base and not turns_over(alert)


def aim(
    alert: Alert,
    policy: SizingPolicy,
    held: Decimal,
    *,
    can_short: bool,
    exited: Decimal | None = None,
    asked: Decimal | None = None,
) -> Aim:
    """The next order toward what the alert asks for.

    ``held`` is signed. ``exited`` is what an earlier order of the same alert has closed already.
    ``asked`` is the alert's quantity in the base asset where its own unit is another one and that is
    known. Raises Refusal ALREADY_AT_TARGET, or NOT_FLAT when a reversal's first half left something.
    """
    if alert.wants_flat:
        return Aim(_close(alert, held))
    if exited is not None and held != 0:
        raise Refusal(
            ReasonCode.NOT_FLAT,
            "the position is not flat, so the other side is not opened",
            {"position": held},
        )
    if only_exits(alert):
        return Aim(_as_asked(alert, entry_side(alert)))
    if names_target(alert) and policy.method is SizingMethod.FIXED_QUANTITY:
        return _toward_target(alert, held, can_short=can_short)
    if only_reduces(alert):
        return Aim(_part(alert, policy, held))
    if alert.market_position is MarketPosition.SHORT and not can_short:
        return Aim(exit_of(alert, Side.SELL))
    if alert.quantity_type is QuantityType.BASE:
        asked = alert.quantity
    return _by_change(alert, policy, held, asked, can_short=can_short, exited=exited or Decimal(0))


def reducing(goal: Aim, held: Decimal, otherwise: Refusal) -> Aim:
    """The part of ``goal`` that makes the position smaller; what would open is left out. Raises
    ``otherwise`` when nothing does.
    """
    intent = goal.intent
    if intent.is_exit:
        return Aim(intent)
    if held * intent.side.sign >= 0:
        raise otherwise
    everything = replace(intent, quantity=None, quantity_type=QuantityType.BASE)
    return Aim(replace(everything, is_exit=True, stop_loss=None, targets=()))


def target_of(alert: Alert, *, can_short: bool = True) -> Decimal:
    """The signed quantity an alert that ``names_target`` is to end up with."""
    size = alert.market_position_size or Decimal(0)
    is_long = alert.market_position is MarketPosition.LONG
    return size if is_long else -size if can_short else Decimal(0)


def change_toward(target: Decimal, held: Decimal) -> Decimal:
    """What is traded to hold ``target``, signed; zero where that is nearly held."""
    change = target - held
    return Decimal(0) if abs(change) <= abs(target) * NEARLY else change


def _toward_target(alert: Alert, held: Decimal, *, can_short: bool) -> Aim:
    target = target_of(alert, can_short=can_short)
    change = change_toward(target, held)
    if not change:
        raise Refusal(
            ReasonCode.ALREADY_AT_TARGET,
            "the position is already what the alert asks for",
            {"target": target, "position": held},
        )
    side = Side.BUY if change > 0 else Side.SELL
    if held * change >= 0:
        entry = replace(entry_of(alert, side), quantity=abs(change))
        return Aim(replace(entry, quantity_type=QuantityType.BASE))
    if held * target >= 0:
        return Aim(exit_of(alert, side, None if target == 0 else abs(change)))
    return Aim(exit_of(alert, side), reverses=True)


def _by_change(
    alert: Alert,
    policy: SizingPolicy,
    held: Decimal,
    asked: Decimal | None,
    *,
    can_short: bool,
    exited: Decimal,
) -> Aim:
    side = entry_side(alert)
    sizes_itself = policy.method is not SizingMethod.FIXED_QUANTITY
    if alert.quantity is None and not sizes_itself:
        asked = policy.quantity
    if held == 0 or (held > 0) == (side is Side.BUY):
        entry = entry_of(alert, side)
        closed = max(exited, closed_by_sender(alert))
        if closed and alert.quantity is not None and asked is not None:
            left = _left(alert, asked, closed, sizes_itself)
            entry = replace(entry, quantity=left, quantity_type=QuantityType.BASE)
        return Aim(entry)
    is_covered = asked is not None and asked <= abs(held) * (1 + NEARLY)
    if turns_over(alert):
        opens = sizes_itself or alert.quantity is None or not is_covered
        return Aim(exit_of(alert, side), reverses=can_short and opens)
    if is_covered:
        return Aim(
            exit_of(alert, side, asked) if alert.quantity is None else _as_asked(alert, side)
        )
    if asked is None and is_convertible(alert):
        # Not known to be more than is held: nothing is opened on a guess.
        return Aim(_as_asked(alert, side))
    if can_short or asked is None:
        return Aim(exit_of(alert, side), reverses=can_short)
    if alert.quantity_type is not QuantityType.BASE or alert.stop_loss or alert.take_profit:
        # What guards an entry is that of the position, in a template that serves both sides.
        return Aim(_as_asked(alert, side))
    # More than FKS bought: coins that were there before; an entry in the eyes of every limit.
    return Aim(entry_of(alert, side))


def closed_by_sender(alert: Alert) -> Decimal:
    """How much of the quantity closes the sender's own position, and opens nothing where FKS has less
    of it to close.
    """
    other = MarketPosition.SHORT if alert.action is Action.BUY else MarketPosition.LONG
    turns = turns_over(alert) and alert.prev_market_position is other
    return (alert.prev_market_position_size if turns else None) or Decimal(0)


def _left(alert: Alert, asked: Decimal, exited: Decimal, sizes_itself: bool) -> Decimal:
    """What a reversal still opens. To a route that sizes by itself the sender's numbers are a cap, and
    say nothing about how much of ours was closed.
    """
    if sizes_itself and alert.market_position is not None:
        return alert.market_position_size or asked
    return asked - exited


def _part(alert: Alert, policy: SizingPolicy, held: Decimal) -> Intent:
    """How much to close of a position the sender closes in part: what it says, or its share of ours
    where the route sizes by itself.
    """
    before, after = alert.prev_market_position_size, alert.market_position_size
    if policy.method is SizingMethod.FIXED_QUANTITY or before is None or after is None:
        return _as_asked(alert, entry_side(alert))
    if not before > after:
        return _as_asked(alert, entry_side(alert))
    with localcontext(ARITHMETIC):
        share = shown(abs(held) * (before - after) / before)
    return exit_of(alert, entry_side(alert), share)


def entry_side(alert: Alert) -> Side:
    """The side of what the alert would open."""
    return Side.SELL if alert.action is Action.SELL else Side.BUY


def entry_of(alert: Alert, side: Side) -> Intent:
    """What the alert asks for on ``side``, as an entry."""
    return Intent(
        side=side,
        type=alert.order_type,
        is_exit=False,
        may_divide=alert.divides_by(Algorithm.TWAP),
        quantity=alert.quantity,
        quantity_type=alert.quantity_type,
        price=alert.price,
        stop_price=alert.stop_price,
        trailing_percent=alert.trailing_percent,
        stop_loss=alert.stop_loss,
        targets=tuple(target.price for target in alert.take_profit),
        confidence=alert.confidence,
    )


def exit_of(alert: Alert, side: Side, quantity: Decimal | None = None) -> Intent:
    """An order that only reduces, by ``quantity`` of the base asset; without one, by everything."""
    entry = entry_of(alert.as_exit(), side)
    entry = replace(entry, quantity=quantity, quantity_type=QuantityType.BASE)
    return replace(entry, is_exit=True, stop_loss=None, targets=())


def _as_asked(alert: Alert, side: Side) -> Intent:
    """An order that only reduces, by what the alert says in its own unit."""
    return replace(exit_of(alert, side), quantity=alert.quantity, quantity_type=alert.quantity_type)


def _close(alert: Alert, held: Decimal) -> Intent:
    side = Side.SELL if held > 0 else Side.BUY
    if alert.market_position is MarketPosition.FLAT:
        return exit_of(alert, side)
    return _as_asked(alert, side)
