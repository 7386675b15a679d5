"""A page that asks for a reason before something is done. It also opens as a dialog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from django import forms
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.decorators import action
from unfold.enums import ActionVariant

from risk.admin.audited import reason_field

_View = TypeVar("_View", bound=Callable[..., HttpResponse])


class ReasonForm(forms.Form):
    """Subclasses put their own questions before the reason."""

    reason = reason_field(autofocus="")


@dataclass(frozen=True, slots=True)
class Question:
    """What the page says. ``back`` is where the operator goes who thinks better of it."""

    title: str
    text: str
    button: str
    back: str
    is_dangerous: bool = True


def ask(request: HttpRequest, site: Any, form: forms.Form, question: Question) -> TemplateResponse:
    """The page with ``form``; it posts to its own address."""
    request.current_app = site.name
    context = {
        **site.each_context(request),
        "title": question.title,
        "question": question,
        "form": form,
    }
    return TemplateResponse(request, "fks/confirm.html", context)


def asking_action(
    *, description: str, icon: str, permission: str, danger: bool = True
) -> Callable[[_View], _View]:
    """Decorate an admin action that answers with ``ask``: links to it open it as a dialog."""
    decorate = action(
        description=description,
        icon=icon,
        permissions=[permission],
        variant=ActionVariant.DANGER if danger else ActionVariant.DEFAULT,
    )

    def decorator(function: _View) -> _View:
        decorated = decorate(function)
        decorated.dialog = {"title": description}
        return cast("_View", decorated)

    return decorator
