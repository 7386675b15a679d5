"""The routes of a strategy, on its page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import QuerySet
from django.forms import BaseInlineFormSet
from django.http import HttpRequest

from brokers import access
from brokers.admin.base import OwnChoices
from brokers.admin.unfolded import TabularInline
from execution.models import Route, Strategy
from execution.models.routes import refuse_mixed

if TYPE_CHECKING:
    _Routes = BaseInlineFormSet[Route, Strategy, Any]
else:
    _Routes = BaseInlineFormSet


class RouteFormSet(_Routes):
    """The routes as they will be, judged together; those the user does not see stay as they are."""

    def clean(self) -> None:
        super().clean()
        shown = [form.instance for form in self.forms if form not in self.deleted_forms]
        own = Route.objects.filter(strategy=self.instance.pk)
        hidden = own.exclude(pk__in=[form.instance.pk for form in self.initial_forms])
        refuse_mixed([*shown, *hidden])


class RouteInline(OwnChoices, TabularInline):
    model = Route
    formset = RouteFormSet
    fields = (
        "account", "is_enabled", "group", "sizing", "quantity", "percent", "atr_multiple", "execution",
        "exit_execution",
    )  # fmt: skip
    extra = 0
    hide_title = True
    verbose_name_plural = "routes: where its orders go, and how large they are"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Route]:
        rows: QuerySet[Route] = super().get_queryset(request)
        return access.seen(request.user, rows)
