"""What each account of a routing group does about an alert, given what the group holds.

Pure. Together the accounts end where one account with all of the group's position would. An alert that
only adds goes to the account with the best price; whatever takes off goes where the position is, shared
out over the accounts that hold some, the largest first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from brokers.decimals import decimal_text
from execution.aims import (
    NEARLY,
    closed_by_sender,
    names_target,
    only_exits,
    only_reduces,
    turns_over,
)
from execution.alerts import Action, Alert, MarketPosition
from risk.types import QuantityType

Part = Mapping[str, Any]
"""Fields of the canonical alert that differ for one account; ``None`` for one that is not set."""
Held = Sequence[tuple[int, Decimal]]
"""Accounts with their signed quantities, none of them 0, the largest first."""

AS_IT_IS: Part = {}
CLOSE: Part = {
    "action": Action.CLOSE.value,
    "quantity": None,
    "quantity_type": QuantityType.BASE.value,
    "market_position": None,
    "market_position_size": None,
}


def in_order(held: Mapping[int, Decimal]) -> Held:
    """The accounts that hold something, the largest first; equal ones by their id."""
    some = [(account, quantity) for account, quantity in held.items() if quantity]
    return sorted(some, key=lambda one: (-abs(one[1]), one[0]))


def applied(alert: Alert, part: Part | None) -> Alert:
    """``alert`` as one account takes it."""
    if not part:
        return alert
    stored = {**alert.to_json(), **part}
    return Alert.from_json({name: value for name, value in stored.items() if value is not None})


def is_priced(alert: Alert, held: Held, *, by_target: bool) -> bool:
    """Whether the alert only adds to what the group holds: then the best price decides.

    ``by_target``: the group's routes follow the sender's own position sizes.
    """
    if only_exits(alert) or only_reduces(alert):
        return False
    if by_target and names_target(alert):
        same = _on_side(held, _target_sign(alert))
        grows = (alert.market_position_size or Decimal(0)) * (1 - NEARLY) > _sum(same)
        return len(same) == len(held) and grows
    return not _on_side(held, -_sign(alert))


def part_of_addition(alert: Alert, held: Held, account: int, *, by_target: bool) -> Part:
    """How the account with the best price takes what ``is_priced``: a target is for the whole group."""
    if not (held and by_target and names_target(alert)):
        return AS_IT_IS
    elsewhere = sum((abs(quantity) for owner, quantity in held if owner != account), Decimal(0))
    return _target((alert.market_position_size or Decimal(0)) - elsewhere)


def parts(alert: Alert, held: Held, *, by_target: bool) -> dict[int, Part]:
    """The accounts that take an alert which is not priced; ``held`` is not empty."""
    everything = alert.quantity is None or alert.market_position is MarketPosition.FLAT
    if alert.quantity_type is QuantityType.PERCENT_OF_POSITION or (alert.wants_flat and everything):
        return dict.fromkeys(_accounts(held), AS_IT_IS)
    if len(held) == 1:
        return {held[0][0]: AS_IT_IS}
    if by_target and names_target(alert):
        return _to_target(alert, held)
    sizes = (alert.prev_market_position_size, alert.market_position_size)
    if only_reduces(alert) and not by_target and None not in sizes:
        return dict.fromkeys(_accounts(held), AS_IT_IS)
    return _taken_off(alert, held, by_target=by_target)


def _taken_off(alert: Alert, held: Held, *, by_target: bool) -> dict[int, Part]:
    """A quantity that closes, shared out; the largest takes what is left of it, and may turn over."""
    met = held if alert.action is Action.CLOSE else _on_side(held, -_sign(alert))
    if not met:
        return {held[0][0]: AS_IT_IS}
    if alert.quantity is None and (only_exits(alert) or only_reduces(alert)):
        return dict.fromkeys(_accounts(met), AS_IT_IS)
    turns = turns_over(alert) and not only_exits(alert)
    if alert.quantity is None or alert.quantity_type is not QuantityType.BASE:
        others = _accounts(met)[1:] if turns else []
        return {met[0][0]: AS_IT_IS} | dict.fromkeys(others, CLOSE)
    if turns:
        closed = max(_sum(met), closed_by_sender(alert))
        left = max(alert.quantity - closed, Decimal(0))
        # A route that sizes by itself opens whatever the sender has left.
        if by_target and not left:
            return dict.fromkeys(_accounts(met), CLOSE)
        return _turned_over(met, left)
    left, shares = alert.quantity, dict[int, Decimal]()
    for account, quantity in met:
        share = min(left, abs(quantity))
        if share > 0:
            shares[account] = share
        left -= share
    shares[met[0][0]] += left
    return {account: _quantity(share) for account, share in shares.items()}


def _turned_over(met: Held, left: Decimal) -> dict[int, Part]:
    """One account ends on the other side, and opens no more than is ``left`` once all of them are
    closed; what the sender closed is taken off of that already, but for the account's own share, which
    its stop may close before it is decided.
    """
    largest, held = met[0]
    turned = {
        "quantity": decimal_text(abs(held) + left),
        "prev_market_position": _side_of(held).value,
        "prev_market_position_size": decimal_text(abs(held)),
    }
    return {largest: turned} | dict.fromkeys(_accounts(met[1:]), CLOSE)


def _to_target(alert: Alert, held: Held) -> dict[int, Part]:
    """Those on the other side close; those on the target's side come down to it, or the largest goes
    up to it. Where none is on its side, the largest turns over.
    """
    same = _on_side(held, _target_sign(alert))
    others = _accounts(_on_side(held, -_target_sign(alert)))
    if not same:
        return {others[0]: AS_IT_IS} | dict.fromkeys(others[1:], CLOSE)
    cut = _sum(same) - (alert.market_position_size or Decimal(0))
    found: dict[int, Part] = dict.fromkeys(others, CLOSE)
    if cut <= 0:
        account, quantity = same[0]
        return found | {account: _target(abs(quantity) - cut)}
    for account, quantity in same:
        off = min(cut, abs(quantity))
        if off > 0:
            found[account] = CLOSE if off == abs(quantity) else _target(abs(quantity) - off)
        cut -= off
    return found


def _quantity(share: Decimal) -> Part:
    return {"quantity": decimal_text(share)}


def _target(size: Decimal) -> Part:
    return {"market_position_size": decimal_text(size)}


def _on_side(held: Held, sign: int) -> Held:
    return [(account, quantity) for account, quantity in held if quantity * sign > 0]


def _accounts(held: Held) -> list[int]:
    return [account for account, _ in held]


def _sum(held: Held) -> Decimal:
    return sum((abs(quantity) for _, quantity in held), Decimal(0))


def _sign(alert: Alert) -> int:
    return -1 if alert.action is Action.SELL else 1


def _side_of(held: Decimal) -> MarketPosition:
    return MarketPosition.LONG if held > 0 else MarketPosition.SHORT


def _target_sign(alert: Alert) -> int:
    return 1 if alert.market_position is MarketPosition.LONG else -1
