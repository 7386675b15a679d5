"""Which plugins there are."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from brokers import registry as module
from brokers.base import ExecutionPlugin
from brokers.errors import ConfigurationError
from brokers.plugins.paper import PaperPlugin
from brokers.registry import PluginRegistry, registry


def test_our_own_plugins_are_there_and_paper_is_the_default() -> None:
    assert {"ccxt", "paper"} <= set(registry().names())
    assert registry().get() is registry().get("paper") is PaperPlugin


@pytest.mark.parametrize("plugin", list(registry()), ids=lambda plugin: plugin.name)
def test_every_plugin_declares_itself(plugin: type[ExecutionPlugin]) -> None:
    assert registry().get(plugin.name) is plugin
    assert plugin.label
    assert all(plugin.option_fields.values())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="no broker plugin 'mt4'; known: a, b") as refused:
        PluginRegistry("a", {"b": "x:Y", "a": "x:Z"}).get("mt4")
    assert refused.value.code == "ACCOUNT_MISCONFIGURED"


def test_a_name_belongs_to_one_plugin() -> None:
    plugins = PluginRegistry("a", {"a": "x:Z"})
    plugins.register("a", "x:Z")
    with pytest.raises(ConfigurationError, match="two broker plugins are called 'a'"):
        plugins.register("a", "other:Z")


def test_a_third_party_registers_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("scripted", "tests.brokers.scripted:ScriptedPlugin", module.ENTRY_POINT)
    monkeypatch.setattr(module, "entry_points", lambda group: [entry] * (group == "fks.brokers"))
    plugins = registry.__wrapped__()
    assert plugins.get("scripted").label == "Scripted (tests)"


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("no_such_module:Plugin", "cannot be loaded"),
        ("brokers.plugins.paper:Nothing", "cannot be loaded"),
        ("brokers.types:Side", "no ExecutionPlugin"),
        ("brokers.registry:registry", "no ExecutionPlugin"),
        ("brokers.plugins.paper:PaperPlugin", "calls itself 'paper'"),
    ],
)
def test_a_plugin_that_does_not_fit_is_named_and_left_out(path: str, match: str) -> None:
    plugins = PluginRegistry("paper", {"paper": "brokers.plugins.paper:PaperPlugin", "x": path})
    with pytest.raises(ConfigurationError, match=match):
        plugins.get("x")
    assert list(plugins) == [PaperPlugin]
    assert list(plugins.broken()) == ["x"]
