"""Which plugins there are."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from brokers import registry as module
from brokers.base import ExecutionPlugin
from brokers.errors import ConfigurationError, QueryFailedError
from brokers.models import Account
from brokers.plugins.paper import PaperPlugin
from brokers.registry import PluginRegistry, registry
from brokers.types import Health
from tests.brokers.scripted import ScriptedPlugin, registered, script_of


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
    plugins = PluginRegistry("paper", {"paper": "brokers.plugins.paper:PaperPlugin"})
    plugins.register("paper", "brokers.plugins.paper:PaperPlugin")
    assert plugins.broken() == {}
    plugins.register("paper", "other:Z")
    assert plugins.get("paper") is PaperPlugin
    assert plugins.usable() == plugins.names() == ["paper"]
    assert list(plugins.broken().values()) == [
        "two broker plugins are called 'paper': other:Z is left out"
    ]


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


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("raise RuntimeError('no licence')", "cannot be loaded: RuntimeError: no licence"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("raise SystemExit('no licence')", "cannot be loaded: SystemExit: no licence"),
        ("def __getattr__(name): raise OSError('gone')", "cannot be loaded: OSError: gone"),
        ("def", "cannot be loaded: SyntaxError"),
        (
            "from tests.brokers.scripted import ScriptedPlugin as Base\n"
            "class Plugin(Base):\n    @property\n    def name(self): return 'misfit'",
            "calls itself",
        ),
        (
            "from brokers.base import ExecutionPlugin\nclass Plugin(ExecutionPlugin): pass",
            "lacks name, label, balances, cancel_order",
        ),
    ],
)
def test_whatever_a_package_does_it_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, match: str
) -> None:
    (tmp_path / "misfit.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "misfit", raising=False)
    plugins = PluginRegistry("paper", {"paper": "brokers.plugins.paper:PaperPlugin"})
    plugins.register("misfit", "misfit:Plugin")
    assert list(plugins) == [PaperPlugin]
    assert match in plugins.broken()["misfit"]
    sys.modules.pop("misfit", None)


@pytest.fixture
def scripted() -> Iterator[Callable[..., Account]]:
    with registered() as account:
        yield account


@pytest.mark.django_db
def test_the_health_of_all_accounts_is_asked_and_no_failure_hides_another(
    scripted: Callable[..., Account],
) -> None:
    well, silent, wrong, broken, off = (scripted() for _ in range(5))
    script_of(silent).failure = QueryFailedError("no answer")
    script_of(wrong).init_failure = ConfigurationError("no such exchange")
    script_of(broken).init_failure = KeyError("canary-secret")
    Account.objects.filter(pk=off.pk).update(is_active=False)
    found = registry().health_check_all()
    assert {name: health.ok for name, health in found.items()} == {
        well.name: True,
        silent.name: False,
        wrong.name: False,
        broken.name: False,
    }
    assert found[wrong.name].detail == "no such exchange"
    assert found[broken.name].detail == "scripted failed with KeyError: see its options"
    assert list(registry().health_check_all([off])) == [off.name]


@pytest.mark.django_db
def test_a_venue_that_hangs_holds_nobody(
    scripted: Callable[..., Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, well = scripted(), scripted()
    go_on = threading.Event()

    def asked(plugin: ScriptedPlugin) -> Health:
        if plugin.script is script_of(hanging):
            go_on.wait(30)
        return Health(True, "fine")

    monkeypatch.setattr(ScriptedPlugin, "health_check", asked)
    started = time.monotonic()
    found = registry().health_check_all(within=0.2)
    assert time.monotonic() - started < 20
    go_on.set()
    assert (found[hanging.name].ok, found[hanging.name].detail) == (False, "no answer within 0.2 s")
    assert hanging.name in found
    assert well.name in found


@pytest.mark.django_db
def test_whoever_is_not_asked_in_time_counts_as_late(
    scripted: Callable[..., Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [scripted(), scripted()]
    go_on = threading.Event()

    def asked(_: ScriptedPlugin) -> Health:
        go_on.wait(30)
        return Health(True, "fine")

    monkeypatch.setattr(module, "AT_ONCE", 1)
    monkeypatch.setattr(ScriptedPlugin, "health_check", asked)
    found = registry().health_check_all(within=0.1)
    go_on.set()
    late = Health(False, "no answer within 0.1 s")
    assert found == {account.name: late for account in accounts}


@pytest.mark.django_db
def test_a_plugin_that_stumbles_tells_no_secret(
    scripted: Callable[..., Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(_: ScriptedPlugin) -> Health:
        raise RuntimeError("canary-secret")

    account = scripted()
    monkeypatch.setattr(ScriptedPlugin, "health_check", asked)
    found = registry().health_check_all()
    detail = "scripted failed with RuntimeError: see its options"
    assert found == {account.name: Health(False, detail)}
