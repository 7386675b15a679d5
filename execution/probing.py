"""Asking a venue whose breaker is open whether it works again."""

from __future__ import annotations

from brokers.base import ExecutionPlugin
from brokers.capabilities import Balances
from brokers.errors import BrokerError, QueryFailedError
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
                _ask(plugin_for(account))
        except (BrokerError, Refusal):
            return False
    return breakers.are_closed(account)


def _ask(plugin: ExecutionPlugin) -> None:
    """Raises BrokerError where the venue does not answer. Some take orders while they do not tell the
    time: they are asked for balances, unless those are what an operator wrote down.
    """
    health = plugin.health_check()
    if health.ok:
        return
    if plugin.capabilities.balances is Balances.STATED:
        raise QueryFailedError(health.detail)
    plugin.balances()
