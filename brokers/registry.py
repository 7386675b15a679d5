"""Which plugins exist: our own by name, third parties by the entry point ``fks.brokers``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from django.db import connection

from brokers.base import ExecutionPlugin
from brokers.errors import BrokerError, ConfigurationError
from brokers.symbols import Shares
from brokers.types import Health

if TYPE_CHECKING:
    from brokers.models import Account

ENTRY_POINT = "fks.brokers"
PATIENCE = 20.0
"""Seconds for the answers of all venues together."""
AT_ONCE = 16


class PluginRegistry:
    """Plugin classes by name, imported on first use, with one default.

    Plugin modules must stay cheap to import: web processes list them without their SDKs.
    """

    def __init__(self, default: str, builtin: dict[str, str]) -> None:
        self.default = default
        self._paths = dict(builtin)
        self._left_out: dict[str, str] = {}

    def names(self) -> list[str]:
        return sorted(self._paths)

    def register(self, name: str, path: str) -> None:
        """Add ``name`` at ``package.module:Class``; a second one of that name is left out, and told by
        ``broken``.
        """
        if self._paths.setdefault(name, path) != path:
            told = f"two broker plugins are called {name!r}: {path} is left out"
            self._left_out[f"{name} at {path}"] = told

    def get(self, name: str | None = None) -> type[ExecutionPlugin]:
        """The plugin class called ``name`` (the default one without a name).

        Raises ConfigurationError for a name nobody has, and for a package that cannot be used.
        """
        name = name or self.default
        path = self._paths.get(name)
        if path is None:
            known = ", ".join(self.names())
            raise ConfigurationError(f"there is no broker plugin {name!r}; known: {known}")
        module, _, attribute = path.partition(":")
        try:
            plugin = getattr(import_module(module), attribute)
        except (Exception, SystemExit) as error:
            # The boundary to foreign code: a package may do anything while it is imported.
            why = (
                str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            )
            raise ConfigurationError(
                f"the broker plugin {name!r} cannot be loaded: {why}"
            ) from error
        if not (isinstance(plugin, type) and issubclass(plugin, ExecutionPlugin)):
            raise ConfigurationError(f"the broker plugin {name!r} is no ExecutionPlugin")
        if lacking := _lacking(plugin):
            raise ConfigurationError(f"the broker plugin {name!r} lacks {', '.join(lacking)}")
        if plugin.name != name:
            raise ConfigurationError(f"the broker plugin {name!r} calls itself {plugin.name!r}")
        return plugin

    def trades_shares(self, name: str, options: Mapping[str, Any]) -> Shares:
        """What a lone ticker is on an account of the plugin called ``name``.

        Raises ConfigurationError where it cannot say.
        """
        plugin = self.get(name)
        try:
            return plugin.trades_shares(options)
        except Exception as error:
            # The boundary to foreign code: what it is told by an account's options may be anything.
            failed = f"{name} failed with {type(error).__name__}: see its options"
            raise ConfigurationError(failed) from error

    def __iter__(self) -> Iterator[type[ExecutionPlugin]]:
        """Those that can be used; ``broken`` tells of the others."""
        return (self.get(name) for name in self.usable())

    def usable(self) -> list[str]:
        """The names whose plugins can be loaded."""
        unusable = self.broken()
        return [name for name in self.names() if name not in unusable]

    def broken(self) -> dict[str, str]:
        """Why a plugin cannot be used, by name: a third party's package may not fit this FKS. One whose
        name was taken already is told by its path as well.
        """
        found = dict(self._left_out)
        for name in self.names():
            try:
                self.get(name)
            except ConfigurationError as error:
                found[name] = str(error)
        return found

    def health_check_all(
        self, accounts: Iterable[Account] | None = None, within: float = PATIENCE
    ) -> dict[str, Health]:
        """How each of ``accounts`` (every active one, unless said otherwise) stands with its venue, by
        name, asked beside each other. Never raises for a plugin or a venue; one that has not
        answered after ``within`` seconds is not healthy.

        Needs the plugins' SDKs: for workers and commands, not for web processes.
        """
        from brokers.models import Account
        from brokers.sessions import plugin_for

        if accounts is None:
            accounts = Account.objects.filter(is_active=True)
        found: dict[str, Health] = {}
        asked: dict[str, Future[Health]] = {}
        with _left_behind(ThreadPoolExecutor(AT_ONCE, thread_name_prefix="health")) as pool:
            for account in accounts:
                try:
                    plugin = plugin_for(account)
                except BrokerError as error:
                    found[account.name] = Health(False, str(error))
                except Exception as error:
                    found[account.name] = _failed(account.broker, error)
                else:
                    asked[account.name] = pool.submit(_health_of, plugin)
            wait(asked.values(), timeout=within)
        for name, answer in asked.items():
            late = Health(False, f"no answer within {within:g} s")
            # done as well: one that no thread had taken up and was called off
            is_told = answer.done() and not answer.cancelled()
            found[name] = answer.result() if is_told else late
        return found


def _lacking(plugin: type[ExecutionPlugin]) -> list[str]:
    """What every plugin has to bring and this one does not."""
    unnamed = [name for name in ("name", "label") if not hasattr(plugin, name)]
    return unnamed + sorted(plugin.__abstractmethods__)


@contextmanager
def _left_behind(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """``pool``, which nobody waits for in the end: a venue that hangs must not hold its asker."""
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _health_of(plugin: ExecutionPlugin) -> Health:
    try:
        return plugin.health_check()
    except Exception as error:
        # The boundary to foreign code: what one plugin does wrong is said, and the others are asked.
        return _failed(plugin.name, error)
    finally:
        connection.close()


def _failed(broker: str, error: Exception) -> Health:
    """Without the text of ``error``: it may hold what is secret."""
    return Health(False, f"{broker} failed with {type(error).__name__}: see its options")


@cache
def registry() -> PluginRegistry:
    """The process-wide registry."""
    plugins = PluginRegistry(
        default="paper",
        builtin={
            "alpaca": "brokers.plugins.alpaca:AlpacaPlugin",
            "bridge": "brokers.plugins.bridge:BridgePlugin",
            "ccxt": "brokers.plugins.ccxt:CcxtPlugin",
            "oanda": "brokers.plugins.oanda:OandaPlugin",
            "paper": "brokers.plugins.paper:PaperPlugin",
            "projectx": "brokers.plugins.projectx:ProjectXPlugin",
            "schwab": "brokers.plugins.schwab:SchwabPlugin",
        },
    )
    for entry in entry_points(group=ENTRY_POINT):
        plugins.register(entry.name, entry.value)
    return plugins
