"""What the REST API shows. Numbers are decimal strings; secrets have no field here."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar, TypeVar

from django.db import models
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from brokers.access import reach_of
from brokers.decimals import decimal_text
from brokers.models import Account
from execution import flatten
from execution.models import (
    Fill,
    Order,
    OrderEvent,
    Position,
    Route,
    RoutingDecision,
    Signal,
    SpreadWatch,
    Strategy,
)
from risk.models import AuditEvent, CircuitBreaker, Proposal, RiskLimit, TradingState

Model = TypeVar("Model", bound=models.Model)


class DecimalText(serializers.DecimalField):
    """A decimal as fixed-point text: no exponent, no trailing zeros."""

    def to_representation(self, value: Decimal | str) -> str:
        return decimal_text(Decimal(value))


class Row(serializers.ModelSerializer[Model]):
    """A row as it is shown, all columns read-only; its money columns are ``DecimalText``."""

    serializer_field_mapping: ClassVar[dict[Any, Any]] = {
        **serializers.ModelSerializer.serializer_field_mapping,
        models.DecimalField: DecimalText,
    }

    def get_extra_kwargs(self) -> dict[str, Any]:
        return {name: {"read_only": True} for name in self.Meta.fields}


@extend_schema_field({"type": ["object", "null"], "additionalProperties": True})
class JsonObject(serializers.JSONField):
    """A JSON object, or null."""


def name_of(*, slug: str = "name", **options: Any) -> Any:
    """A related row shown by its name."""
    return serializers.SlugRelatedField[Any](slug_field=slug, read_only=True, **options)


class FillSerializer(Row[Fill]):
    account = name_of()

    class Meta:
        model = Fill
        fields = (
            "id", "account", "order", "trade_id", "symbol", "side", "quantity", "price", "fee",
            "fee_currency", "fee_value", "realised_pnl", "at", "recorded_at",
        )  # fmt: skip


class OrderSerializer(Row[Order]):
    account = name_of()
    strategy = name_of(slug="slug", allow_null=True)

    class Meta:
        model = Order
        fields: tuple[str, ...] = (
            "id", "signal", "strategy", "account", "parent", "slice_number", "symbol", "side",
            "type", "role", "quantity", "price", "stop_price", "trailing_percent",
            "time_in_force", "post_only", "reduce_only", "reference_price", "reserved_value",
            "state", "reason", "detail", "client_order_id", "broker_order_id", "filled_quantity",
            "average_price", "attempt", "created_at", "submitted_at", "acknowledged_at",
            "finished_at", "expires_at", "approve_by", "updated_at",
        )  # fmt: skip


class OrderEventSerializer(Row[OrderEvent]):
    class Meta:
        model = OrderEvent
        fields = ("at", "event", "from_state", "to_state", "attempt", "actor", "detail")


class VerdictSerializer(serializers.Serializer[dict[str, Any]]):
    """One rule's answer with its numbers."""

    rule = serializers.CharField()
    passed = serializers.BooleanField()
    mode = serializers.CharField()
    code = serializers.CharField(allow_blank=True)
    detail = serializers.CharField()
    numbers = serializers.DictField(child=serializers.CharField())


class SizingStepSerializer(serializers.Serializer[dict[str, Any]]):
    """One line of the size arithmetic."""

    label = serializers.CharField()  # type: ignore[assignment]  # Field.label is something else
    formula = serializers.CharField()
    result = serializers.CharField()


class OrderDetailSerializer(OrderSerializer):
    """An order with why it is as large as it is, what risk said, and its journal."""

    verdicts = VerdictSerializer(many=True, read_only=True)
    sizing = SizingStepSerializer(many=True, read_only=True)
    journal = OrderEventSerializer(many=True, read_only=True)
    fills = FillSerializer(many=True, read_only=True)

    class Meta(OrderSerializer.Meta):
        fields = (*OrderSerializer.Meta.fields, "verdicts", "sizing", "journal", "fills")


class SignalSerializer(Row[Signal]):
    strategy = name_of(slug="slug")
    alert = serializers.DictField(read_only=True)

    class Meta:
        model = Signal
        fields: tuple[str, ...] = (
            "id", "strategy", "received_at", "sent_at", "address", "auth", "symbol", "action",
            "alert", "state", "reason", "detail", "decided_at", "finished_at",
        )  # fmt: skip


class CandidateSerializer(serializers.Serializer[dict[str, Any]]):
    """What one account of a group would have traded at, or why it was left out (``code``, ``why``)."""

    account = serializers.CharField()
    venue = serializers.CharField()
    code = serializers.CharField(required=False)
    why = serializers.CharField(required=False)
    symbol = serializers.CharField(required=False)
    quantity = serializers.CharField(required=False)
    best = serializers.CharField(required=False)
    price = serializers.CharField(required=False)
    fee_rate = serializers.CharField(required=False)
    net = serializers.CharField(required=False)


class RoutingDecisionSerializer(Row[RoutingDecision]):
    """Where the alert went within one group of routes, the accounts compared best first."""

    candidates = CandidateSerializer(many=True, read_only=True)

    class Meta:
        model = RoutingDecision
        fields = ("group", "reason", "detail", "candidates", "at")


class SignalDetailSerializer(SignalSerializer):
    """A signal with the orders it led to, and why they went to their accounts."""

    orders = OrderSerializer(many=True, read_only=True)
    routing = RoutingDecisionSerializer(many=True, read_only=True)

    class Meta(SignalSerializer.Meta):
        fields = (*SignalSerializer.Meta.fields, "orders", "routing")


class PositionSerializer(Row[Position]):
    account = name_of()

    class Meta:
        model = Position
        fields = (
            "id", "account", "symbol", "quantity", "average_price", "realised_pnl", "fees",
            "updated_at",
        )  # fmt: skip


class BalanceSerializer(serializers.Serializer[dict[str, Any]]):
    total = serializers.CharField()
    free = serializers.CharField()


class AccountSerializer(Row[Account]):
    """An account without its options and credentials."""

    venue = serializers.CharField(read_only=True)
    balances = serializers.DictField(child=BalanceSerializer(), read_only=True)

    class Meta:
        model = Account
        fields = (
            "name", "broker", "venue", "environment", "quote_currency", "is_active", "balances",
            "balances_at", "reconciled_at", "created_at",
        )  # fmt: skip


class RouteSerializer(Row[Route]):
    account = name_of()

    class Meta:
        model = Route
        fields = ("account", "is_enabled", "group", "sizing", "quantity", "percent", "atr_multiple")


class StrategySerializer(Row[Strategy]):
    """A strategy without its secrets."""

    allowlist = name_of(allow_null=True)
    routes = RouteSerializer(many=True, read_only=True)

    class Meta:
        model = Strategy
        fields = (
            "slug", "note", "is_enabled", "auth", "format", "format_options", "allowlist",
            "max_age", "max_drift", "allows_delayed", "dedupe_window",
            "min_confidence", "requires_confidence", "min_reward_risk",
            "requires_reward_risk", "on_naked", "needs_approval", "approval_seconds",
            "exits_need_approval", "routes", "created_at",
        )  # fmt: skip


class QuoteSerializer(serializers.Serializer[dict[str, Any]]):
    """One account's quote, with what a unit costs and brings there after the taker's fee; or why there
    is none (``code``, ``why``).
    """

    account = serializers.CharField()
    code = serializers.CharField(required=False)
    why = serializers.CharField(required=False)
    bid = serializers.CharField(required=False)
    ask = serializers.CharField(required=False)
    taker_fee = serializers.CharField(required=False)
    buys_at = serializers.CharField(required=False)
    sells_at = serializers.CharField(required=False)
    at = serializers.DateTimeField(required=False)


class SpreadSerializer(Row[SpreadWatch]):
    """The gap between accounts after fees, as last seen. ``net`` is a fraction: 0.002 is 0.2 %."""

    quotes = QuoteSerializer(many=True, read_only=True)

    class Meta:
        model = SpreadWatch
        fields = (
            "id", "symbol", "is_enabled", "threshold", "every", "net", "buy_on", "sell_on",
            "looked_at", "told_at", "quotes",
        )  # fmt: skip


class BreakerSerializer(Row[CircuitBreaker]):
    """Of an account, or of a venue with all its accounts; ``name`` is how to address it."""

    name = serializers.CharField(read_only=True)
    account = name_of(allow_null=True)

    class Meta:
        model = CircuitBreaker
        fields = (
            "name", "account", "venue", "state", "failures", "successes", "failure_threshold",
            "success_threshold", "open_seconds", "opened_at", "last_error",
        )  # fmt: skip


class LimitSerializer(Row[RiskLimit]):
    """A limit and its scope; an empty scope is everything."""

    account = name_of(source="policy.account", allow_null=True)
    strategy = serializers.CharField(source="policy.strategy", read_only=True)
    symbol = serializers.CharField(source="policy.symbol", read_only=True)
    parameters = serializers.DictField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = RiskLimit
        fields = (
            "id", "rule", "value", "parameters", "mode", "account", "strategy", "symbol",
            "updated_at",
        )  # fmt: skip


class LeftSerializer(serializers.Serializer[Any]):
    """What a switch still has to get rid of: ids of orders to cancel, positions to close."""

    orders = serializers.ListField(child=serializers.UUIDField())
    positions = serializers.ListField(child=serializers.CharField())


class TradingStateSerializer(Row[TradingState]):
    left = serializers.SerializerMethodField()

    class Meta:
        model = TradingState
        fields = (
            "scope", "key", "state", "flatten", "left", "generation", "reason", "changed_by",
            "changed_at",
        )  # fmt: skip

    @extend_schema_field(LeftSerializer)
    def get_left(self, row: TradingState) -> dict[str, list[str]]:
        left, reach = flatten.left_of(row), reach_of(self.context["request"].user)

        def is_seen(one: Order | Position) -> bool:
            return reach is None or one.account_id in reach.ids

        return {
            "orders": [str(one.pk) for one in left.orders if is_seen(one)],
            "positions": [str(one) for one in left.positions if is_seen(one)],
        }


class AuditEventSerializer(Row[AuditEvent]):
    before = JsonObject(read_only=True)
    after = JsonObject(read_only=True)

    class Meta:
        model = AuditEvent
        fields = (
            "id", "at", "kind", "actor", "address", "correlation_id", "subject", "before",
            "after", "reason",
        )  # fmt: skip


class ProposalSerializer(Row[Proposal]):
    before = JsonObject(read_only=True)
    after = JsonObject(read_only=True)

    class Meta:
        model = Proposal
        fields = (
            "id", "kind", "subject", "state", "before", "after", "reason", "proposed_by",
            "proposed_at", "expires_at", "decided_by", "decided_at", "note",
        )  # fmt: skip


class ProposedSerializer(serializers.Serializer[dict[str, Any]]):
    """A change that waits for another person."""

    status = serializers.CharField(default="proposed")
    proposal_id = serializers.UUIDField()


class AcceptedSerializer(serializers.Serializer[dict[str, Any]]):
    """Stored, and not decided yet."""

    status = serializers.CharField()
    signal_id = serializers.UUIDField()
