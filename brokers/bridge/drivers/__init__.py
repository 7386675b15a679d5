"""The drivers by name, each imported only where it is used: its vendor's package exists only there."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from brokers.bridge.driver import Driver, Memory
from brokers.bridge.journal import Journal
from brokers.bridge.settings import Settings

CLASSES = {
    "mt5": "brokers.bridge.drivers.mt5:Mt5Driver",
    "nt8": "brokers.bridge.drivers.nt8:Nt8Driver",
    "ib": "brokers.bridge.drivers.ib:IbDriver",
}


def driver_class(name: str) -> Any:
    """The driver called ``name``, without its vendor's package."""
    module, _, attribute = CLASSES[name].partition(":")
    return getattr(import_module(module), attribute)


def make(settings: Settings, journal: Journal) -> dict[str, Driver]:
    """One driver per allowed account. Raises SettingsError or ConfigurationError."""
    driver = driver_class(settings.driver)
    return {
        account: driver(account, settings.instruments, settings.terms, memory_of(journal, account))
        for account in settings.accounts
    }


def memory_of(journal: Journal, account: str) -> Memory:
    """The driver's hand on ``journal`` for one account."""
    return Memory(
        find=partial(journal.find, account),
        by_client_id=partial(journal.by_client_id, account),
        since=partial(journal.since, account),
        note=partial(journal.note, account),
    )
