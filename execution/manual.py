"""Orders operators place by hand. They take a signal's way: stored first, then decided by a worker.

The built-in strategy ``manual`` stands for them. It has no secret, so its webhook admits nobody; a
limit or a switch set for it holds for all manual orders, and disabling it refuses them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from execution import approvals, intake, nudge
from execution.alerts import Alert
from execution.ids import uuid7
from execution.models import IdempotencyKey, Signal, Strategy
from execution.models.strategies import MANUAL
from risk import audit

AUTH = "operator"
MAX_AGE = 60  # seconds: an operator who got no answer must not be surprised later


class KeyReusedError(Exception):
    """An idempotency key that already stands for another order of the same person."""


def submit(alert: Alert, *, key: str = "", reason: str = "") -> intake.Accepted:
    """Store ``alert``, which names its account, attributed to the current actor, and wake a worker.

    The same ``key`` of the same person, for the same account or order, finds the first order instead
    of placing a second one. Raises KeyReusedError where that was another order, and DatabaseError.
    """
    with transaction.atomic():
        strategy, _ = Strategy.objects.get_or_create(
            slug=MANUAL,
            defaults={"note": "Orders operators place by hand.", "max_age": MAX_AGE},
        )
        accepted = intake.accept(_received(strategy, alert, key))
        if accepted.is_duplicate:
            _refuse_another(accepted.signal_id, alert)
        else:
            audit.record(
                approvals.REQUESTED,
                f"signal {accepted.signal_id}",
                after=alert.to_json(),
                reason=reason,
                correlation_id=str(accepted.signal_id),
            )
    if not accepted.is_duplicate:
        nudge.nudge_signal(str(accepted.signal_id))
    return accepted


def first_of(alert: Alert, key: str) -> Signal | None:
    """What the same person's ``key`` stands for already. Raises KeyReusedError as ``submit`` does."""
    strategy = Strategy.objects.filter(slug=MANUAL).first() if key else None
    if strategy is None:
        return None
    name, _ = intake.idempotency_key(_received(strategy, alert, key), timezone.now())
    known = IdempotencyKey.objects.filter(strategy=strategy, key=name).select_related("signal")
    row = known.first()
    if row is None:
        return None
    _refuse_another(row.signal_id, alert)
    return row.signal


def _received(strategy: Strategy, alert: Alert, key: str) -> intake.Received:
    actor = audit.current_actor()
    return intake.Received(
        strategy_id=strategy.pk,
        dedupe_window=0,
        raw=b"",
        body=json.dumps(alert.to_json()),
        alert=alert,
        header_key=_scoped(key, actor.name, alert) if key else uuid7().hex,
        address=actor.address or None,
        auth=AUTH,
    )


def _scoped(key: str, who: str, alert: Alert) -> str:
    """``key`` as it is kept: no other person's, and for no other account or order to replace."""
    what = ["amend", alert.replaces] if alert.replaces else ["place", alert.account]
    return hashlib.sha256(json.dumps([who, *what, key]).encode()).hexdigest()


def _refuse_another(signal_id: UUID, alert: Alert) -> None:
    first = Signal.objects.values_list("alert", flat=True).get(pk=signal_id)
    if _asked(Alert.from_json(first)) != _asked(alert):
        raise KeyReusedError("the idempotency key stands for another order already")


def _asked(alert: Alert) -> Alert:
    """What a person asked for: stop and targets of an amend are those the order has by then."""
    return replace(alert, stop_loss=None, take_profit=()) if alert.replaces else alert
