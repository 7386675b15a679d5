"""Which trades and orders a report is about."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

from django import forms
from django.db.models import Exists, Model, OuterRef, QuerySet
from django.http import QueryDict
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from brokers import access
from brokers.models import Account
from execution.ids import first_id_at
from execution.models import Fill, FundingPayment, Order, Strategy

PERIODS = {"1": "24 hours", "7": "7 days", "30": "30 days", "90": "90 days", "all": "All"}
USUAL = "30"
_M = TypeVar("_M", bound=Model)


class TradeFilter(forms.Form):
    """Whatever is not chosen is everything the user sees."""

    days = forms.ChoiceField(
        label="Period", choices=list(PERIODS.items()), widget=UnfoldAdminSelectWidget()
    )
    account = forms.ModelChoiceField(
        Account.objects.all(),
        required=False,
        to_field_name="name",
        empty_label="All accounts",
        widget=UnfoldAdminSelectWidget(),
    )
    strategy = forms.ModelChoiceField(
        Strategy.objects.all(),
        required=False,
        to_field_name="slug",
        empty_label="All strategies",
        widget=UnfoldAdminSelectWidget(),
    )
    symbol = forms.CharField(
        required=False,
        max_length=60,
        widget=UnfoldAdminTextInputWidget({"placeholder": "BTC/USDT"}),
    )

    def __init__(self, user: Any, data: dict[str, Any]) -> None:
        super().__init__(data)
        self.user = user
        rows: dict[str, QuerySet[Any]] = {
            "account": Account.objects.all(),
            "strategy": Strategy.objects.all(),
        }
        for name, all_rows in rows.items():
            choice = self.fields[name]
            assert isinstance(choice, forms.ModelChoiceField)  # noqa: S101  (for the type checker)
            choice.queryset = access.seen(user, all_rows)

    @classmethod
    def of(cls, query: QueryDict, user: Any) -> Self:
        """The filter a page's address asks for; an address nobody can mean asks for the usual."""
        form = cls(user, {"days": USUAL, **query.dict()})
        if not form.is_valid():
            form = cls(user, {"days": USUAL})
            form.full_clean()
        return form

    def fills(self) -> QuerySet[Fill]:
        """Those booked in the period."""
        return self.chosen(self._booked(), "order__strategy")

    def fills_beside(self) -> QuerySet[Fill]:
        """Those of the period, and what others traded beside a strategy that is chosen: its part of a
        position ends with the whole.
        """
        if not self.cleaned_data["strategy"]:
            return self.fills()
        own = self.fills().filter(account=OuterRef("account"), symbol=OuterRef("symbol"))
        return self.chosen(self._booked()).filter(Exists(own))

    def _booked(self) -> QuerySet[Fill]:
        since = self.since()
        return Fill.objects.filter(recorded_at__gte=since) if since else Fill.objects.all()

    def funding(self) -> QuerySet[FundingPayment]:
        """Payments made in the period."""
        since = self.since()
        rows = FundingPayment.objects.all()
        return self.chosen(rows.filter(at__gte=since) if since else rows, "strategy")

    def orders(self) -> QuerySet[Order]:
        """Those made in the period."""
        since = self.since()
        orders = Order.objects.filter(pk__gte=first_id_at(since)) if since else Order.objects.all()
        return self.chosen(orders, "strategy")

    def accounts(self) -> QuerySet[Account]:
        """The account that is chosen, or all."""
        account = self.cleaned_data["account"]
        rows = access.seen(self.user, Account.objects.all())
        return rows.filter(pk=account.pk) if account else rows

    def chosen(self, rows: QuerySet[_M], strategy: str = "") -> QuerySet[_M]:
        """``rows`` of the account and symbol, and of the strategy (found by the path ``strategy``)."""
        data, rows = self.cleaned_data, access.seen(self.user, rows)
        wanted: dict[str, Any] = {
            "account": data["account"],
            "symbol": data["symbol"].strip().upper(),
            **({strategy: data["strategy"]} if strategy else {}),
        }
        return rows.filter(**{name: value for name, value in wanted.items() if value})

    def since(self) -> datetime | None:
        """When the period began; ``None`` for all there is."""
        days = self.cleaned_data["days"]
        return None if days == "all" else timezone.now() - timedelta(days=int(days))
