"""Quotes of one account for another: a rehearsal may trade at a real market's prices."""

from __future__ import annotations

from brokers.errors import ConfigurationError
from brokers.models import Account
from brokers.sessions import plugin_for
from brokers.types import Quote


class QuotesOf:
    """What the account called ``name`` is quoted; asked anew with every call."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, symbol: str) -> Quote:
        """Raises BrokerError: ConfigurationError where there is no such account, or where its own
        prices are no market's."""
        account = Account.objects.filter(name=self._name).first()
        if account is None:
            raise ConfigurationError(f"quotes_from: there is no account {self._name!r}")
        if account.broker == "paper":
            raise ConfigurationError(f"quotes_from: {self._name} is a paper account itself")
        return plugin_for(account).fetch_data(symbol)
