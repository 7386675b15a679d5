"""What each list of the REST API may be filtered by. An unknown parameter is refused: a misspelt
filter must not answer with everything.
"""

from __future__ import annotations

from typing import Any

import django_filters as filters
from rest_framework.exceptions import ValidationError

from brokers.types import Environment
from execution.alerts import Action
from execution.models import Order, SideChoices, Strategy, TypeChoices
from execution.states import OrderState, SignalState
from risk.models import CircuitBreaker, RiskLimit, TradingState

PAGING = frozenset({"cursor", "page_size"})


class StrictFilterSet(filters.FilterSet):  # type: ignore[misc]  # the library has no types
    """A FilterSet that refuses parameters it does not know."""

    def is_valid(self) -> bool:
        unknown = sorted(self.data.keys() - self.filters.keys() - PAGING)
        if unknown:
            raise ValidationError({name: ["there is no such filter"] for name in unknown})
        return bool(super().is_valid())


def _since(field: str) -> Any:
    return filters.IsoDateTimeFilter(field_name=field, lookup_expr="gte", label="At or after.")


def _before(field: str) -> Any:
    return filters.IsoDateTimeFilter(field_name=field, lookup_expr="lt", label="Before.")


def _any_of(choices: Any) -> Any:
    return filters.MultipleChoiceFilter(choices=choices, label="Repeat it for several.")


class SignalFilter(StrictFilterSet):
    strategy = filters.CharFilter(field_name="strategy__slug")
    state = _any_of(SignalState.choices)
    action = filters.ChoiceFilter(choices=[(one.value, one.value) for one in Action])
    symbol = filters.CharFilter()
    reason = filters.CharFilter()
    received_since = _since("received_at")
    received_before = _before("received_at")


class OrderFilter(StrictFilterSet):
    account = filters.CharFilter(field_name="account__name")
    strategy = filters.CharFilter(field_name="strategy__slug")
    signal = filters.UUIDFilter(field_name="signal_id")
    state = _any_of(OrderState.choices)
    side = filters.ChoiceFilter(choices=SideChoices.choices)
    type = filters.ChoiceFilter(choices=TypeChoices.choices)
    role = filters.ChoiceFilter(choices=Order.Role.choices)
    symbol = filters.CharFilter()
    reason = filters.CharFilter()
    client_order_id = filters.CharFilter()
    broker_order_id = filters.CharFilter()
    created_since = _since("created_at")
    created_before = _before("created_at")


class FillFilter(StrictFilterSet):
    account = filters.CharFilter(field_name="account__name")
    order = filters.UUIDFilter(field_name="order_id")
    side = filters.ChoiceFilter(choices=SideChoices.choices)
    symbol = filters.CharFilter()
    since = _since("at")
    before = _before("at")


class PositionFilter(StrictFilterSet):
    account = filters.CharFilter(field_name="account__name")
    symbol = filters.CharFilter()
    is_open = filters.BooleanFilter(method="filter_open", label="Whether anything is held.")

    def filter_open(self, rows: Any, _name: str, is_open: bool) -> Any:
        return rows.exclude(quantity=0) if is_open else rows.filter(quantity=0)


class AccountFilter(StrictFilterSet):
    broker = filters.CharFilter()
    environment = filters.ChoiceFilter(choices=[(one.value, one.value) for one in Environment])
    is_active = filters.BooleanFilter()


class StrategyFilter(StrictFilterSet):
    account = filters.CharFilter(field_name="routes__account__name")
    auth = filters.ChoiceFilter(choices=Strategy.Auth.choices)
    is_enabled = filters.BooleanFilter()


class BreakerFilter(StrictFilterSet):
    account = filters.CharFilter(field_name="account__name")
    state = filters.ChoiceFilter(choices=CircuitBreaker.State.choices)


class LimitFilter(StrictFilterSet):
    rule = filters.CharFilter()
    account = filters.CharFilter(field_name="policy__account__name")
    strategy = filters.CharFilter(field_name="policy__strategy")
    symbol = filters.CharFilter(field_name="policy__symbol")
    mode = filters.ChoiceFilter(choices=RiskLimit.Mode.choices)


class TradingStateFilter(StrictFilterSet):
    scope = filters.ChoiceFilter(choices=TradingState.Scope.choices)
    key = filters.CharFilter()
    state = filters.ChoiceFilter(choices=TradingState.State.choices)


class AuditFilter(StrictFilterSet):
    kind = filters.CharFilter()
    actor = filters.CharFilter()
    subject = filters.CharFilter()
    correlation_id = filters.CharFilter()
    since = _since("at")
    before = _before("at")
