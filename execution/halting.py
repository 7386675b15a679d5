"""What the kill switch does beyond forbidding: cancel what works, and close what is held.

What is to be done is on rows: a cancel on each order, ``flatten`` on the switch. So it goes on after
a crash, and pressing twice does nothing twice. ``winding_down`` does it: for the sweep, every second
until nothing is left, and for ``manage.py halt`` here and now.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.db.models import Q, QuerySet

from brokers.access import reach_of
from brokers.models import Account
from brokers.models import Instrument as InstrumentRow
from execution import cancels
from execution.access import may_switch
from execution.models import Order, Position, Strategy
from execution.states import TERMINAL, OrderState
from risk import switch
from risk.models import TradingState
from risk.types import ReasonCode

Scope, State = TradingState.Scope, TradingState.State
WHO = "the kill switch"
CHANGE_ORDER = "execution.change_order"


class Mode(StrEnum):
    """What pressing the kill switch does. Each includes that nothing is opened any more."""

    HALT = "halt"
    REDUCE_ONLY = "reduce_only"
    CANCEL_ALL = "cancel_all"
    FLATTEN = "flatten"
    RESUME = "resume"

    @property
    def state(self) -> TradingState.State:
        """What the switch stands at afterwards."""
        if self is Mode.RESUME:
            return State.ACTIVE
        return State.REDUCING if self is Mode.REDUCE_ONLY else State.HALTED


def may_press(user: User | AnonymousUser, mode: Mode, scope: TradingState.Scope, key: str) -> bool:
    """Whether ``user`` may: halting, releasing, and doing away with orders are three rights.

    Who works with some accounts only presses for one of these, or for a strategy of theirs alone.
    """
    reach = reach_of(user)
    if reach is not None and not may_switch(reach, scope, key):
        return False
    if not (user.has_perm(switch.HALT) or user.has_perm(switch.CHANGE)):
        return False
    if mode in (Mode.CANCEL_ALL, Mode.FLATTEN) and not user.has_perm(CHANGE_ORDER):
        return False
    loosens = switch.loosens(mode.state, scope=scope, key=key)
    return not loosens or user.has_perm(switch.CHANGE)


@dataclass(frozen=True, slots=True)
class Left:
    """What a scope still has to get rid of."""

    orders: Sequence[Order]
    positions: Sequence[Position]

    def __bool__(self) -> bool:
        return bool(self.orders or self.positions)


def is_known(scope: TradingState.Scope, key: str) -> bool:
    """Whether there is such an account, strategy, venue or symbol: a typo would halt nothing.

    A switch that stands is known, so that it can be released after what it was for is gone.
    """
    if switch.not_active().filter(scope=scope, key=key).exists():
        return True
    if scope == Scope.ACCOUNT:
        return Account.objects.filter(name=key).exists()
    if scope == Scope.STRATEGY:
        return Strategy.objects.filter(slug=key).exists()
    if scope == Scope.VENUE:
        return key in venues()
    if scope == Scope.SYMBOL:
        return key in symbols()
    return key == ""


def release_command(row: TradingState) -> str:
    """What releases ``row`` in a shell, and nothing else."""
    only = "" if row.scope == Scope.GLOBAL else f" --{row.scope} {shlex.quote(row.key)}"
    return f"manage.py resume{only} --reason …"


def venues() -> list[str]:
    """The venues there are accounts at."""
    return sorted({account.venue for account in Account.objects.all()})


def symbols() -> list[str]:
    """The symbols that have been traded, or asked about."""
    known = Position.objects.order_by().values_list("symbol", flat=True)
    return sorted(known.union(InstrumentRow.objects.order_by().values_list("symbol", flat=True)))


def press(mode: Mode, *, scope: TradingState.Scope, key: str, reason: str) -> TradingState:
    """Set the switch, and note what it has to get rid of; in force when this has committed.

    Stop losses stay, lest the positions that remain are unguarded; a flatten takes them off as it
    closes. One that stands goes on until the scope is released, at least to reduce only: then closes
    not yet sent are dropped.
    """
    with transaction.atomic():
        switch.hold()
        before = TradingState.objects.filter(scope=scope, key=key, flatten=True).exists()
        flatten = True if mode is Mode.FLATTEN else None
        row = switch.change(mode.state, scope=scope, key=key, flatten=flatten, reason=reason)
        orders = orders_of(scope, key).exclude(role=Order.Role.STOP_LOSS)
        closes = Q(role=Order.Role.FLATTEN)
        if mode in (Mode.CANCEL_ALL, Mode.FLATTEN):
            kept = closes if row.flatten else Q(pk=None)
            cancels.want(orders.exclude(kept), ReasonCode.CANCELED_BY_OPERATOR, WHO)
        if before and not row.flatten:
            unsent = orders.filter(closes, state=OrderState.PENDING)
            cancels.want(unsent, ReasonCode.CANCELED_BY_OPERATOR, WHO)
    return row


def orders_of(scope: TradingState.Scope, key: str) -> QuerySet[Order]:
    """Orders of a scope that have not ended."""
    orders = Order.objects.exclude(state__in=TERMINAL).select_related("account")
    if scope == Scope.GLOBAL:
        return orders
    if scope == Scope.STRATEGY:
        return orders.filter(strategy__slug=key)
    if scope == Scope.SYMBOL:
        return orders.filter(symbol=key)
    return orders.filter(account__in=_accounts_of(scope, key))


def _accounts_of(scope: TradingState.Scope, key: str) -> list[Account]:
    """The account of that name, or those at that venue."""
    accounts = Account.objects.order_by("pk")
    if scope == Scope.ACCOUNT:
        return list(accounts.filter(name=key))
    return [account for account in accounts if account.venue == key]


def flattening() -> list[TradingState]:
    """Switches that order to close what is held."""
    return list(TradingState.objects.filter(flatten=True).order_by("pk"))


def touches(row: TradingState, account: Account, symbol: str) -> bool:
    """Whether a position of ``account`` in ``symbol`` is in the scope; of a strategy, a part may be."""
    match row.scope:
        case Scope.ACCOUNT:
            return row.key == account.name
        case Scope.VENUE:
            return row.key == account.venue
        case Scope.SYMBOL:
            return row.key == symbol
    return True
