"""The documents say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings

from risk.advice import ADVICE, advice
from risk.rules import RULES, Rule, Start
from risk.types import ReasonCode

ROOT = Path(settings.BASE_DIR)
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
CONTROLS = [
    line.split("|") for line in (DOCS / "risk-controls.md").read_text().splitlines() if "|" in line
]
REASONS = (DOCS / "reasons.md").read_text()
LIMITS = (DOCS / "limits.md").read_text()
AT_FIRST = {Start.ENFORCE: "enforced", Start.OBSERVE: "observed", Start.UNSET: ""}


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_the_page_on_limits_has_every_rule_as_it_is(rule: Rule) -> None:
    told = (rule.unit.value, rule.default, AT_FIRST[rule.start], rule.help)
    assert f"| `{rule.name}` | {' | '.join(map(str, told))} |" in LIMITS
    for one in rule.parameters:
        assert f"| `{rule.name}` | `{one.name}` | {one.default or '–'} | {one.help} |" in LIMITS


@pytest.mark.parametrize("code", ReasonCode)
def test_the_page_on_reasons_says_what_to_do_about_every_code(code: ReasonCode) -> None:
    assert f"| `{code}` | {ADVICE[code]} |" in REASONS
    assert advice(code.value) == ADVICE[code]


@pytest.mark.parametrize("text", ["", "PLUGIN_WORD", "stale"])
def test_what_is_no_code_has_no_advice(text: str) -> None:
    assert advice(text) == ""


def test_each_decision_has_its_number() -> None:
    records = sorted((DOCS / "adr").glob("*.md"))
    numbers = [record.name[:4] for record in records]
    assert len(set(numbers)) == len(numbers)
    for record in records:
        assert record.read_text().startswith(f"# {int(record.name[:4])}. "), record.name


def test_the_tests_a_page_names_are_there() -> None:
    """With its folder, or by its name alone where that is plain."""
    files = [f"/{path.relative_to(ROOT)}" for path in (ROOT / "tests").rglob("test_*.py")]
    named = [
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"[\w/]*\btest_\w+\.py", page.read_text())
    ]
    assert len(named) > 50
    assert [
        (page, name) for page, name in named if not any(one.endswith(f"/{name}") for one in files)
    ] == []


@pytest.mark.parametrize("rule", RULES)
def test_the_page_on_controls_names_a_test_that_knows_the_rule(rule: str) -> None:
    rows = [row for row in CONTROLS if f"`{rule}`" in row[3] and len(row) == 7]
    tests = [name for row in rows for name in re.findall(r"tests/[\w/]+\.py", row[5])]
    assert any(rule in (ROOT / name).read_text() for name in tests), rows
