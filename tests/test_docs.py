"""The documents say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings

from risk.rules import RULES, Rule, Start

LIMITS = (Path(settings.BASE_DIR) / "docs" / "limits.md").read_text()
AT_FIRST = {Start.ENFORCE: "enforced", Start.OBSERVE: "observed", Start.UNSET: ""}


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_the_page_on_limits_has_every_rule_as_it_is(rule: Rule) -> None:
    told = (rule.unit.value, rule.default, AT_FIRST[rule.start], rule.help)
    assert f"| `{rule.name}` | {' | '.join(map(str, told))} |" in LIMITS
    for one in rule.parameters:
        assert f"| `{rule.name}` | `{one.name}` | {one.default or '–'} | {one.help} |" in LIMITS
