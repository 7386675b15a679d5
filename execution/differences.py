"""Differences between a venue and our book: noted, closed when they are gone, resolved by operators."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery, Sum, TextField, Value
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Coalesce, Concat
from django.utils import timezone

from brokers.decimals import decimal_text
from brokers.fields import MoneyField
from brokers.models import Account
from brokers.prepared import Prepared, given
from execution import days, positions
from execution.models import Difference, Order, OrderEvent, Position
from risk import audit, notices
from risk.channels import Event

logger = logging.getLogger(__name__)

Kind, State = Difference.Kind, Difference.State
_STANDING = (*Difference.BLOCKING, State.IGNORED)
MAKER = "difference "
"""How the name begins under which the orders that close a difference are in the journal."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One difference as a reconciliation sees it. ``key`` tells it from others of its kind."""

    kind: Difference.Kind
    symbol: str
    key: str
    ours: str
    theirs: str
    detail: str
    average_price: Decimal | None = None


def note(
    account: Account,
    seen: Iterable[Seen],
    *,
    left_out: Collection[tuple[str, str]] = (),
    since: datetime | None = None,
) -> list[Difference]:
    """Store what is new, close what is gone; returns the account's open differences.

    A difference an operator ignored stays ignored until what the venue says changes. ``left_out``
    are kinds and symbols that could not be compared: nothing is known of those. What was resolved
    ``since`` the venue was asked is left for the next comparison.
    """
    asked_at = since or timezone.now()
    with transaction.atomic():
        Account.objects.select_for_update(no_key=True).get(pk=account.pk)
        # Locked, lest what an operator decides in this moment is written over.
        rows = Difference.objects.select_for_update(of=("self",)).filter(
            Q(state__in=_STANDING) | Q(resolved_at__gt=asked_at), account=account
        )
        known = {(row.kind, row.key): row for row in rows.order_by("id")}
        # A venue may list one twice.
        for one in {(one.kind, one.key): one for one in seen}.values():
            row = known.pop((one.kind, one.key), None)
            if row is not None and row.state not in _STANDING:
                continue
            if row is None or _outdated(row, one):
                row = Difference(
                    account=account, kind=one.kind, key=one.key, first_seen_at=asked_at
                )
            elif row.rest_cost is not None and not is_part(_foreign(one), _foreign(row)):
                row.rest_cost = None
            _store(row, one, asked_at)
        for row in known.values():
            if row.state not in _STANDING or (row.kind, row.symbol) in left_out:
                continue
            if row.is_being_closed:
                continue
            if row.state == State.CANCELING:
                close(row, State.CANCELED, row.reason, by=row.resolved_by)
            else:
                close(row, State.GONE, "the venue and the book agree again")
    blocking = Difference.objects.filter(account=account, state__in=Difference.BLOCKING)
    return list(blocking.order_by("id"))


def _store(row: Difference, one: Seen, seen_at: datetime) -> None:
    """``row`` as it is seen now; a new one is told of."""
    if row.theirs != one.theirs:
        row.theirs_since = seen_at
    row.symbol, row.detail, row.average_price = one.symbol, one.detail, one.average_price
    row.ours, row.theirs, row.last_seen_at = one.ours, one.theirs, seen_at
    if row._state.adding:
        audit.record("difference.found", f"{one.symbol} on {row.account}", reason=one.detail)
        logger.warning("difference: %s, %s", row, one.detail)
        notices.tell(Event.DRIFT, partial(_news, row.account, one))
    row.save()


def _foreign(one: Difference | Seen) -> Decimal:
    """What of a position is not ours."""
    return Decimal(one.theirs) - Decimal(one.ours)


def is_part(some: Decimal, whole: Decimal) -> bool:
    """Whether ``some`` may be what is left of ``whole``: on its side, and no more."""
    return some * whole > 0 and abs(some) <= abs(whole)


def _news(account: Account, one: Seen) -> notices.News:
    title = f"{one.symbol} on {account}: ours {one.ours}, the venue's {one.theirs}"
    return notices.News(title, one.detail, account=account.name, symbol=one.symbol)


def _outdated(row: Difference, seen: Seen) -> bool:
    """Close a difference that was ignored as something else than it is now."""
    if row.state != State.IGNORED or row.theirs == seen.theirs:
        return False
    close(row, State.GONE, "what the venue says has changed")
    return True


def blocks_entries(account_id: int, symbol: str) -> Difference | None:
    """The open difference that forbids opening anything in this symbol, if there is one."""
    return _blocking.first(account=account_id, symbol=symbol)


@Prepared
def _blocking() -> QuerySet[Difference]:
    rows = Difference.objects.filter(account=given("account"), symbol=given("symbol"))
    return rows.filter(state__in=Difference.BLOCKING)[:1]


def forbids(difference: Difference, verb: str) -> str:
    """Why ``verb`` (adopt, ignore, flatten, cancel) is not for this difference; empty where it is."""
    is_position = difference.kind == Kind.POSITION
    if verb == "adopt" and not is_position:
        return "an order that is not ours cannot be adopted; cancel it at the venue"
    if verb == "cancel" and is_position:
        return "a position is not cancelled; adopt or flatten it"
    if verb != "flatten":
        return ""
    if not is_position:
        return "an order is not flattened; cancel it at the venue"
    try:
        ours, theirs = Decimal(difference.ours), Decimal(difference.theirs)
    except InvalidOperation:
        return "how much either side holds is not known"
    if theirs * (theirs - ours) <= 0 or ours * theirs < 0:
        return "the venue holds less than our book says; adopt what it holds"
    return ""


def _refuse_forbidden(difference: Difference, verb: str) -> None:
    if why := forbids(difference, verb):
        raise ValueError(why)


def ignore(difference: Difference, *, reason: str) -> None:
    """Accept the difference as it is: entries go on until the venue says something else.

    Raises ValueError when it is no longer open.
    """
    with transaction.atomic():
        lock(difference, State.OPEN)
        close(difference, State.IGNORED, reason)
        audit.record("difference.ignored", str(difference), reason=reason)


def adopt(difference: Difference, *, reason: str) -> None:
    """Take the venue's word into our book; only for positions.

    A position is what its fills and adoptions add up to; the audit row holds the numbers. What it no
    longer holds was closed by hand: its loss stays in the day. Raises ValueError: an order, resolved
    already, or a position that has moved since it was compared.
    """
    _refuse_forbidden(difference, "adopt")
    with transaction.atomic():
        row = Position.locked(difference.account_id, difference.symbol)
        lock(difference, State.OPEN, State.IGNORED)
        if row.quantity != Decimal(difference.ours):
            raise ValueError("the position has moved since; wait for the next reconciliation")
        now, before, after = timezone.now(), row.quantity, Decimal(difference.theirs)
        days.book_gone(row, _gone(before, after), row.average_price, now)
        row.average_price, row.quantity, row.updated_at = _cost(row, difference), after, now
        row.save()
        close(difference, State.ADOPTED, reason)
        audit.record(
            "difference.adopted",
            str(difference),
            before={"quantity": decimal_text(before)},
            after={"quantity": decimal_text(after)},
            reason=reason,
        )


def _gone(before: Decimal, after: Decimal) -> Decimal:
    """How much of a position is held no more; all of it where the other side is held now."""
    if before * after <= 0:
        return before
    return before - after if abs(after) < abs(before) else Decimal(0)


def _cost(position: Position, difference: Difference) -> Decimal | None:
    """What a unit of the venue's position cost: by our fills while it is no more than they hold, else
    by its own word. Where neither says, the price of the next comparison is taken.

    The rest of what was flattened in part costs what that did: the venue tells the mean of both.
    """
    held, theirs = position.quantity, Decimal(difference.theirs)
    ours = position.average_price if held * theirs > 0 else None
    if ours is not None and abs(theirs) <= abs(held):
        return ours
    rest = theirs - held, difference.rest_cost
    if (cost := positions.mean((held, ours), rest)) is not None:
        return cost
    return (difference.average_price or ours) if theirs else None


def ask_flatten(difference: Difference, *, reason: str) -> None:
    """Have a worker close at the venue what our book does not know of; only where that reduces.

    Raises ValueError: an order, resolved already, or a venue that holds less than our book says.
    """
    _refuse_forbidden(difference, "flatten")
    _ask(difference, State.FLATTENING, reason)


def ask_cancel(difference: Difference, *, reason: str) -> None:
    """Have a worker cancel an order of somebody else at the venue.

    Raises ValueError: a position, or resolved already.
    """
    _refuse_forbidden(difference, "cancel")
    _ask(difference, State.CANCELING, reason)


def _ask(difference: Difference, state: Difference.State, reason: str) -> None:
    with transaction.atomic():
        lock(difference, State.OPEN)
        difference.state, difference.reason = state, reason
        difference.resolved_by = audit.current_actor().name
        difference.save()
        audit.record(f"difference.{state.value}", str(difference), reason=reason)


def asked() -> list[int]:
    """Differences a worker has to do something about at the venue."""
    rows = Difference.objects.filter(state__in=Difference.ASKED)
    return list(rows.values_list("pk", flat=True))


def lock(difference: Difference, *states: Difference.State) -> None:
    """Lock the row; raises ValueError when it is in none of ``states`` any more."""
    difference.refresh_from_db(from_queryset=Difference.objects.select_for_update(of=("self",)))
    if difference.state not in states:
        raise ValueError(f"this difference is {difference.get_state_display()} already")


def close(
    row: Difference,
    state: Difference.State,
    reason: str,
    by: str = "",
    at: datetime | None = None,
) -> None:
    """End a difference as resolved by ``by``, or by whoever acts now, ``at`` or now."""
    row.state, row.reason = state, reason
    row.resolved_at = at or timezone.now()
    row.resolved_by = by or audit.current_actor().name
    row.save()


def find_again(
    row: Difference, why: str, *, ours: Decimal, theirs: Decimal, cost: Decimal | None
) -> None:
    """What is left of ``row``, which has ended: a new difference to be decided about, and ``why``; and
    what a unit of it cost, where that is known."""
    now = timezone.now()
    rest = Difference(
        account=row.account,
        kind=row.kind,
        key=row.key,
        first_seen_at=now,
        reason=why,
        rest_cost=cost,
    )
    both = decimal_text(ours), decimal_text(theirs)
    _store(rest, Seen(Kind(row.kind), row.symbol, row.key, *both, why, row.average_price), now)


def maker(row: Difference) -> str:
    """Who has made its closes, in their journals."""
    return f"{MAKER}{row.pk}"


def closes_of(row: Difference) -> list[OrderEvent]:
    """How its closes began, oldest first."""
    born = OrderEvent.objects.filter(event="create", actor=maker(row)).select_related("order")
    lane = born.filter(order__account=row.account_id, order__symbol=row.symbol)
    return list(lane.filter(order__role=Order.Role.FLATTEN).order_by("id"))


def asked_and_left(made: Sequence[OrderEvent]) -> tuple[Decimal, Decimal]:
    """How much closes were to close, and what they did not."""
    asked = sum((Decimal(one.evidence["quantity"]) for one in made), Decimal(0))
    return asked, asked - sum((one.order.filled_quantity for one in made), Decimal(0))


def left_to_close() -> Coalesce:
    """Of a position in a query: what it holds of somebody else's, and closes have yet to sell."""
    lane = {"account": OuterRef("order__account"), "symbol": OuterRef("order__symbol")}
    taken_in = Difference.objects.filter(Difference.BEING_CLOSED, **lane).annotate(
        maker=Concat(Value(MAKER), Cast("pk", TextField()), output_field=TextField())
    )
    made = OrderEvent.objects.filter(
        Exists(taken_in.filter(maker=OuterRef("actor"))),
        event="create",
        order__role=Order.Role.FLATTEN,
        order__account=OuterRef("account"),
        order__symbol=OuterRef("symbol"),
    )
    asked = Cast(KeyTextTransform("quantity", "evidence"), MoneyField())
    left = made.order_by().values("event").annotate(left=Sum(asked - F("order__filled_quantity")))
    return Coalesce(Subquery(left.values("left")), Value(Decimal(0)), output_field=MoneyField())
