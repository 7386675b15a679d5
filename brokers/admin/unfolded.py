"""Unfold's classes with types: its package has none, and every admin here is built on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from django.contrib import admin

    _Function = TypeVar("_Function", bound=Callable[..., Any])

    class ModelAdmin(admin.ModelAdmin[Any]): ...

    class TabularInline(admin.TabularInline[Any, Any]): ...

    def display(
        *, description: str, label: Mapping[Any, str] | None = None
    ) -> Callable[[_Function], _Function]: ...

    def action(
        *, description: str, icon: str, permissions: list[str]
    ) -> Callable[[_Function], _Function]: ...

else:
    from unfold.admin import ModelAdmin
    from unfold.admin import TabularInline as UnfoldTabularInline
    from unfold.decorators import action, display

    class TabularInline(UnfoldTabularInline):
        """Its cells have no labels of their own: the column's name is read out instead."""

        def get_formset(self, request: Any, obj: Any = None, **kwargs: Any) -> Any:
            formset = super().get_formset(request, obj, **kwargs)
            for name, field in formset.form.base_fields.items():
                widget = getattr(field.widget, "widget", field.widget)
                widget.attrs.setdefault("aria-label", str(field.label or name))
            return formset


__all__ = ["ModelAdmin", "TabularInline", "action", "display"]
