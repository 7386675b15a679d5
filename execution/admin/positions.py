"""Positions: what the fills add up to."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.db.models import OuterRef, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import EMPTY, average_column, moment_column, money, number_column
from brokers.fields import MoneyField
from brokers.models import Instrument
from brokers.types import Environment
from execution.fee_values import Fee, assets, in_words, not_counted
from execution.marks import is_recent
from execution.models import Fill, FundingPayment, Position

NOT_KNOWN = "not known"
_COLUMNS = (
    "symbol",
    "account",
    "direction",
    number_column("quantity"),
    average_column("average_price"),
    number_column("realised_pnl", "realised P&L", signed=True),
    number_column("fees"),
    number_column("funding", signed=True),
    "unrealised",
    moment_column("updated_at", "updated"),
)


class OpenFilter(SimpleListFilter):
    title = "holding"
    parameter_name = "holding"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "open"), ("flat", "flat")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "open":
                return queryset.exclude(quantity=0)
            case "flat":
                return queryset.filter(quantity=0)
        return queryset


@admin.register(Position)
class PositionAdmin(ReadOnlyAdmin):
    list_display = _COLUMNS
    list_filter = (OpenFilter, "account")
    list_select_related = ("account",)
    nothing_yet = "What fills add up to appears here."
    search_fields = ("symbol", "account__name")
    fields = (*_COLUMNS, "fees_not_counted", "orders_link")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        here = {"account": OuterRef("account"), "symbol": OuterRef("symbol")}
        paid = FundingPayment.objects.filter(**here).order_by().values("account")
        total = Subquery(paid.annotate(total=Sum("amount")).values("total"))
        nothing = Value(Decimal(0), output_field=MoneyField())
        priced = Instrument.objects.filter(**here)
        rows = (
            super()
            .get_queryset(request)
            .annotate(
                funding=Coalesce(total, nothing),
                last_price=Subquery(priced.values("last_price")[:1]),
                last_price_at=Subquery(priced.values("last_price_at")[:1]),
            )
        )
        return cast("QuerySet[Any]", rows)

    @display(description="direction")
    def direction(self, position: Position) -> str:
        if not position.quantity:
            return "flat"
        return "long" if position.quantity > 0 else "short"

    @display(description="unrealised P&L")
    def unrealised(self, position: Any) -> SafeString | str:
        """At the latest price FKS knows, if it is not too old."""
        if not position.quantity:
            return EMPTY
        price, at = position.last_price, position.last_price_at
        if price is None or at is None or position.average_price is None:
            return NOT_KNOWN
        rehearses = position.account.environment == Environment.DRY_RUN
        if not rehearses and not is_recent(at, timezone.now()):
            return NOT_KNOWN
        return money(position.quantity * (price - position.average_price))

    @display(description="fees not counted")
    def fees_not_counted(self, position: Position) -> str:
        """In a third coin of which FKS never saw a price."""
        mine = Fill.objects.filter(
            account=position.account_id, symbol=position.symbol, fee_value=None
        )
        taken = mine.exclude(fee=0).exclude(fee_currency__in=assets(position.symbol))
        sums = taken.order_by().values_list("fee_currency").annotate(Sum("fee"))
        fees = (Fee(position.symbol, Decimal(0), fee, coin, None) for coin, fee in sums)
        return in_words(not_counted(fees)) or "none"

    @display(description="orders")
    def orders_link(self, position: Position) -> SafeString:
        address = reverse(
            "admin:execution_order_changelist",
            query={"q": position.symbol, "account__id__exact": position.account_id},
        )
        return format_html('<a class="fks-link" href="{}">orders of this position</a>', address)
