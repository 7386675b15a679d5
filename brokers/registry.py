"""Which plugins exist: our own by name, third parties by the entry point ``fks.brokers``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from brokers.base import ExecutionPlugin
from brokers.errors import ConfigurationError

ENTRY_POINT = "fks.brokers"


class PluginRegistry:
    """Plugin classes by name, imported on first use, with one default.

    Plugin modules must stay cheap to import: web processes list them without their SDKs.
    """

    def __init__(self, default: str, builtin: dict[str, str]) -> None:
        self.default = default
        self._paths = dict(builtin)

    def names(self) -> list[str]:
        return sorted(self._paths)

    def register(self, name: str, path: str) -> None:
        """Add ``name`` at ``package.module:Class``; a second one of that name is refused."""
        if self._paths.get(name, path) != path:
            raise ConfigurationError(f"two broker plugins are called {name!r}")
        self._paths[name] = path

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
        except (ImportError, AttributeError, SyntaxError) as error:
            raise ConfigurationError(
                f"the broker plugin {name!r} cannot be loaded: {error}"
            ) from error
        if not (isinstance(plugin, type) and issubclass(plugin, ExecutionPlugin)):
            raise ConfigurationError(f"the broker plugin {name!r} is no ExecutionPlugin")
        if plugin.name != name:
            raise ConfigurationError(f"the broker plugin {name!r} calls itself {plugin.name!r}")
        return plugin

    def __iter__(self) -> Iterator[type[ExecutionPlugin]]:
        """Those that can be used; ``broken`` tells of the others."""
        return (self.get(name) for name in self.usable())

    def usable(self) -> list[str]:
        """The names whose plugins can be loaded."""
        unusable = self.broken()
        return [name for name in self.names() if name not in unusable]

    def broken(self) -> dict[str, str]:
        """Why a plugin cannot be used, by name: a third party's package may not fit this FKS."""
        found = {}
        for name in self.names():
            try:
                self.get(name)
            except ConfigurationError as error:
                found[name] = str(error)
        return found


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
