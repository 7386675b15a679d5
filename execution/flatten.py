"""Closing positions for the kill switch and for operators: one close at a time, until nothing is held.

A close is an order of role ``flatten`` on the normal path: lane, identity, journal, unknown outcomes.
It is made under the account's lock and only while no other order can still reduce the position, so
that however often somebody asks, what is held is sold once. What ends unfilled is tried again, with
growing pauses.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from django.db import transaction
from django.db.models import F, Q, QuerySet, Sum
from django.utils import timezone

from brokers.base import ExecutionPlugin
from brokers.errors import BrokerError
from brokers.models import Account
from brokers.models import Instrument as InstrumentRow
from brokers.sessions import ready_plugin
from brokers.types import Instrument, OrderType, Side
from execution import backoff, cancels, halting, protect
from execution.closable import held_by_both
from execution.facts import instrument_of, venue_call
from execution.ids import uuid7
from execution.lanes import switched_off
from execution.models import IMMEDIATE, SIGNED, Fill, Order, OrderEvent, Position, Strategy
from execution.states import HELD, TERMINAL, UNRESOLVED, OrderState
from execution.under_way import is_open
from risk.arithmetic import floor_to, text
from risk.models import TradingState
from risk.types import ReasonCode, Refusal

ZERO = Decimal(0)
_RESTING_EXITS = ~IMMEDIATE & Q(
    role=Order.Role.EXIT,
    state__in=(OrderState.OPEN, OrderState.PARTIALLY_FILLED),
    cancel_reason="",
)
_FAILED = (
    OrderState.DENIED,
    OrderState.REJECTED,
    OrderState.NOT_PLACED,
    OrderState.EXPIRED,
    OrderState.CANCELED,
)


def left_of(row: TradingState) -> halting.Left:
    """Orders of the scope still to be cancelled, and, if it flattens, positions still to be closed."""
    scope = TradingState.Scope(row.scope)
    orders = halting.orders_of(scope, row.key).exclude(cancel_reason="").order_by("id")
    positions = held_by([row]) if row.flatten else []
    return halting.Left(list(orders), positions)


def accounts_left(row: TradingState) -> list[Account]:
    """The accounts something of ``row`` is left on; for a switch that waits for nothing else."""
    scope = TradingState.Scope(row.scope)
    orders = halting.orders_of(scope, row.key).exclude(cancel_reason="").order_by()
    found = set(orders.values_list("account_id", flat=True).distinct())
    if row.flatten:
        found |= {position.account_id for position in held_by([row])}
    return list(Account.objects.filter(pk__in=found).order_by("pk"))


def held_by(rows: Iterable[TradingState], account_id: int | None = None) -> list[Position]:
    """Positions the switches ``rows`` order to close. A rest too small for an order counts as flat."""
    switches = [row for row in rows if row.flatten]
    if not switches:
        return []
    positions = Position.objects.exclude(quantity=0).select_related("account").order_by("pk")
    if account_id is not None:
        positions = positions.filter(account_id=account_id)
    known = _known_of(positions)
    return [
        one
        for one in positions
        if any(_is_meant(row, one, known.get((one.account_id, one.symbol))) for row in switches)
    ]


def _known_of(positions: Iterable[Position]) -> dict[tuple[int, str], InstrumentRow]:
    """What the venues have said about the positions' instruments."""
    accounts, symbols = (
        {one.account_id for one in positions},
        {one.symbol for one in positions},
    )
    rows = InstrumentRow.objects.filter(account__in=accounts, symbol__in=symbols)
    return {(row.account_id, row.symbol): row for row in rows}


def _is_meant(row: TradingState, position: Position, known: InstrumentRow | None) -> bool:
    share = abs(_share(row, position))
    if not share:
        return False
    return known is None or not is_too_small(share, position.average_price, known.rules().of_exits)


def is_too_small(quantity: Decimal, price: Decimal | None, rules: Instrument) -> bool:
    """Whether the venue takes no order of ``quantity``."""
    quantity = floor_to(quantity, rules.quantity_step)
    if quantity == 0 or (rules.min_quantity is not None and quantity < rules.min_quantity):
        return True
    return rules.min_value is not None and price is not None and quantity * price < rules.min_value


def _share(row: TradingState, position: Position) -> Decimal:
    """How much of a position the switch means, at most what is held.

    Of a strategy: what its own orders bought and sold since the position was last flat, or flattened.
    Of the other sign, where other orders took it to the other side: then it cannot be closed, and is
    not done either.
    """
    if not halting.touches(row, position.account, position.symbol):
        return ZERO
    if row.scope != TradingState.Scope.STRATEGY:
        return position.quantity
    own = _traded_by(row.key, position)
    return min(own, position.quantity.copy_sign(own), key=abs)


def _traded_by(slug: str, position: Position) -> Decimal:
    fills = Fill.objects.filter(account_id=position.account_id, symbol=position.symbol)
    flattened = fills.filter(
        order__role=Order.Role.FLATTEN,
        order__strategy=None,
        order__journal__event="create",
        order__journal__actor=halting.WHO,
    ).order_by("-id")
    last = flattened.values_list("pk", flat=True).first() or 0
    first = max(position.first_fill_id or 0, last + 1)
    own = fills.filter(order__strategy__slug=slug, pk__gte=first)
    total: Decimal | None = own.aggregate(total=Sum(SIGNED))["total"]
    return total or ZERO


def close_all(account: Account) -> list[str]:
    """Make the next close wherever a switch orders it; returns the symbols with a close to be sent.

    A symbol that cannot be closed now (no answer from the venue) is left for the next time.
    """
    for position, share, row in _to_close(account):
        try:
            close(account, position.symbol, share=share, row=row)
        except (BrokerError, Refusal):
            continue  # the breaker, or a plugin that cannot be made: said where it happened
    unsent = Order.objects.filter(
        account=account, role=Order.Role.FLATTEN, state=OrderState.PENDING
    )
    return sorted(set(unsent.values_list("symbol", flat=True)))


def _to_close(account: Account) -> list[tuple[Position, Decimal, TradingState]]:
    """What is to be closed, how much of it, and the switch that means most of it. Nothing where no
    close would be sent: there the positions stay as they are, with their stops.
    """
    if switched_off(account) is not None:
        return []
    switches, found = halting.flattening(), []
    for position in held_by(switches, account.pk):
        shares = [(_share(row, position), row) for row in switches]
        share, row = max(shares, key=lambda one: one[0] * position.quantity)
        if share * position.quantity > 0:
            found.append((position, share, row))
    return found


def close(account: Account, symbol: str, *, share: Decimal, row: TradingState) -> bool:
    """Make one order that closes ``share`` of the position, unless one is under way; whether it did.

    Raises BrokerError or Refusal while the venue's rules for the symbol are not known.
    """
    plugin = ready_plugin(account)
    rules = instrument_of(account, plugin, symbol, is_exit=True)
    price = price_of(account, plugin, symbol)
    with transaction.atomic():
        Account.objects.select_for_update(no_key=True).get(pk=account.pk)
        position = Position.objects.select_for_update(no_key=True).get(
            account=account, symbol=symbol
        )
        if not TradingState.objects.filter(pk=row.pk, flatten=True).exists():
            return False
        wanted = _closable_now(position, share, plugin, rules)
        if not wanted or _waits_for_stops(position, plugin):
            return False
        order = new_close(account, plugin, symbol, held=position.quantity, quantity=wanted)
        order.strategy, order.reference_price = _strategy_of(row), price
        save(order, halting.WHO)
    return True


def take_over_slices(account: Account) -> None:
    """Have exits in slices ended where a close is to be made: it takes all that is left, at once."""
    for position, _, _ in _to_close(account):
        lane = Order.objects.filter(account=account, symbol=position.symbol, cancel_reason="")
        working = lane.filter(role=Order.Role.EXIT, state=OrderState.SLICING)
        cancels.want(working, ReasonCode.CANCELED_BY_OPERATOR, halting.WHO)


def take_off_stops(account: Account) -> None:
    """Have the stops cancelled that would hold the coins of a close, or could fill beside it; only
    where the close can be made and sent now, so that no position goes without its stop for nothing.
    """
    if not is_open(account):
        return
    for position, share, _ in _to_close(account):
        try:
            plugin = ready_plugin(account)
            rules = instrument_of(account, plugin, position.symbol, is_exit=True)
        except (BrokerError, Refusal):
            continue
        if plugin.capabilities.stops_stay or not _closable_now(position, share, plugin, rules):
            continue
        stops = protect.suspend(account, position.symbol)
        unwanted = Order.objects.filter(pk__in=stops, cancel_reason="")
        cancels.want(unwanted, ReasonCode.REPLACED, halting.WHO)


def price_of(account: Account, plugin: ExecutionPlugin, symbol: str) -> Decimal | None:
    """What the symbol trades at, else what it was bought at: a close does not fail for want of it."""
    try:
        with venue_call(account):
            return plugin.fetch_data(symbol).last
    except (BrokerError, Refusal):
        held = Position.objects.filter(account=account, symbol=symbol).first()
        return held.average_price if held else None


def _closable_now(
    position: Position, share: Decimal, plugin: ExecutionPlugin, rules: Instrument
) -> Decimal:
    """What a close of ``share`` may take off once the stops are gone; nothing while it has to wait."""
    if _is_being_reduced(position, share, plugin) or _pauses(position):
        return ZERO
    held = position.quantity
    if not plugin.capabilities.reduce_only:
        held = held_by_both(position.account_id, position.symbol, held)
    free = abs(held) - _kept_by_exits(position, plugin)
    wanted = min(abs(share), free) if share * held > 0 else ZERO
    if is_too_small(wanted, position.average_price, rules):
        return ZERO
    return floor_to(min(wanted, rules.max_quantity or wanted), rules.quantity_step)


def _is_being_reduced(position: Position, share: Decimal, plugin: ExecutionPlugin) -> bool:
    """Whether another order but a stop may reduce the position at any moment, or nobody knows whether
    one does. A close of all of it that can only reduce waits for none that needs an operator; one of
    a strategy's ``share`` could take off what belongs to others.
    """
    stops = Q(role=Order.Role.STOP_LOSS)
    if not plugin.capabilities.stops_stay:
        stops &= ~Q(state__in=UNRESOLVED)
    others = Q(role=Order.Role.ENTRY) | stops | _RESTING_EXITS
    if plugin.capabilities.reduce_only and share == position.quantity:
        others |= Q(state=OrderState.NEEDS_OPERATOR)
    return _alive(position).exclude(others).exists()


def _waits_for_stops(position: Position, plugin: ExecutionPlugin) -> bool:
    stops = _alive(position).filter(role=Order.Role.STOP_LOSS)
    return not plugin.capabilities.stops_stay and stops.exists()


def _kept_by_exits(position: Position, plugin: ExecutionPlugin) -> Decimal:
    """What exits of other strategies rest for: beside a close of one strategy they stay."""
    if plugin.capabilities.stops_stay:
        return ZERO
    side = Side.SELL if position.quantity > 0 else Side.BUY
    exits = _alive(position).filter(_RESTING_EXITS, side=side.value)
    left: Decimal | None = exits.aggregate(left=Sum(F("quantity") - F("filled_quantity")))["left"]
    return left or ZERO


def _alive(position: Position) -> QuerySet[Order]:
    lane = Order.objects.filter(account_id=position.account_id, symbol=position.symbol)
    return lane.exclude(state__in=TERMINAL | HELD)


def _pauses(position: Position) -> bool:
    """Whether the last closes came to nothing and the next is not due."""
    lane = Order.objects.filter(account_id=position.account_id, symbol=position.symbol)
    closes = lane.filter(role=Order.Role.FLATTEN)
    failed: list[Order] = []
    for order in closes.order_by("-id")[: backoff.MANY]:
        if order.state not in _FAILED or order.filled_quantity or order.cancel_reason:
            break
        failed.append(order)
    return backoff.is_pausing(failed)


def new_close(
    account: Account, plugin: ExecutionPlugin, symbol: str, *, held: Decimal, quantity: Decimal
) -> Order:
    """The market order that takes ``quantity`` off ``held``; not stored yet."""
    now = timezone.now()
    order = Order(
        id=uuid7(),
        account=account,
        symbol=symbol,
        side=(Side.SELL if held > 0 else Side.BUY).value,
        type=OrderType.MARKET.value,
        role=Order.Role.FLATTEN,
        quantity=quantity,
        reduce_only=plugin.capabilities.reduce_only,
        created_at=now,
        updated_at=now,
    )
    order.client_order_id = plugin.client_order_id(order.identity)
    return order


def save(order: Order, actor: str, **evidence: str) -> None:
    """Store a new close with the beginning of its journal; call it under the account's lock."""
    order.save(force_insert=True)
    OrderEvent.objects.create(
        order=order,
        at=order.created_at,
        event="create",
        to_state=order.state,
        actor=actor,
        detail=f"closes {text(order.quantity)} {order.symbol}",
        evidence=evidence,
    )


def _strategy_of(row: TradingState) -> Strategy | None:
    if row.scope != TradingState.Scope.STRATEGY:
        return None
    return Strategy.objects.filter(slug=row.key).first()
