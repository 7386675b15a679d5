"""What the REST API takes: strict JSON, exact decimals, no field it does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

from brokers.types import OrderType, TimeInForce
from execution.alerts import Action, Alert, TakeProfit
from execution.halting import Mode
from execution.locating import located
from execution.models import SideChoices, TimeInForceChoices
from execution.parsing import Unreadable, decimal_from, parse_object
from risk.models import TradingState
from risk.types import QuantityType

HUNDRED = Decimal(100)
_MODE_OF = {
    TradingState.State.HALTED.value: Mode.HALT.value,
    TradingState.State.REDUCING.value: Mode.REDUCE_ONLY.value,
    TradingState.State.ACTIVE.value: Mode.RESUME.value,
}
NOT_JSON = frozenset({"NOT_UTF8", "NOT_JSON", "NOT_AN_OBJECT", "DUPLICATE_KEY"})
PLAIN_DECIMAL = r"^(?=.*[1-9])[0-9]{1,10}(\.[0-9]{1,18})?$"
TYPES = (OrderType.MARKET, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT)


class TooLarge(APIException):
    status_code = 413
    default_code = "TOO_LARGE"
    default_detail = f"the body is larger than {settings.MAX_BODY_BYTES} bytes"


class OutOfBounds(APIException):
    """Sound JSON with a value no order can carry; the code says which."""

    status_code = 422


class StrictJSONParser(BaseParser):
    """A JSON object with exact numbers, under the bounds webhooks have."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        body = stream.read(settings.MAX_BODY_BYTES + 1)
        if len(body) > settings.MAX_BODY_BYTES:
            raise TooLarge
        try:
            return parse_object(body, decimal_from)
        except Unreadable as error:
            kind = ParseError if error.code in NOT_JSON else OutOfBounds
            raise kind(located(error, body).detail, error.code) from error


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know: a misspelt ``stop_price`` must not be dropped silently."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(data.keys() - self.fields.keys())
            if unknown:
                raise serializers.ValidationError(
                    {name: ["there is no such field"] for name in unknown}
                )
        return super().to_internal_value(data)


@extend_schema_field(
    {
        "description": "Greater than zero, as a decimal string or a number; exact to 18 decimals.",
        "anyOf": [
            {"type": "string", "pattern": PLAIN_DECIMAL},
            {"type": "number", "exclusiveMinimum": 0},
        ],
    }
)
class PositiveDecimal(serializers.Field[Decimal, Any, str, Any]):
    """A number above zero: at most 28 digits, exact up to 18 of them after the point."""

    def to_internal_value(self, data: Any) -> Decimal:
        if isinstance(data, str) and re.fullmatch(PLAIN_DECIMAL, data):
            return Decimal(data)
        if not isinstance(data, Decimal):
            raise serializers.ValidationError("must be a number above zero, such as 0.001")
        if data <= 0:
            raise serializers.ValidationError("must be greater than zero")
        return data

    def to_representation(self, value: Any) -> str:
        return str(value)


class Flag(serializers.BooleanField):
    """``true`` or ``false``, and nothing that only resembles them."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


def _reason(*, required: bool) -> Any:
    return serializers.RegexField(
        r"\S", max_length=500, required=required, help_text="Why, for the audit trail."
    )


def _choice(values: Any, **options: Any) -> Any:
    return serializers.ChoiceField(choices=[(one.value, one.value) for one in values], **options)


class NewOrderSerializer(StrictSerializer):
    """An order an operator places by hand."""

    account = serializers.SlugField(max_length=63, help_text="The account's name.")
    symbol = serializers.RegexField(r"^[A-Za-z0-9][A-Za-z0-9:/._!-]{0,59}$", trim_whitespace=False)
    side = serializers.ChoiceField(choices=SideChoices.choices)
    type = _choice(TYPES, default=OrderType.MARKET.value)
    quantity = PositiveDecimal(
        required=False, help_text="May be left out only with `reduce_only`: the whole position."
    )
    quantity_type = _choice(QuantityType, default=QuantityType.BASE.value)
    price = PositiveDecimal(required=False)
    stop_price = PositiveDecimal(required=False)
    stop_loss = PositiveDecimal(required=False)
    take_profit = PositiveDecimal(required=False)
    time_in_force = serializers.ChoiceField(
        choices=TimeInForceChoices.choices, default=TimeInForce.GTC.value
    )
    post_only = Flag(default=False)
    reduce_only = Flag(default=False)
    reason = _reason(required=False)

    def to_alert(self) -> Alert:
        """The order as the pipeline reads it; valid data only."""
        given = self.validated_data
        target = given.get("take_profit")
        return Alert(
            account=given["account"],
            symbol=given["symbol"],
            action=Action(given["side"]),
            order_type=OrderType(given["type"]),
            quantity=given.get("quantity"),
            quantity_type=QuantityType(given["quantity_type"]),
            price=given.get("price"),
            stop_price=given.get("stop_price"),
            stop_loss=given.get("stop_loss"),
            take_profit=(TakeProfit(target, HUNDRED),) if target else (),
            time_in_force=TimeInForce(given["time_in_force"]),
            post_only=given["post_only"],
            reduce_only=given["reduce_only"],
        )


class ReasonSerializer(StrictSerializer):
    """Why an operator does something."""

    reason = _reason(required=True)


class OptionalReasonSerializer(StrictSerializer):
    """Why an operator does something, if there is something to say."""

    reason = _reason(required=False)


class AmendSerializer(StrictSerializer):
    """What a limit order is to become; what is left out stays."""

    price = PositiveDecimal(required=False)
    quantity = PositiveDecimal(
        required=False, help_text="In all: what has traded counts toward it."
    )
    reason = _reason(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs.keys() & {"price", "quantity"}:
            raise OutOfBounds("give a price, a quantity or both", "NOTHING_TO_AMEND")
        return attrs


class TradingStateChangeSerializer(StrictSerializer):
    """Press the kill switch of everything, or of one account, strategy, venue or symbol.

    Either `mode`, or `state`, which is the mode of that name without cancelling anything.
    """

    mode = _choice(Mode, required=False)
    state = serializers.ChoiceField(choices=TradingState.State.choices, required=False)
    scope = serializers.ChoiceField(
        choices=TradingState.Scope.choices, default=TradingState.Scope.GLOBAL.value
    )
    key = serializers.CharField(
        max_length=63, default="", allow_blank=True, help_text="The name of what it is for."
    )
    reason = _reason(required=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        state = attrs.pop("state", None)
        if ("mode" in attrs) == (state is not None):
            raise OutOfBounds("give either mode or state", "MODE_OR_STATE")
        return {"mode": _MODE_OF.get(state, attrs.get("mode"))} | attrs
