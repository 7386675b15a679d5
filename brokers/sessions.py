"""Ready plugins of this process: one per account and configuration, made on first use."""

from __future__ import annotations

import threading
from collections import OrderedDict

from brokers.base import ExecutionPlugin
from brokers.crypto import DecryptionError
from brokers.errors import ConfigurationError
from brokers.models import Account
from brokers.recent_quotes import RECENT
from brokers.registry import registry

MAX_SESSIONS = 64


class _Sessions:
    """An LRU of initialised plugins, safe for threads; a changed account gets a new plugin.

    Never an older one: a caller that read the account before the change gets the new one as well.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._making: dict[int, threading.Lock] = {}
        self._ready: OrderedDict[int, tuple[int, ExecutionPlugin]] = OrderedDict()

    def get(self, account: Account) -> ExecutionPlugin:
        with self._lock:
            plugin = self._fresh(account)
            if plugin is not None:
                return plugin
            making = self._making.setdefault(account.pk, threading.Lock())
        with making:
            with self._lock:
                plugin = self._fresh(account)
            return plugin or self._make(account)

    def _fresh(self, account: Account) -> ExecutionPlugin | None:
        version, plugin = self._ready.get(account.pk, (0, None))
        if version < account.version or plugin is None:
            return None
        self._ready.move_to_end(account.pk)
        return plugin

    def _make(self, account: Account) -> ExecutionPlugin:
        plugin = registry().get(account.broker)()
        try:
            plugin.init(account.config())
        except DecryptionError as error:
            raise ConfigurationError(f"the stored credential cannot be read: {error}") from error
        except SystemExit as error:
            # The boundary to foreign code: what is imported only now may want to end the process.
            raise ConfigurationError(f"the broker plugin {account.broker!r} gave up") from error
        dropped = []
        with self._lock:
            old = self._ready.pop(account.pk, None)
            if old is not None:
                dropped.append(old[1])
            self._ready[account.pk] = (account.version, plugin)
            while len(self._ready) > MAX_SESSIONS:
                dropped.append(self._ready.popitem(last=False)[1][1])
        for stale in dropped:
            stale.close()
        return plugin

    def clear(self) -> None:
        with self._lock:
            plugins = [plugin for _, plugin in self._ready.values()]
            self._ready.clear()
        for plugin in plugins:
            plugin.close()


_sessions = _Sessions()


def plugin_for(account: Account) -> ExecutionPlugin:
    """The ready plugin of ``account``; raises ConfigurationError or CredentialError."""
    return _sessions.get(account)


def ready_plugin(account: Account) -> ExecutionPlugin:
    """As ``plugin_for``, of one that knows what its venue can do. Some have to ask, and whoever holds
    the account's lock must not wait for that. Raises QueryFailedError as well.
    """
    plugin = plugin_for(account)
    _ = plugin.capabilities
    return plugin


def forget_all() -> None:
    """Close every plugin of this process, and forget what they were told."""
    _sessions.clear()
    RECENT.forget()
