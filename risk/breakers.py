"""Circuit breakers: one row per account, shared by all processes, changed by conditional UPDATEs
only.

CLOSED lets everything through; ``failure_threshold`` failures in a row open it. OPEN lets nothing
through until ``open_seconds`` have passed; then one caller at a time wins the probe (HALF_OPEN),
and ``success_threshold`` good probes close it. A failed probe opens it again.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import Case, F, PositiveIntegerField, Q, Value, When
from django.utils import timezone

from risk import audit
from risk.models import CircuitBreaker

OPERATE = "risk.operate_circuitbreaker"
PROBE_SECONDS = 30
_State = CircuitBreaker.State


def of_account(account_id: int) -> CircuitBreaker:
    """The account's breaker row, made on first use."""
    return CircuitBreaker.objects.get_or_create(account_id=account_id)[0]


def admits(account_id: int) -> bool:
    """Whether a call to the venue may be made now; winning the probe counts as a yes.

    Whoever gets a yes must report back with ``succeeded`` or ``failed``.
    """
    breaker = of_account(account_id)
    if breaker.state == _State.CLOSED:
        return True
    return _win_probe(breaker)


def _win_probe(breaker: CircuitBreaker) -> bool:
    now = timezone.now()
    waited_long_enough = Q(
        state=_State.OPEN, opened_at__lte=now - timedelta(seconds=breaker.open_seconds)
    )
    probe_is_free = Q(state=_State.HALF_OPEN) & (
        Q(probe_until__isnull=True) | Q(probe_until__lt=now)
    )
    won = CircuitBreaker.objects.filter(waited_long_enough | probe_is_free, pk=breaker.pk).update(
        state=_State.HALF_OPEN,
        probe_until=now + timedelta(seconds=PROBE_SECONDS),
        successes=Case(
            When(state=_State.OPEN, then=Value(0)),
            default=F("successes"),
            output_field=PositiveIntegerField(),
        ),
    )
    return won == 1


@transaction.atomic
def succeeded(account_id: int) -> None:
    """The venue answered: failures are forgotten; enough good probes close the breaker."""
    rows = CircuitBreaker.objects.filter(account_id=account_id)
    rows.filter(state=_State.CLOSED, failures__gt=0).update(failures=0)
    if rows.filter(state=_State.HALF_OPEN).update(successes=F("successes") + 1, probe_until=None):
        closed = rows.filter(state=_State.HALF_OPEN, successes__gte=F("success_threshold")).update(
            state=_State.CLOSED, failures=0, successes=0, opened_at=None, last_error=""
        )
        if closed:
            _note(account_id, "breaker.closed", "probes succeeded")


@transaction.atomic
def failed(account_id: int, error: str) -> None:
    """The venue failed: count it, and open the breaker at the threshold or after a failed probe."""
    now = timezone.now()
    rows = CircuitBreaker.objects.filter(account_id=account_id)
    rows.filter(state=_State.CLOSED).update(failures=F("failures") + 1, last_error=error[:500])
    opened = rows.filter(
        Q(state=_State.HALF_OPEN) | Q(state=_State.CLOSED, failures__gte=F("failure_threshold"))
    ).update(
        state=_State.OPEN, opened_at=now, probe_until=None, successes=0, last_error=error[:500]
    )
    if opened:
        _note(account_id, "breaker.opened", error)


@transaction.atomic
def trip(account_id: int, reason: str) -> None:
    """An operator opens the breaker."""
    of_account(account_id)
    CircuitBreaker.objects.filter(account_id=account_id).update(
        state=_State.OPEN, opened_at=timezone.now(), probe_until=None, last_error=reason[:500]
    )
    _note(account_id, "breaker.tripped", reason)


@transaction.atomic
def reset(account_id: int, reason: str) -> None:
    """An operator closes the breaker."""
    of_account(account_id)
    CircuitBreaker.objects.filter(account_id=account_id).update(
        state=_State.CLOSED,
        failures=0,
        successes=0,
        opened_at=None,
        probe_until=None,
        last_error="",
    )
    _note(account_id, "breaker.reset", reason)


def _note(account_id: int, kind: str, reason: str) -> None:
    name = CircuitBreaker.objects.values_list("account__name", flat=True).get(account_id=account_id)
    audit.record(kind, f"breaker {name}", reason=reason)
