"""Circuit breakers: one row per account and one per venue, shared by all processes, changed by
conditional UPDATEs only.

CLOSED lets everything through; ``failure_threshold`` failures in a row open it. OPEN lets nothing
through until ``open_seconds`` have passed; then one caller at a time wins the probe (HALF_OPEN),
and ``success_threshold`` good probes close it. A failed probe opens it again. A probe is always a
question to the venue: no order is sent before the breakers of its account and venue are closed.

An account whose own breaker is not closed has no say about its venue while another could still tell
otherwise: a refused key or a dead terminal is its own account's trouble.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet, Value
from django.utils import timezone

from brokers.errors import HeldBackError, QueryFailedError
from brokers.models import Account
from brokers.prepared import Prepared, given
from brokers.types import Environment
from risk import audit, notices
from risk.channels import Event
from risk.models import BreakerEvent, CircuitBreaker

OPERATE = "risk.operate_circuitbreaker"
PROBE_SECONDS = 30
"""A probe that seems to hold the breaker for twice as long began before the clock was set back."""
LONGEST_VENUE = 60
_State = CircuitBreaker.State


def venue_of(account: Account) -> str:
    """The venue a breaker guards: a sandbox is another one than the exchange itself, and what lies
    behind a bridge agent is reached by that agent alone.
    """
    name = account.agent or account.venue
    is_sandbox = account.environment == Environment.SANDBOX
    return (f"{name}-sandbox" if is_sandbox else name)[-LONGEST_VENUE:]


def of_account(account_id: int) -> CircuitBreaker:
    """The account's breaker row, made on first use."""
    return CircuitBreaker.objects.get_or_create(account_id=account_id)[0]


def of_venue(account: Account) -> CircuitBreaker:
    """The breaker row of the account's venue, made on first use."""
    return CircuitBreaker.objects.get_or_create(
        venue=venue_of(account), account=None, defaults={"failure_threshold": 10}
    )[0]


def are_closed(account: Account) -> bool:
    """Whether an order may be sent: both breakers in its way are closed."""
    return all(one.state == _State.CLOSED for one in _in_the_way(account))


def admits(account: Account) -> bool:
    """Whether a question may be put to the venue now; winning the probe counts as a yes.

    Whoever gets a yes must report back with ``succeeded``, ``failed``, ``unanswered`` or
    ``told_nothing``; a probe nobody reported on is free again after ``PROBE_SECONDS``.
    """
    won: list[int] = []
    for breaker in _in_the_way(account):
        if breaker.state == _State.CLOSED:
            continue
        if not _win_probe(breaker):
            CircuitBreaker.objects.filter(pk__in=won).update(probe_until=None)
            return False
        won.append(breaker.pk)
    return True


def due(now: datetime) -> set[int]:
    """Active accounts through which a venue should be asked whether it works again: those whose own
    breaker is due, and for a venue's all whose own is closed.
    """
    rows = list(CircuitBreaker.objects.exclude(state=_State.CLOSED))
    waited = [one for one in rows if _is_due(one, now)]
    if not waited:
        return set()
    broken = {one.account_id for one in rows}
    own = {one.account_id for one in waited}
    venues = {one.venue for one in waited if one.account_id is None}
    return {
        one.pk
        for one in Account.objects.filter(is_active=True)
        if one.pk in own or (one.pk not in broken and venue_of(one) in venues)
    }


def succeeded(account: Account) -> None:
    """The venue answered: failures are forgotten; enough good probes close a breaker."""
    found = [one for one in _in_the_way(account) if one.failures or one.state != _State.CLOSED]
    if found:
        _note_success(CircuitBreaker.objects.filter(pk__in=[one.pk for one in found]))


@transaction.atomic
def _note_success(rows: QuerySet[CircuitBreaker]) -> None:
    rows.filter(state=_State.CLOSED, failures__gt=0).update(failures=0)
    half_open = rows.filter(state=_State.HALF_OPEN)
    if not half_open.update(successes=F("successes") + 1, probe_until=None):
        return
    for breaker in half_open.filter(successes__gte=F("success_threshold")):
        _change(breaker, half_open, _State.CLOSED, "breaker.closed", "probes succeeded")


@transaction.atomic
def failed(account: Account, error: str) -> None:
    """The venue failed: count it, and open a breaker at its threshold or after a failed probe."""
    own, venue = _in_the_way(account)
    was_closed = _count_failure(own, error)
    if was_closed or _nobody_else_can_tell(account):
        _count_failure(venue, error)
    else:
        _free_probes([venue])


def _count_failure(breaker: CircuitBreaker, error: str) -> bool:
    """Returns whether the breaker was closed until now."""
    row = CircuitBreaker.objects.filter(pk=breaker.pk)
    closed = row.filter(state=_State.CLOSED)
    was_closed = closed.update(failures=F("failures") + 1, last_error=error[:500]) == 1
    opens = row.filter(
        Q(state=_State.HALF_OPEN) | Q(state=_State.CLOSED, failures__gte=F("failure_threshold"))
    )
    _change(breaker, opens, _State.OPEN, "breaker.opened", error)
    return was_closed


def _nobody_else_can_tell(account: Account) -> bool:
    """Whether the own breaker of every other active account at the venue is open. One that is half
    open has its turn first, lest a dead account keeps the others from ever being asked.
    """
    others = Account.objects.filter(is_active=True).exclude(pk=account.pk)
    venue = venue_of(account)
    return all(venue_of(one) != venue for one in others.exclude(breaker__state=_State.OPEN))


def unanswered(account: Account, error: QueryFailedError) -> None:
    """A question got no trustworthy answer: the venue's failure, unless it works and answered without
    telling, or our own limiter held the question back.
    """
    if error.is_answer:
        succeeded(account)
    elif isinstance(error, HeldBackError):
        told_nothing(account)
    else:
        failed(account, str(error))


def told_nothing(account: Account) -> None:
    """A question that says nothing of the venue, such as one that could not be put: whoever comes
    next may ask.
    """
    _free_probes(_in_the_way(account))


def _free_probes(rows: Iterable[CircuitBreaker]) -> None:
    half_open = [one.pk for one in rows if one.state == _State.HALF_OPEN]
    if half_open:
        held = CircuitBreaker.objects.filter(pk__in=half_open, state=_State.HALF_OPEN)
        held.update(probe_until=None)


@transaction.atomic
def trip(breaker: CircuitBreaker, reason: str) -> None:
    """An operator opens the breaker."""
    row = CircuitBreaker.objects.filter(pk=breaker.pk)
    _change(breaker, row, _State.OPEN, "breaker.tripped", reason)


@transaction.atomic
def reset(breaker: CircuitBreaker, reason: str) -> None:
    """An operator closes the breaker."""
    row = CircuitBreaker.objects.filter(pk=breaker.pk)
    _change(breaker, row, _State.CLOSED, "breaker.reset", reason)


def _in_the_way(account: Account) -> list[CircuitBreaker]:
    """The account's breaker, then its venue's: locked in this order, they cannot lock each other up."""
    rows = _both(account=account.pk, venue=venue_of(account))
    found = sorted(rows, key=lambda one: one.account_id is None)
    return found if len(found) == 2 else [of_account(account.pk), of_venue(account)]


def not_closed(account: Value, venue: Value) -> QuerySet[CircuitBreaker]:
    """Those of the two in an account's way that let no order through."""
    return _on_the_way(account, venue).exclude(state=_State.CLOSED)


def _on_the_way(account: Value, venue: Value) -> QuerySet[CircuitBreaker]:
    return CircuitBreaker.objects.filter(Q(account=account) | Q(account=None, venue=venue))


_both = Prepared(lambda: _on_the_way(given("account"), given("venue")))


def _is_due(breaker: CircuitBreaker, now: datetime) -> bool:
    if breaker.state == _State.HALF_OPEN:
        until = breaker.probe_until
        return until is None or not now <= until <= now + 2 * timedelta(seconds=PROBE_SECONDS)
    opened_at = breaker.opened_at or now
    return abs(now - opened_at) >= timedelta(seconds=breaker.open_seconds)


@transaction.atomic
def _win_probe(breaker: CircuitBreaker) -> bool:
    now = timezone.now()
    row = CircuitBreaker.objects.filter(pk=breaker.pk)
    probe, pause = timedelta(seconds=PROBE_SECONDS), timedelta(seconds=breaker.open_seconds)
    probe_until = now + probe
    has_waited = Q(opened_at__lte=now - pause) | Q(opened_at__gte=now + pause)
    waited = row.filter(has_waited, state=_State.OPEN)
    if waited.update(state=_State.HALF_OPEN, probe_until=probe_until, successes=0):
        _remember(breaker, _State.HALF_OPEN, "the first probe")
        return True
    free = Q(probe_until__isnull=True) | ~Q(probe_until__range=(now, now + 2 * probe))
    return row.filter(free, state=_State.HALF_OPEN).update(probe_until=probe_until) == 1


def _change(
    breaker: CircuitBreaker,
    rows: QuerySet[CircuitBreaker],
    state: CircuitBreaker.State,
    kind: str,
    reason: str,
) -> None:
    """Open or close ``breaker`` if it is among ``rows`` at this moment, with its history."""
    is_open = state == _State.OPEN
    changes = {
        "state": state,
        "opened_at": timezone.now() if is_open else None,
        "probe_until": None,
        "successes": 0,
        "last_error": reason[:500] if is_open else "",
    } | ({} if is_open else {"failures": 0})
    if rows.filter(pk=breaker.pk).update(**changes):
        _remember(breaker, state, reason)
        audit.record(kind, f"breaker {breaker.name}", reason=reason)
        event = Event.BREAKER_OPENED if is_open else Event.BREAKER_CLOSED
        notices.tell(event, lambda: _news(breaker, state, reason))


def _news(breaker: CircuitBreaker, state: CircuitBreaker.State, reason: str) -> notices.News:
    account = breaker.account.name if breaker.account else ""
    return notices.News(f"Breaker {breaker.name} is {state.value}", reason[:500], account=account)


def _remember(breaker: CircuitBreaker, state: CircuitBreaker.State, reason: str) -> None:
    BreakerEvent.objects.create(
        breaker=breaker,
        at=timezone.now(),
        to_state=state,
        actor=audit.current_actor().name,
        reason=reason[:500],
    )
