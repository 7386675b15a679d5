"""Doing at a venue what an operator wants done about a difference: flatten a position, cancel an order.

For workers, which alone load broker SDKs; ``differences`` holds what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal, localcontext

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from brokers.base import ExecutionPlugin
from brokers.decimals import decimal_text
from brokers.models import Account
from brokers.sessions import plugin_for
from brokers.types import OrderRef, Side
from execution import cancels, days, differences, flatten, positions
from execution.closable import held_there
from execution.facts import instrument_of, venue_call
from execution.lanes import switched_off
from execution.models import Difference, Fill, Order, OrderEvent, Position
from execution.slicing import equal_parts
from execution.states import TERMINAL
from risk.arithmetic import ARITHMETIC, floor_to
from risk.types import ReasonCode

ZERO = Decimal(0)
CANCEL_AGAIN = timedelta(seconds=10)
State = Difference.State


def carry_out(difference_id: int) -> str | None:
    """Do at the venue what was asked for; returns the symbol whose lane has a close in it.

    Raises BrokerError or Refusal while the venue cannot be asked; may be repeated.
    """
    row = Difference.objects.select_related("account").filter(pk=difference_id).first()
    if row is not None and row.state == State.CANCELING and _is_due(row):
        ref = OrderRef("", row.symbol, row.broker_order_id, None)
        plugin_for(row.account).cancel_order(ref)
    if row is not None and row.state == State.FLATTENING:
        if not row.is_being_closed:
            return _make_closes(row)
        if not _end_with_closes(row):
            _call_off_if_moved(row)
            return row.symbol
    return None


def follow(orders: Iterable[Order]) -> None:
    """End the differences whose closes are among ``orders`` and have ended: whoever waits for those is
    decided by what is ours alone.
    """
    ended = [one for one in orders if one.role == Order.Role.FLATTEN and one.state in TERMINAL]
    for account_id, symbol in {(one.account_id, one.symbol) for one in ended}:
        lane = Difference.objects.filter(account=account_id, symbol=symbol)
        row = lane.filter(Difference.BEING_CLOSED).first()
        if row is not None:
            with suppress(ValueError):  # another worker was faster
                _end_with_closes(row)


def _is_due(row: Difference) -> bool:
    """A cancel is repeated every 10 s until the venue no longer shows the order."""
    now = timezone.now()
    due = Difference.objects.filter(pk=row.pk).filter(
        Q(resolved_at=None) | ~Q(resolved_at__range=(now - CANCEL_AGAIN, now + CANCEL_AGAIN))
    )
    return bool(due.update(resolved_at=now))


def _held_at(account: Account, plugin: ExecutionPlugin, symbol: str) -> Decimal:
    """What the venue holds now; a difference that is flattened comes from one that keeps positions."""
    with venue_call(account):
        return sum((one.quantity for one in plugin.positions() if one.symbol == symbol), ZERO)


def _make_closes(row: Difference) -> str | None:
    """Take the venue's position into our book, and make the orders that close what came with it.

    Nothing where the venue holds something else by now: the next comparison says what. Where no close
    would be sent it stays out of our book, and the difference is open again.
    """
    account = row.account
    if (off := switched_off(account)) is not None:
        _leave(row, off.detail)
        return None
    plugin = plugin_for(account)
    rules = instrument_of(account, plugin, row.symbol, is_exit=True)
    held = _held_at(account, plugin, row.symbol)
    price = flatten.price_of(account, plugin, row.symbol)
    with transaction.atomic():
        position = _lock(row)
        if row.is_being_closed:  # another worker was faster
            return row.symbol
        ours, theirs = Decimal(row.ours), Decimal(row.theirs)
        foreign = theirs - ours
        quantity = floor_to(abs(foreign), rules.quantity_step)
        if theirs != held:
            return None
        if differences.forbids(row, "flatten") or position.quantity != ours:
            differences.close(row, State.GONE, "the position has moved since", by=row.resolved_by)
            return None
        if flatten.is_too_small(quantity, price, rules):
            _leave(row, f"the venue takes no order as small as {decimal_text(abs(foreign))}")
            return None
        cost = _cost_of_foreign(row, position, price)
        closing = quantity.copy_sign(foreign)
        # What no order can close stays, with what it cost.
        kept = positions.mean((ours, position.average_price), (foreign - closing, cost))
        position.average_price = positions.mean((theirs - closing, kept), (closing, cost))
        position.quantity, position.updated_at = theirs, timezone.now()
        position.save()
        row.resolved_at = position.updated_at
        row.save()
        known = _evidence(position, cost, kept)
        for part in equal_parts(quantity, rules.max_quantity or quantity, rules.quantity_step):
            order = flatten.new_close(account, plugin, row.symbol, held=theirs, quantity=part)
            order.reference_price = price
            flatten.save(order, differences.maker(row), quantity=decimal_text(part), **known)
    return row.symbol


def _leave(row: Difference, why: str) -> None:
    """End what was asked for, which cannot be done; the difference is there again. What another worker
    has begun goes on.
    """
    with transaction.atomic():
        _lock(row)
        if row.is_being_closed:
            return
        differences.close(row, State.GONE, f"{row.reason}: {why}", by=row.resolved_by)
        ours, theirs = Decimal(row.ours), Decimal(row.theirs)
        differences.find_again(row, why, ours=ours, theirs=theirs, cost=row.rest_cost)


def _end_with_closes(row: Difference) -> bool:
    """Once its closes have ended it is flattened; what they left goes out of our book again, and is
    a difference again. Whether they have.
    """
    with transaction.atomic():
        position = _lock(row)
        if _closes_in_lane(row).exclude(state__in=TERMINAL).exists():
            return False
        made = differences.closes_of(row)
        orders = [one.order for one in made]
        sign = -Side(orders[0].side).sign
        asked, left = differences.asked_and_left(made)
        # Another exit may have sold it with the rest.
        left = min(left, max(position.quantity * sign, ZERO))
        closed, theirs = asked - left, held_there(row)
        cost = _price(made[0].evidence.get("cost"))
        _give_back(row, position, left * sign, cost)
        _tell_apart(position, made, asked * sign)
        position.updated_at = timezone.now()
        position.save()
        ours, why = position.quantity, _why_short(orders, closed, asked)
        state = State.GONE
        if closed:
            state = State.FLATTENED
            row.ours, row.theirs = decimal_text(ours), decimal_text(ours + closed * sign)
        said = f"{row.reason}: {why}" if left else row.reason
        differences.close(row, state, said, by=row.resolved_by, at=row.resolved_at)
        if left and theirs != ours:
            is_rest = differences.is_part(theirs - ours, left * sign)
            rest_cost = cost if is_rest else None
            differences.find_again(row, why, ours=ours, theirs=theirs, cost=rest_cost)
    return True


def _closes_in_lane(row: Difference) -> QuerySet[Order]:
    lane = Order.objects.filter(account=row.account_id, symbol=row.symbol)
    return lane.filter(role=Order.Role.FLATTEN)


def _give_back(row: Difference, position: Position, left: Decimal, cost: Decimal | None) -> None:
    """Take what the closes have left out of our book again. Where the day began with what that had
    gained by then, its going is no loss of the day, nor a gain where it had lost. Such a day has begun
    before trades are counted anew.
    """
    now = timezone.now()
    _, began = days.day_of(row.account, now)
    if row.resolved_at is not None and row.resolved_at < began:
        days.book_gone(position, left, cost, now)
    position.quantity -= left


def _evidence(position: Position, cost: Decimal | None, kept: Decimal | None) -> dict[str, str]:
    """What ``_tell_apart`` has to know: what a unit cost that is closed, and one that stays; and since
    when our book holds both.
    """
    last = _fills_of(position).order_by("-pk").values_list("pk", flat=True).first()
    costs = {"cost": cost, "kept_cost": kept}
    told = {name: decimal_text(price) for name, price in costs.items() if price is not None}
    return told | {"held": decimal_text(position.quantity), "after_fill": str(last or 0)}


def _fills_of(position: Position) -> QuerySet[Fill]:
    return Fill.objects.filter(account=position.account_id, symbol=position.symbol)


def _tell_apart(position: Position, made: Sequence[OrderEvent], closing: Decimal) -> None:
    """Count what the closes have traded by its own cost, and all else by ours: until now both were
    booked at the mean of the two. What stays has cost what ours did.
    """
    known = made[0].evidence
    cost, kept = _price(known.get("cost")), _price(known.get("kept_cost"))
    ours = positions.Book(Decimal(known["held"]) - closing, kept)
    if cost is None or (ours.quantity and kept is None):
        position.average_price = kept
        return
    closes = {one.order_id for one in made}
    fills = list(_fills_of(position).filter(pk__gt=int(known["after_fill"])).order_by("pk"))
    trades = [
        (fill.order_id in closes, fill.quantity * Side(fill.side).sign, fill.price)
        for fill in fills
    ]
    ours, beyond = positions.told_apart(ours, positions.Book(closing, cost), trades)
    position.average_price = ours.average_price
    now = timezone.now()
    _, began = days.day_of(position.account, now)
    earlier = ZERO
    with localcontext(ARITHMETIC):
        for fill, more in zip(fills, beyond, strict=True):
            fill.realised_pnl += more
            position.realised_pnl += more
            earlier += more if fill.recorded_at < began else ZERO
            fill.save(update_fields=["realised_pnl"])
    days.book_recounted(position, earlier, now)


def _price(told: str | None) -> Decimal | None:
    return None if told is None else Decimal(told)


def _lock(row: Difference) -> Position:
    """Hold account, position and difference; raises ValueError when nobody wants it flattened."""
    Account.objects.select_for_update(no_key=True).get(pk=row.account_id)
    position = Position.locked(row.account_id, row.symbol)
    differences.lock(row, State.FLATTENING)
    return position


def _call_off_if_moved(row: Difference) -> None:
    """Cancel its closes where the venue holds something else by now: they could sell what is ours. Not
    while the position is held: a fill that is booked has its order first.
    """
    if row.resolved_at is not None and row.last_seen_at > row.resolved_at:
        mine = _closes_in_lane(row).filter(
            journal__event="create", journal__actor=differences.maker(row), cancel_reason=""
        )
        cancels.want(mine, ReasonCode.CANCELED_BY_OPERATOR, differences.maker(row))


def _why_short(orders: Sequence[Order], closed: Decimal, asked: Decimal) -> str:
    short = next((one for one in orders if one.remaining), orders[0])
    told = short.detail or short.reason
    ended = f"a close ended {short.get_state_display()}" + (f": {told}" if told else "")
    return f"{decimal_text(closed)} of {decimal_text(asked)} closed; {ended}"


def _cost_of_foreign(row: Difference, position: Position, price: Decimal | None) -> Decimal | None:
    """What a unit of somebody else's cost, by the venue's word on the whole; where that does not tell,
    what it trades at: then closing it realises nothing.
    """
    if row.rest_cost is not None:
        return row.rest_cost
    ours, theirs, ours_cost = Decimal(row.ours), Decimal(row.theirs), position.average_price
    if not ours or row.average_price is None or ours_cost is None:
        return row.average_price or price
    # The venue has counted ours at the mean of both since a part was closed, by FKS or by hand.
    if _was_flattened(position) or _came_and_went(row, position):
        return price
    return positions.mean((theirs, row.average_price), (-ours, ours_cost))


def _was_flattened(position: Position) -> bool:
    """Whether some of what was not ours was closed since the position was opened."""
    closed = _fills_of(position).filter(
        pk__gte=position.first_fill_id or 0,
        order__role=Order.Role.FLATTEN,
        order__journal__event="create",
        order__journal__actor__startswith=differences.MAKER,
    )
    return closed.exists()


def _came_and_went(row: Difference, position: Position) -> bool:
    """Whether the venue held something else beside ours since the position was opened, and that ended
    by itself; the same word of the venue is of the same.
    """
    earlier = Difference.objects.filter(account=row.account_id, kind=row.kind, key=row.key)
    gone = earlier.filter(pk__lt=row.pk, state=State.GONE)
    first = Fill.objects.filter(pk=position.first_fill_id or 0).first()
    if first is not None:
        gone = gone.filter(last_seen_at__gt=first.recorded_at)
    return gone.exclude(theirs=row.theirs, average_price=row.average_price).exists()
