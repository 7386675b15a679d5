"""What each list of the REST API may be filtered by. Unknown parameters and empty values are
refused: a misspelt filter must not answer with everything.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import django_filters as filters
from drf_spectacular.utils import extend_schema_field
from rest_framework.exceptions import ValidationError

from brokers.types import Environment
from execution.alerts import Action
from execution.models import Order, SideChoices, Strategy, TypeChoices
from execution.states import OrderState, SignalState
from risk.models import CircuitBreaker, Proposal, RiskLimit, TradingState

PAGING = frozenset({"cursor", "page_size"})


class StrictFilterSet(filters.FilterSet):  # type: ignore[misc]  # the library has no types
    """A FilterSet that refuses what it would otherwise pass over."""

    def is_valid(self) -> bool:
        errors = {name: [fault] for name in self.data if (fault := self._fault(name))}
        if errors:
            raise ValidationError(errors)
        return bool(super().is_valid())

    def _fault(self, name: str) -> str:
        if name in PAGING:
            return ""
        if name not in self.filters:
            return "there is no such filter"
        values = self.data.getlist(name)
        if len(values) > 1 and not isinstance(self.filters[name], filters.MultipleChoiceFilter):
            return "may be given only once"
        return "" if all(value.strip() for value in values) else "must not be empty"


class Moment(filters.IsoDateTimeFilter):  # type: ignore[misc]
    """A time in UTC: PostgreSQL refuses offsets of 16 hours and more, which ISO 8601 allows."""

    def filter(self, rows: Any, value: datetime | None) -> Any:
        if value is not None:
            try:
                value = value.astimezone(UTC)
            except OverflowError:  # within a day of the first or the last year there is
                value = value.replace(tzinfo=UTC)
        return super().filter(rows, value)


def _since(field: str) -> Any:
    return Moment(field_name=field, lookup_expr="gte", label="At or after.")


def _before(field: str) -> Any:
    return Moment(field_name=field, lookup_expr="lt", label="Before.")


@extend_schema_field({"type": "boolean"})
class Flag(filters.TypedChoiceFilter):  # type: ignore[misc]
    """``true`` or ``false``; the library's own takes anything else for no filter at all."""

    def __init__(self, **options: Any) -> None:
        choices = [("true", "true"), ("false", "false")]
        super().__init__(choices=choices, coerce=lambda text: text == "true", **options)


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


class SpreadFilter(StrictFilterSet):
    symbol = filters.CharFilter()
    is_enabled = Flag()


class PositionFilter(StrictFilterSet):
    account = filters.CharFilter(field_name="account__name")
    symbol = filters.CharFilter()
    is_open = Flag(field_name="quantity", method="filter_open", label="Whether anything is held.")

    def filter_open(self, rows: Any, _name: str, is_open: bool) -> Any:
        return rows.exclude(quantity=0) if is_open else rows.filter(quantity=0)


class AccountFilter(StrictFilterSet):
    broker = filters.CharFilter()
    environment = filters.ChoiceFilter(choices=[(one.value, one.value) for one in Environment])
    is_active = Flag()


class StrategyFilter(StrictFilterSet):
    account = filters.CharFilter(field_name="routes__account__name")
    auth = filters.ChoiceFilter(choices=Strategy.Auth.choices)
    is_enabled = Flag()


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


class ProposalFilter(StrictFilterSet):
    state = filters.ChoiceFilter(choices=Proposal.State.choices)
    kind = filters.CharFilter()
    proposed_by = filters.CharFilter()


class AuditFilter(StrictFilterSet):
    kind = filters.CharFilter()
    actor = filters.CharFilter()
    subject = filters.CharFilter()
    correlation_id = filters.CharFilter()
    since = _since("at")
    before = _before("at")
