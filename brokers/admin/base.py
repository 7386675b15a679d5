"""What the admins of all floors share: pages that only show, and forms that write what they
changed.
"""

from __future__ import annotations

from typing import Any

from django.contrib.admin import ShowFacets
from django.db import models
from django.forms import ModelForm
from django.http import HttpRequest
from unfold.paginator import InfinitePaginator

from brokers.admin.paging import NewestFirst
from brokers.admin.unfolded import ModelAdmin


class ReadOnlyAdmin(ModelAdmin):
    """Shows rows and lets nobody add, change or delete them. Lists never count the whole table.

    What only grows, and is therefore ordered by ``-id``, comes in pages by key.
    """

    actions = None
    paginator = InfinitePaginator
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    list_per_page = 50
    list_fullwidth = True
    sortable_by = ()
    empty_value_display = "–"
    nothing_yet = "Nothing is here yet."
    list_defer: tuple[str, ...] = ()
    """Large columns no list shows."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        if list(self.ordering or self.model._meta.ordering) == ["-id"]:
            return NewestFirst
        return super().get_changelist(request, **kwargs)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


class CarefulAdmin(ModelAdmin):
    """Writes only the columns a form changed, so that what workers wrote meanwhile stays."""

    actions = None
    empty_value_display = "–"
    list_fullwidth = True
    nothing_yet = "Nothing is here yet: add the first one."

    def save_model(
        self, request: HttpRequest, obj: models.Model, form: ModelForm[Any], change: bool
    ) -> None:
        columns = changed_columns(obj, form)
        if not change:
            obj.save()
        elif columns:
            obj.save(update_fields=columns)


def changed_columns(obj: models.Model, form: ModelForm[Any]) -> list[str]:
    """The columns of ``obj`` that the form's user changed."""
    known = {field.name for field in obj._meta.concrete_fields}
    return [name for name in form.changed_data if name in known]
