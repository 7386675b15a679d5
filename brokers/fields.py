"""Database fields shared by all floors."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import models

from brokers.decimals import plain

_ST = TypeVar("_ST", contravariant=True)
_GT = TypeVar("_GT", covariant=True)

if TYPE_CHECKING:

    class _DecimalField(models.DecimalField[_ST, _GT]):
        pass
else:

    class _DecimalField(models.DecimalField):
        """Django's field is generic only in its type stubs."""

        def __class_getitem__(cls, _: Any) -> type:
            return cls


class MoneyField(_DecimalField[_ST, _GT]):
    """A price, quantity or amount: 38 digits, 18 of them after the point.

    Wide enough that no venue's number is ever rounded by the database: callers quantise explicitly,
    toward less risk, before saving.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_digits"] = 38
        kwargs["decimal_places"] = 18
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        name, path, args, kwargs = super().deconstruct()
        del kwargs["max_digits"], kwargs["decimal_places"]
        return name, path, list(args), kwargs

    def from_db_value(self, value: Decimal | None, *_: Any) -> Decimal | None:
        """Trailing zeros of the column's scale dropped, never in exponent notation."""
        return None if value is None else plain(value)
