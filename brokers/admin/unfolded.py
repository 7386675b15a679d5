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
    from unfold.admin import ModelAdmin, TabularInline
    from unfold.decorators import action, display

__all__ = ["ModelAdmin", "TabularInline", "action", "display"]
