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
        """The plugin class called ``name`` (the default one without a name)."""
        path = self._paths.get(name or self.default)
        if path is None:
            known = ", ".join(self.names())
            raise ConfigurationError(f"there is no broker plugin {name!r}; known: {known}")
        module, _, attribute = path.partition(":")
        plugin: type[ExecutionPlugin] = getattr(import_module(module), attribute)
        return plugin

    def __iter__(self) -> Iterator[type[ExecutionPlugin]]:
        return (self.get(name) for name in self.names())


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
        },
    )
    for entry in entry_points(group=ENTRY_POINT):
        plugins.register(entry.name, entry.value)
    return plugins
