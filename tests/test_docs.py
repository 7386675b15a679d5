"""The documents say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings

from risk.advice import ADVICE, advice
from risk.rules import RULES, Rule, Start
from risk.types import ReasonCode

DOCS = Path(settings.BASE_DIR) / "docs"
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
