"""The rules the house is built by."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db.migrations.loader import MigrationLoader

from risk.rules import RULES
from risk.types import ReasonCode
from tests.locking import complaints

ROOT = Path(settings.BASE_DIR)
APPS = ("brokers", "risk", "execution", "fks_site")
MODULES = sorted(
    path for app in APPS for path in (ROOT / app).rglob("*.py") if "migrations" not in path.parts
)
NO_MONEY = {
    "brokers/bridge/drivers/mt5_terms.py": "the vendor's package takes nothing else",
    "brokers/dialects/answers.py": "seconds of a Unix time",
    "execution/metrics.py": "what a histogram adds up",
    "execution/waiting.py": "seconds of a preference",
}
"""Where a float is allowed, and for what."""

BOUNDARIES = {
    "brokers/bridge/drivers/nt8_states.py",
    "brokers/bridge/server.py",
    "brokers/bridge/service.py",
    "brokers/ccxt_stream.py",
    "brokers/plugins/ccxt.py",
    "brokers/registry.py",
    "brokers/venue_client.py",
    "execution/account_tasks.py",
    "execution/adopting.py",
    "execution/dispatch.py",
    "execution/facts.py",
    "execution/handing_out.py",
    "execution/legs.py",
    "execution/notify.py",
    "execution/quotes.py",
    "execution/reconcile.py",
    "execution/streaming.py",
    "execution/tasks.py",
    "execution/webhooks.py",
    "fks_site/embedded.py",
    "fks_site/gate.py",
}


def in_a_process(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "fks_site.settings", **variables}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_imports_run_downhill() -> None:
    script = "from importlinter.cli import lint_imports_command as run; run()"
    finished = in_a_process("-c", script)
    assert finished.returncode == 0, finished.stdout


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_migrations_let_the_older_code_trade_on() -> None:
    loader = MigrationLoader(None)
    found = {
        f"{app} {name}": complaints(migration, loader.project_state((app, name), at_end=False))
        for (app, name), migration in loader.disk_migrations.items()
        if app in APPS
    }
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_money_is_never_a_float(path: Path) -> None:
    if str(path.relative_to(ROOT)) not in NO_MONEY:
        assert not re.search(r"(?<![\w.])float\(|FloatField|parse_float=float", path.read_text())


def test_the_exceptions_of_the_money_rule_are_needed() -> None:
    assert [name for name in NO_MONEY if "float(" not in (ROOT / name).read_text()] == []


@pytest.mark.parametrize("code", ReasonCode)
def test_every_reason_code_is_given_somewhere(code: ReasonCode) -> None:
    named = re.compile(rf'ReasonCode\.{code.name}\b|"{code.name}"')
    texts = (path.read_text() for path in MODULES if path != ROOT / "risk" / "types.py")
    assert code.lower() in RULES or any(named.search(text) for text in texts)


def test_a_web_process_loads_no_venues_sdk() -> None:
    script = (
        "import sys, fks_site.asgi; from django.urls import get_resolver;"
        "get_resolver().url_patterns;"
        "print(sorted({'apprise', 'ccxt', 'holidays', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    finished = in_a_process("-W", "ignore", "-c", script)
    assert (finished.returncode, finished.stdout.strip()) == (0, "[]"), finished.stderr


def test_rules_and_sizing_need_no_django() -> None:
    script = (
        "import sys, risk.check, risk.sizing, risk.prices, brokers.decimals, brokers.base;"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'django'))"
    )
    finished = in_a_process("-c", script)
    assert finished.stdout.strip() == "[]", finished.stderr


@pytest.mark.parametrize("app", APPS)
def test_no_signal_of_django_changes_the_domain(app: str) -> None:
    hidden = re.compile(r"@receiver|django\.db\.models\.signals|post_save|pre_save")
    found = [path.name for path in (ROOT / app).rglob("*.py") if hidden.search(path.read_text())]
    assert found == []


def test_only_boundaries_catch_everything() -> None:
    """Foreign code is called there, a task ends, or what was started is stopped again."""
    broad = re.compile(r"except (?:Base)?Exception\b|except:")
    catching = {str(path.relative_to(ROOT)) for path in MODULES if broad.search(path.read_text())}
    assert catching == BOUNDARIES
