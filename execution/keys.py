"""What accounts' keys may do: asked before an account trades, and daily; alarms for what is found."""

from __future__ import annotations

import logging

from django.utils import timezone

from brokers import keys
from brokers.errors import BrokerError
from brokers.keys import due
from brokers.models import Account, ExchangeCredential
from execution import alarms, facts
from execution.alarms import Kind, Seen
from execution.models import Alarm
from risk.types import ReasonCode, Refusal

__all__ = ["ask", "ask_first", "due", "look"]

logger = logging.getLogger(__name__)


def ask_first(account: Account) -> None:
    """Ask about a key nobody has asked about yet; while the venue does not tell, it is unknown."""
    if ExchangeCredential.objects.filter(account=account, asked_at=None).exists():
        ask(account)
        look()


def ask(account: Account) -> None:
    """Ask the venue, through the account's breaker, and keep the answer. Never raises for the venue,
    nor for its plugin.
    """
    sealed = ExchangeCredential.objects.filter(account=account).values_list("sealed", flat=True)
    asked_with = sealed.first()
    try:
        with facts.venue_call(account):
            keys.ask(account)
    except (BrokerError, Refusal) as error:
        logger.warning("what the key of %s may do is not known now: %s", account.name, error)
        if error.code == ReasonCode.INTERNAL_ERROR:  # a defect, the same if asked again at once
            ExchangeCredential.objects.filter(account=account, sealed=asked_with).update(
                told=type(error.__cause__ or error).__name__, asked_at=timezone.now()
            )


def look() -> list[Alarm]:
    """Raise what is due and end what is over; returns the new alarms."""
    seen = [
        Seen(
            Kind.KEY_REFUSED if state.state == keys.REFUSED_STATE else Kind.KEY_CHANGED,
            account.name,
            state.text,
            account,
        )
        for account, state in keys.alarming()
    ]
    due_now = {(one.kind, one.key) for one in seen}
    for alarm in Alarm.objects.filter(
        kind__in=(Kind.KEY_REFUSED, Kind.KEY_CHANGED), cleared_at=None
    ):
        if (alarm.kind, alarm.key) not in due_now:
            alarms.clear(Kind(alarm.kind), alarm.key)
    return [alarm for alarm in map(alarms.sound, seen) if alarm is not None]
