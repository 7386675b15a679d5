"""Finding out the truth: orders whose outcome is unknown, working orders, and whole accounts.

"Not found" counts only when the venue itself says so, no sooner than its settle window after the
submission, and twice, a window apart. A question without a trustworthy answer changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import DataError, IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from brokers.capabilities import Capabilities
from brokers.errors import AmbiguousOrderError, BrokerError, QueryFailedError
from brokers.models import Account
from brokers.prepared import Prepared, given
from brokers.sessions import plugin_for
from brokers.types import OrderReport
from execution import (
    comparison,
    decisions,
    dispatch,
    equity,
    facts,
    fills,
    funding,
    lanes,
    parents,
    restored,
    standstill,
    tracing,
    venue_holds,
)
from execution.dispatch import ref_of, send_cancel
from execution.models import Difference, Order
from execution.states import AT_VENUE, TERMINAL, UNRESOLVED, UNSENT, OrderState
from execution.transitions import Event, IllegalMove, move
from risk import breakers
from risk.arithmetic import text
from risk.types import ReasonCode

logger = logging.getLogger(__name__)

ASK_AGAIN = timedelta(seconds=2)
CANCEL_AGAIN = timedelta(seconds=5)
OPERATOR_PAUSE = timedelta(seconds=30)
_MINUTES = decisions.GIVE_UP_AFTER.seconds // 60
NO_PROOF = "the venue shows nothing like it, and keeps no id of ours that would prove it absent"


@Prepared
def with_account() -> QuerySet[Order]:
    """The order and its account, read together."""
    return Order.objects.select_related("account").filter(pk=given("order")).order_by()


def check_order(order: Order) -> OrderReport | None:
    """Ask the venue about one order and book the answer; what it says of it, if anything."""
    asked_at = timezone.now()
    try:
        plugin = plugin_for(order.account)
        with tracing.step("venue.fetch_order", order.signal_id, venue=order.account.venue):
            report = plugin.fetch_order(ref_of(order, plugin))
    except QueryFailedError as error:
        breakers.unanswered(order.account, error)
        _not_known(order, error)
        return None
    except AmbiguousOrderError as error:
        _give_up(order, str(error))
        return None
    except BrokerError as error:
        _not_known(order, error)
        return None
    except Exception as error:
        # The boundary to foreign code: whatever went wrong, it is not an answer.
        logger.exception("asking about an order raised", extra={"order_id": order.pk})
        _not_known(order, error)
        return None
    breakers.succeeded(order.account)
    if report is not None:
        book(order, report, source="asked the venue")
    elif order.broker_order_id or order.state not in UNRESOLVED:
        _vanished(order)
    else:
        _not_found(order, asked_at, plugin.capabilities)
    return report


def cancel(order: Order, reason: ReasonCode, who: str) -> None:
    """Cancel ``order`` and read back how it ended; nothing yet while nobody knows where it is."""
    if order.state == OrderState.SLICING:
        _cancel_slices(order, reason, who)
        return
    dispatch.cancel(order, reason=reason, detail=f"cancel asked for by {who}")
    order.refresh_from_db()
    if order.state == OrderState.CANCELING:
        check_order(order)
        order.refresh_from_db()


def _cancel_slices(parent: Order, reason: ReasonCode, who: str) -> None:
    """No further slice starts; those under way are cancelled, and the parent ends with the last one."""
    for one in parents.end(parent, reason, who):
        if one.state in UNSENT or one.state in (OrderState.OPEN, OrderState.PARTIALLY_FILLED):
            cancel(one, reason, who)
    parents.follow(parent.pk)
    parent.refresh_from_db()


def book(order: Order, report: OrderReport, *, source: str) -> None:
    """Book the report; a cancel the venue has not heard of, or not obeyed, is sent again."""
    try:
        fills.apply_report(order, report, source=source)
    except (IllegalMove, IntegrityError, DataError) as error:
        logger.exception("an answer cannot be booked", extra={"order_id": order.pk})
        _give_up(order, f"the venue's answer contradicts our book: {error}")
        return
    if decisions.of_half(order, report, timezone.now()) is Event.GIVE_UP:
        detail = f"for {_MINUTES} minutes the venue has called it {report.status.value}, and shows"
        why = f": {report.reason}" if report.reason else ""
        _give_up(order, f"{detail} trades of {text(order.filled_quantity)} only{why}")
    elif order.state == OrderState.CANCELING and not _cancel_was_sent_lately(order):
        send_cancel(order, shown=report.status)


def _cancel_was_sent_lately(order: Order) -> bool:
    now = timezone.now()
    sent = order.journal.filter(event="cancel_sent", at__gt=now - CANCEL_AGAIN)
    # Far ahead counts as long ago: the clock was set back.
    return sent.filter(at__lt=now + CANCEL_AGAIN).exists()


def _not_known(order: Order, error: Exception) -> None:
    """No answer: ask again later, and call an operator when that has lasted too long."""
    # Others may have asked since it was read: a comparison asks about many, one after the other.
    order.refresh_from_db(fields=["next_check_at", "unanswered_since"])
    now = timezone.now()
    if decisions.of_silence(order, now, order.account.reconciled_at) is Event.GIVE_UP:
        _give_up(order, f"the venue has not answered for {_MINUTES} minutes: {error}")
    elif order.state == OrderState.NEEDS_OPERATOR:
        _ask_again(order, OPERATOR_PAUSE)
    else:
        _ask_again(order, ASK_AGAIN, unanswered_since=decisions.silent_since(order, now))


def _ask_again(order: Order, delay: timedelta, **columns: datetime | None) -> None:
    Order.objects.filter(pk=order.pk, state=order.state).update(
        next_check_at=timezone.now() + delay, **columns
    )


def _give_up(order: Order, detail: str) -> None:
    """An operator must look. Later answers of the venue still count."""
    if order.state in TERMINAL | {OrderState.NEEDS_OPERATOR}:
        _ask_again(order, OPERATOR_PAUSE)
        return
    move(order, Event.GIVE_UP, detail=detail, next_check_at=timezone.now() + OPERATOR_PAUSE)


def _not_found(order: Order, asked_at: datetime, capabilities: Capabilities) -> None:
    """The venue says there is no such order: a look that counts if the settle window had passed when
    the question was asked."""
    if not capabilities.keeps_our_id and order.state == OrderState.NEEDS_OPERATOR:
        _ask_again(order, OPERATOR_PAUSE)
        return
    window = timedelta(seconds=capabilities.settle_window)
    worth = decisions.look(order, asked_at)
    if worth is decisions.Look.TOO_EARLY:
        _let_settle(order, window)
        return
    now = timezone.now()
    looks = order.looks + 1
    with transaction.atomic():
        counted = Order.objects.filter(
            pk=order.pk, state=order.state, attempt=order.attempt, looks=order.looks
        ).update(
            looks=looks,
            settle_at=now + window,
            next_check_at=now + window,
            unanswered_since=None,
        )
        if not counted:
            return
        order.journal.create(
            at=now,
            event="look",
            from_state=order.state,
            to_state=order.state,
            attempt=order.attempt,
            actor="system",
            detail=f"not found, look {looks} of {decisions.LOOKS_NEEDED}",
        )
        # A position without a stop cannot wait: one that turns up beside ours is taken off again.
        if order.came_attached or (worth is decisions.Look.PROVES and capabilities.keeps_our_id):
            _absent(order)
        elif worth is decisions.Look.PROVES:
            _give_up(order, NO_PROOF)


def _let_settle(order: Order, window: timedelta) -> None:
    """Ask again soon. What seems to settle later than a window from now was sent, or looked for,
    before the clock was set back: its window begins anew.
    """
    now = timezone.now()
    settle_at = order.settle_at or now
    if settle_at > now + window:
        settle_at = now + window
        same = Order.objects.filter(pk=order.pk, settle_at=order.settle_at)
        same.update(settle_at=settle_at)
    _ask_again(order, min(max(settle_at - now, timedelta(0)), ASK_AGAIN), unanswered_since=None)


def _absent(order: Order) -> None:
    """Proven absent. Still fresh: sent again with the same identity. Else it ends, named."""
    evidence = {"looks": decisions.LOOKS_NEEDED, "submitted_at": str(order.submitted_at)}
    lost = lanes.times_lost(order)
    again = decisions.of_absence(order, timezone.now(), lost) is Event.SEND_AGAIN
    if again and not order.cancel_reason:
        move(
            order,
            Event.SEND_AGAIN,
            detail="proven absent and still fresh: it goes back into its lane",
            evidence=evidence,
            next_check_at=None,
            unknown_since=None,
        )
        return
    move(
        order,
        Event.PROVE_ABSENT,
        detail="proven absent at the venue",
        evidence=evidence,
        reason=ReasonCode.NOT_PLACED.value,
    )


def _vanished(order: Order) -> None:
    """The venue acknowledged it and now knows nothing of it: no state of ours explains that."""
    looks = order.looks + 1
    if decisions.of_vanishing(order) is None:
        Order.objects.filter(pk=order.pk, state=order.state).update(
            looks=looks, next_check_at=timezone.now() + ASK_AGAIN * looks, unanswered_since=None
        )
        return
    _give_up(order, "the venue acknowledged this order and now says it does not know it")


def reconcile_account(account: Account) -> list[Difference]:
    """Compare the account's working orders, positions and balances with the venue's.

    Returns the open differences, which are stored. Raises BrokerError or Refusal when the venue does
    not answer: then nothing is known, and nothing is changed. Until this has succeeded once after a
    standstill, the account does not trade.
    """
    started, standstills = timezone.now(), standstill.noticed()
    plugin = plugin_for(account)
    # What is held is asked first: what fills after that shows among the orders, or in neither.
    facts.refresh_balances(account, plugin)
    with facts.venue_call(account):
        held_at_venue = plugin.positions()
        open_at_venue = plugin.open_orders()
    _correct_ends(account, open_at_venue, started)
    renamed = _ask_about_others(account, open_at_venue)
    keeps_positions = plugin.capabilities.short_selling or bool(held_at_venue)
    found, left_out = comparison.compare(
        account,
        [one for one in open_at_venue if (one.symbol, one.broker_order_id) not in renamed],
        held_at_venue if keeps_positions else None,
        since=started,
        keeps_our_id=plugin.capabilities.keeps_our_id,
    )
    # An account changed meanwhile may be another one at the venue, and what was told before a
    # standstill is old: it is compared again.
    same = Account.objects.filter(pk=account.pk, version=account.version)
    if standstill.noticed() != standstills or not same.update(reconciled_at=started):
        return found
    venue_holds.note_compared(account, left_out=left_out, since=started)
    restored.note_compared(account, left_out=left_out)
    funding.read(account, plugin)
    facts.refresh_marks(account, plugin)
    equity.note(account, plugin, timezone.now())
    return found


def _correct_ends(account: Account, reports: Sequence[OrderReport], asked_at: datetime) -> None:
    """An order that had ended here before the question and works at the venue: the venue wins."""
    for report in reports:
        order = _order_of(account, report)
        if order is None or order.state not in TERMINAL - {OrderState.DENIED}:
            continue
        if order.finished_at is not None and order.finished_at < asked_at:
            source = "open at the venue after its end here"
            fills.apply_report(order, report, source=source, asked_at=asked_at)


def _order_of(account: Account, report: OrderReport) -> Order | None:
    """The order with our id, else the newest with the venue's, which may have been another's before."""
    rows = Order.objects.filter(account=account)
    named = rows.filter(client_order_id=report.client_order_id, is_adopted=False)
    theirs = rows.filter(symbol=report.symbol, broker_order_id=report.broker_order_id)
    return named.first() or theirs.order_by("-id").first()


def _ask_about_others(account: Account, reports: Sequence[OrderReport]) -> set[tuple[str, str]]:
    """Ask about every order that the list does not show as it stands here. Returns the symbols and ids
    of those the list has under another id."""
    working = {(one.symbol, one.broker_order_id): one.filled_quantity for one in reports}
    renamed: set[tuple[str, str]] = set()
    for order in unfinished(account):
        shown = working.get((order.symbol, order.broker_order_id))
        if order.state in UNRESOLVED or shown != order.filled_quantity:
            report = check_order(order)
            if report is not None and report.listed_as:
                renamed.add((report.symbol, report.listed_as))
    return renamed


def unfinished(account: Account) -> list[Order]:
    """The account's orders that are, or may be, at the venue; the oldest 500."""
    return list(
        Order.objects.filter(account=account, state__in=AT_VENUE | UNRESOLVED)
        .select_related("account")
        .order_by("id")[:500]
    )
