"""Until when an alert may open something."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

from execution.aims import only_exits
from execution.alerts import Action, Alert
from execution.models import Signal
from risk.types import ReasonCode, Refusal


def outdated(signal: Signal, alert: Alert) -> Refusal | None:
    """Why the alert opens nothing any more: it came in time, but has waited here too long since."""
    until, now = opens_until(signal, alert), timezone.now()
    if alert.action is Action.CANCEL or only_exits(alert) or not signal.received_at <= until < now:
        return None
    sent_at = alert.sent_at or signal.received_at
    waited, most = int((now - sent_at).total_seconds()), int((until - sent_at).total_seconds())
    detail = f"the alert waited {waited} s here; the most is {most} s"
    return Refusal(ReasonCode.STALE, detail)


def opens_until(signal: Signal, alert: Alert) -> datetime:
    """The moment after which it only leaves positions."""
    most = signal.strategy.max_age
    seconds = min(most, alert.max_age or most)
    # a sender's clock that is ahead makes nothing good for longer
    began = min(alert.sent_at or signal.received_at, signal.received_at)
    return began + timedelta(seconds=seconds)
