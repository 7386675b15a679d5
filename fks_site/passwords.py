"""Setting a password in the admin, one's own or another's: it ends what the old one had opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.auth.views import PasswordChangeView
from django.db import transaction
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from unfold.forms import AdminOwnPasswordChangeForm, AdminPasswordChangeForm

from risk import sign_out

if TYPE_CHECKING:
    from django.contrib.auth.forms import SetPasswordForm

    _Form = SetPasswordForm[User]
else:
    _Form = object


class _Ending(_Form):
    @transaction.atomic
    def save(self, commit: bool = True) -> User:
        user = super().save(commit)
        sign_out.password_changed(user)
        return user


class OwnPasswordForm(_Ending, AdminOwnPasswordChangeForm):  # type: ignore[misc]
    """A person's own, who gives the old one."""


class PasswordForm(_Ending, AdminPasswordChangeForm):  # type: ignore[misc]
    """Somebody else's; it may be disabled as well."""


def change_own(
    request: HttpRequest, extra_context: dict[str, Any] | None = None
) -> HttpResponseBase:
    """The page of the admin site to change one's own password."""
    request.current_app = admin.site.name
    view = PasswordChangeView.as_view(
        form_class=OwnPasswordForm,
        success_url=reverse("admin:password_change_done"),
        extra_context={**admin.site.each_context(request), **(extra_context or {})},
    )
    return view(request)
