"""The routes of one group are sized alike, as far as the sender's position sizes go."""

from __future__ import annotations

from typing import Any

import pytest
from django.forms import inlineformset_factory

from execution.admin.routes import RouteFormSet
from execution.models import Route, Strategy
from tests.factories import AccountFactory, RouteFactory, StrategyFactory

pytestmark = pytest.mark.django_db
FIELDS = ("account", "is_enabled", "group", "sizing", "percent")
MIXED = ["all routes of the group best are sized by fixed quantity, or none of them is"]


def complaints(strategy: Strategy, *rows: dict[str, Any]) -> list[str]:
    """What is said of the strategy's routes as they would be saved."""
    formset = inlineformset_factory(Strategy, Route, formset=RouteFormSet, fields=FIELDS)
    known = sum("id" in row for row in rows)
    form: dict[str, Any] = {"routes-TOTAL_FORMS": len(rows), "routes-INITIAL_FORMS": known}
    for number, row in enumerate(rows):
        form |= {f"routes-{number}-{name}": value for name, value in row.items()}
    shown = Route.objects.filter(pk__in=[row["id"] for row in rows if "id" in row])
    return list(formset(form, instance=strategy, queryset=shown).non_form_errors())


def row(sizing: str, **fields: Any) -> dict[str, Any]:
    account = AccountFactory.create().pk
    return {"account": account, "is_enabled": "on", "group": "best", "sizing": sizing} | fields


def test_a_group_is_sized_by_fixed_quantity_or_not_at_all() -> None:
    strategy = StrategyFactory.create()
    fixed = row("fixed_quantity")
    assert complaints(strategy, fixed, row("risk")) == MIXED
    assert complaints(strategy, fixed, row("fixed_quantity")) == []
    assert complaints(strategy, row("risk"), row("fixed_percent")) == []


def test_groups_and_routes_that_are_off_or_deleted_do_not_count() -> None:
    strategy = StrategyFactory.create()
    fixed = row("fixed_quantity")
    assert complaints(strategy, fixed, row("risk", group="")) == []
    assert complaints(strategy, fixed, row("risk", group="other")) == []
    assert complaints(strategy, fixed, row("risk", is_enabled="")) == []
    gone = RouteFactory.create(strategy=strategy, group="best", sizing="risk")
    old = row("risk", id=gone.pk, account=gone.account.pk)
    assert complaints(strategy, old, fixed) == MIXED
    assert complaints(strategy, old | {"DELETE": "on"}, fixed) == []


def test_a_whole_group_is_changed_at_once() -> None:
    strategy = StrategyFactory.create()
    made = [RouteFactory.create(strategy=strategy, group="best") for _ in range(2)]
    rows = [row("risk", id=one.pk, account=one.account.pk) for one in made]
    assert complaints(strategy, *rows) == []


def test_a_route_that_is_not_shown_counts_as_it_is() -> None:
    strategy = StrategyFactory.create()
    RouteFactory.create(strategy=strategy, group="best")
    assert complaints(strategy, row("risk")) == MIXED
