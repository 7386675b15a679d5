"""Alert rules and dashboards: what they say, that it fits the catalogue, and that they work."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from execution.models import Alarm
from tests.e2e.product import ROOT, eventually, free_port, running_product

DEPLOY = ROOT / "deploy"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
NAME = re.compile(r"\b((?:fks|webhook|order|processing|active)_[a-z_]+)\b")
SUFFIXES = ("_bucket", "_count", "_sum")


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed here (Debian: apt-get install prometheus)")


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def catalogue() -> set[str]:
    return set(
        re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    )


def metrics_in(expr: str) -> set[str]:
    bare = re.sub(r"by \([^)]*\)", "", re.sub(r"\{[^}]*\}", "", expr))
    found = set()
    for name in NAME.findall(bare):
        base = next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
        found.add(base if base in catalogue() else name)
    return found


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^##+ (.+)$", path.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_leads_to_a_section_of_the_runbook(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")

    assert anchor in anchors(ROOT / page)
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_ask_for_metrics_that_exist(rule: dict[str, Any]) -> None:
    assert metrics_in(rule["expr"]) <= catalogue()
    assert metrics_in(rule["expr"]) or re.search(r"\bup\{job=", rule["expr"])


@pytest.mark.parametrize("kind", Alarm.Kind)
def test_every_kind_of_alarm_wakes_somebody(kind: Alarm.Kind) -> None:
    asked = [re.findall(r'fks_alarms\{kind=~?"([^"]+)"', rule["expr"]) for rule in RULES]
    named = {one for found in asked for text in found for one in text.split("|")}
    by_age = {Alarm.Kind.NAKED_POSITION: "PositionUnguarded"}
    by_age |= {Alarm.Kind.NOT_RECONCILED: "ReconciliationFailing"}

    assert kind in named or by_age[kind] in {rule["alert"] for rule in RULES}


def test_every_alert_has_a_test() -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus/alerts_test.yaml").read_text())["tests"]
    proven = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    silent = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if not case.get("exp_alerts")
    }
    assert proven == silent == {rule["alert"] for rule in RULES}


def test_the_alerts_fire_when_they_should() -> None:
    needs("promtool")
    done = subprocess.run(
        ["promtool", "test", "rules", str(DEPLOY / "prometheus/alerts_test.yaml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configurations_are_well_formed() -> None:
    needs("promtool")
    config = str(DEPLOY / "prometheus/prometheus.yml")
    checks = [["promtool", "check", "config", "--syntax-only", config]]
    if shutil.which("amtool"):
        checks.append(["amtool", "check-config", str(DEPLOY / "prometheus/alertmanager.yml")])
    for command in checks:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboards_are_what_their_program_writes() -> None:
    program = module(DEPLOY / "grafana/make_dashboards.py")
    written = {path.stem: path.read_text() for path in (DEPLOY / "grafana/dashboards").iterdir()}

    assert written == {name: program.text_of(name) for name in program.DASHBOARDS}


def test_panels_ask_for_metrics_that_exist() -> None:
    prove = module(DEPLOY / "grafana/prove.py")
    asked = {name for _, _, expr in prove.queries() for name in metrics_in(expr)}

    assert asked <= catalogue()
    assert len(asked) > 25


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_every_panel_shows_data_of_a_real_run(tmp_path: Path) -> None:
    """A real Prometheus scrapes the product while it trades; each panel's query has an answer."""
    needs("prometheus")
    with running_product(tmp_path / "var") as product:
        config = tmp_path / "prometheus.yml"
        target = {"targets": [f"127.0.0.1:{product.port}"]}
        job = {"job_name": "fks-web", "static_configs": [target]}
        text = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
        config.write_text(json.dumps(text))
        port = free_port()
        prometheus = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            path = product.demo_path()
            posted = 0

            def all_panels() -> bool:
                nonlocal posted
                for _ in range(3):
                    posted += 1
                    action = "buy" if posted % 2 else "sell"
                    body = {"symbol": "BTC/USDT", "action": action, "price": "60000", "id": posted}
                    product.post(path, body, {"Prefer": "wait=2"})
                done = subprocess.run(
                    [sys.executable, str(DEPLOY / "grafana/prove.py"), f"http://127.0.0.1:{port}"],
                    capture_output=True,
                    text=True,
                )
                (tmp_path / "panels").write_text(done.stdout + done.stderr)
                return done.returncode == 0

            try:
                eventually(all_panels, seconds=90, what="every panel has data")
            except AssertionError:
                raise AssertionError((tmp_path / "panels").read_text()) from None
        finally:
            prometheus.terminate()
            prometheus.wait(20)
