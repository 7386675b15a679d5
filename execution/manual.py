"""Orders operators place by hand. They take a signal's way: stored first, then decided by a worker.

The built-in strategy ``manual`` stands for them. It has no secret, so its webhook admits nobody; a
limit or a switch set for it holds for all manual orders, and disabling it refuses them.
"""

from __future__ import annotations

import json

from django.db import transaction

from execution import approvals, intake, nudge
from execution.alerts import Alert
from execution.ids import uuid7
from execution.models import Strategy
from execution.models.strategies import MANUAL
from risk import audit

AUTH = "operator"
MAX_AGE = 60  # seconds: an operator who got no answer must not be surprised later


def submit(alert: Alert, *, key: str = "", reason: str = "") -> intake.Accepted:
    """Store ``alert``, which names its account, attributed to the current actor, and wake a worker.

    The same ``key`` again finds the first order instead of placing a second one. Raises
    DatabaseError.
    """
    actor = audit.current_actor()
    with transaction.atomic():
        strategy, _ = Strategy.objects.get_or_create(
            slug=MANUAL,
            defaults={"note": "Orders operators place by hand.", "max_age": MAX_AGE},
        )
        accepted = intake.accept(
            intake.Received(
                strategy_id=strategy.pk,
                dedupe_window=0,
                raw=b"",
                body=json.dumps(alert.to_json()),
                alert=alert,
                header_key=key or uuid7().hex,
                address=actor.address or None,
                auth=AUTH,
            )
        )
        if not accepted.is_duplicate:
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
