"""Asking a venue whose breaker is open whether it works again."""

from __future__ import annotations

from brokers.errors import BrokerError
from brokers.models import Account
from brokers.sessions import plugin_for
from execution import facts
from risk import breakers
from risk.types import Refusal

MOST_QUESTIONS = 10


def probe(account_id: int) -> bool:
    """Put questions through ``account_id`` until its breakers are closed or one is not answered.

    Returns whether orders may be sent again. Only the caller that holds the probe asks anything.
    """
    account = Account.objects.get(pk=account_id)
    for _ in range(MOST_QUESTIONS):
        if breakers.are_closed(account):
            return True
        try:
            with facts.venue_call(account):
                plugin = plugin_for(account)
                if not plugin.health_check().ok:
                    # some venues take orders while they do not tell the time
                    plugin.balances()
        except (BrokerError, Refusal):
            return False
    return breakers.are_closed(account)
