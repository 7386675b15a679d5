"""What the admins of all floors share: rows of one's own accounts only, pages that only show, and
forms that write what they changed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib.admin import FieldListFilter, RelatedFieldListFilter, ShowFacets
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import models
from django.forms import ModelForm
from django.http import Http404, HttpRequest
from unfold.paginator import InfinitePaginator

from brokers import access
from brokers.admin.paging import NewestFirst
from brokers.admin.unfolded import ModelAdmin

NOT_YOURS = "This is not of the accounts you work with, or not of them alone."


class OwnChoices:
    """For admins and inlines: a choice among rows is one among those the user sees."""

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if access.is_restricted(request.user):
            rows = db_field.related_model._default_manager.all()
            kwargs["queryset"] = access.seen(request.user, rows)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]


class SeenFilter(RelatedFieldListFilter):
    """The filter beside a list names only rows the user sees."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        choices = super().field_choices(field, request, model_admin)
        if not access.is_restricted(request.user):
            return choices
        rows = access.seen(request.user, field.related_model._default_manager.all())
        mine = set(rows.values_list("pk", flat=True))
        return [choice for choice in choices if choice[0] in mine]


FieldListFilter.register(
    lambda field: isinstance(field, models.ForeignKey), SeenFilter, take_priority=True
)


class AccountBoundAdmin(OwnChoices, ModelAdmin):
    """Shows, changes and acts on what belongs to the accounts its user works with."""

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows: models.QuerySet[Any] = super().get_queryset(request)
        return access.seen(request.user, rows)

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """The row; for who is restricted, what is not theirs does not exist."""
        row = super().get_object(request, object_id, from_field)
        if row is None and access.is_restricted(request.user):
            raise Http404
        return row

    def row_to_act_on(self, request: HttpRequest, object_id: str) -> Any:
        """The row an action is for. Raises Http404, or PermissionDenied where it is others' too."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        if not access.may_change(request.user, row):
            raise PermissionDenied(NOT_YOURS)
        return row

    def is_mine(self, request: HttpRequest, object_id: Any) -> bool:
        """Whether an action may be offered for this row, as far as accounts go."""
        if object_id is None or not access.is_restricted(request.user):
            return True
        row = self.get_object(request, unquote(str(object_id)))
        return access.may_change(request.user, row)

    def refusal(self, request: HttpRequest, action: str, row: Any) -> str:
        """Why ``action`` cannot be done on ``row`` as it is now, in a few words; empty where it can.

        Menus show it beside the action; the row's own page leaves such an action out. The action itself
        looks again: the row may have moved on since it was shown.
        """
        return ""

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """The list, which its rows' menus ask for refusals."""
        shown = super().get_changelist_instance(request)
        vars(shown)["refusal"] = partial(self.refusal, request)
        return shown

    def allows(self, request: HttpRequest, action: str, object_id: Any) -> bool:
        """Whether the state of a row lets ``action`` be offered: always before a row is named, and when
        the answer of its dialog comes back, which the action then judges itself.
        """
        if object_id is None or request.method == "POST":
            return True
        row = self.get_object(request, unquote(str(object_id)))
        return row is not None and not self.refusal(request, action, row)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if access.is_hidden(request.user, self.model):
            return False
        return bool(super().has_view_permission(request, obj))

    def has_add_permission(self, request: HttpRequest) -> bool:
        may = access.may_add(request.user, self.model)
        return may and bool(super().has_add_permission(request))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if not super().has_change_permission(request, obj):
            return False
        return self._may_change(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if not super().has_delete_permission(request, obj):
            return False
        return self._may_change(request, obj)

    def _may_change(self, request: HttpRequest, obj: Any) -> bool:
        if obj is None:
            return not access.is_hidden(request.user, self.model)
        return access.may_change(request.user, obj)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """What was saved must be the user's still: else nothing of it is kept."""
        super().save_related(request, form, formsets, change)
        if not access.may_change(request.user, form.instance):
            raise PermissionDenied(NOT_YOURS)


class ReadOnlyAdmin(AccountBoundAdmin):
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


class CarefulAdmin(AccountBoundAdmin):
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
