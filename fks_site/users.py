"""Users, the accounts they work with, and groups, in the admin: every change has a reason and leaves an
audit row.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.contrib.auth import admin as auth_admin
from django.contrib.auth.models import User
from django.db import models
from django.forms import ModelForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.forms import UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldBooleanSwitchWidget

from brokers.display import moment_column
from brokers.models import Account, AccountRestriction
from fks_site.passwords import PasswordForm
from fks_site.roles import RIGHTS
from risk import audit, second_factor, sign_out
from risk.admin.audited import REASON, AuditedAdmin
from risk.admin.confirm import Question, ReasonForm, ask, asking_action

CHIEF = {"is_superuser": True, "is_active": True, "is_staff": True}
"""Who may do everything here, and can log in."""
DATES = (moment_column("last_login", "last login"), moment_column("date_joined", "joined"))


class RestrictableUserForm(UserChangeForm):  # type: ignore[misc]
    """A user with the accounts they work with. Nothing chosen while restricted is no account at all."""

    is_restricted = forms.BooleanField(
        label="Some accounts only",
        required=False,
        widget=UnfoldBooleanSwitchWidget(),
        help_text="Their roles hold for these accounts only. A superuser is never restricted.",
    )
    accounts = forms.ModelMultipleChoiceField(
        Account.objects.all(), required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget()
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        named = restricted_to(self.instance)
        self.initial["is_restricted"] = named is not None
        self.initial["accounts"] = Account.objects.filter(name__in=named or ())

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("accounts") and not cleaned.get("is_restricted"):
            self.add_error("is_restricted", "switch it on, or choose no account")
        given_up = [name for name in CHIEF if cleaned.get(name) is False]
        if given_up and _is_last_chief(self.instance):
            self.add_error(given_up[0], "make another superuser first: nobody else is one")
        return dict(cleaned)

    def wanted(self) -> list[Account] | None:
        """The accounts to restrict the user to, ``None`` for all there are."""
        restricts = self.cleaned_data.get("is_restricted")
        return list(self.cleaned_data["accounts"]) if restricts else None


def _is_last_chief(user: User) -> bool:
    """Whether without ``user`` nobody could make a superuser again but in a shell."""
    return list(User.objects.filter(**CHIEF).values_list("pk", flat=True)[:2]) == [user.pk]


def restricted_to(user: User) -> list[str] | None:
    """The names of the accounts ``user`` is restricted to, ``None`` for all there are."""
    row = AccountRestriction.objects.filter(user=user.pk).first()
    return None if row is None else sorted(account.name for account in row.accounts.all())


def restrict(user: User, accounts: list[Account] | None, *, reason: str) -> None:
    """Have ``user`` work with ``accounts`` only, or with all there are; recorded if that is new."""
    before = restricted_to(user)
    if accounts is None:
        AccountRestriction.objects.filter(user=user).delete()
    else:
        row, _ = AccountRestriction.objects.get_or_create(user=user)
        row.accounts.set(accounts)
    after = restricted_to(user)
    if before != after:
        audit.record(
            "user.accounts_changed",
            f"user {user}",
            before={"accounts": "all" if before is None else before},
            after={"accounts": "all" if after is None else after},
            reason=reason,
        )


class TickedAdmin(AuditedAdmin):
    """Chooses rights and groups by boxes to tick, which a keyboard and a telephone reach."""

    filter_horizontal = ()

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget()
        return super().formfield_for_manytomany(db_field, request, **kwargs)


class UserAdmin(TickedAdmin, auth_admin.UserAdmin):  # type: ignore[type-arg]
    """Only a superuser makes another one, and nobody else changes rights of their own."""

    audit_name = "user"
    memberships = ("groups", "user_permissions")
    membership_event = "rights_changed"
    form = RestrictableUserForm
    fieldsets = (
        *(auth_admin.UserAdmin.fieldsets or ())[:-1],
        ("Important dates", {"fields": DATES}),
        ("Accounts", {"fields": ("is_restricted", "accounts")}),
    )
    add_form = UserCreationForm
    add_fieldsets = auth_admin.UserAdmin.add_fieldsets  # Unfold's class would empty them
    change_password_form = PasswordForm
    list_display = ("username", "is_active", "roles", "accounts", "is_superuser", DATES[0])
    list_filter = ("is_active", "groups", "is_superuser")
    actions_detail = ("sign_out", "reset_second_factor")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[User]:
        rows: models.QuerySet[User] = super().get_queryset(request)
        return rows.prefetch_related("groups", "account_restriction__accounts")

    def save_related(
        self, request: HttpRequest, form: ModelForm[Any], formsets: Any, change: bool
    ) -> None:
        super().save_related(request, form, formsets, change)
        if isinstance(form, RestrictableUserForm):
            restrict(form.instance, form.wanted(), reason=form.cleaned_data[REASON])

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        base = self.add_form if obj is None else self.form
        return super().get_form(request, obj, change, **{**kwargs, "form": base})

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Nobody renames themselves: by their name they are kept from approving what they proposed."""
        fixed: list[Any] = [*DATES]
        is_own = obj is not None and obj.pk == request.user.pk
        if is_own:
            fixed += ["username"]
        if not _is_superuser(request):
            fixed += ["is_superuser", "user_permissions"]
            if is_own:
                fixed += ["groups", "is_staff"]
        return fixed

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.is_superuser and not _is_superuser(request):
            return False
        return bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never: the audit trail names them. Make them inactive instead."""
        return False

    def has_sign_out_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        row = None if object_id is None else self.get_object(request, unquote(str(object_id)))
        return self.has_change_permission(request, row)

    @asking_action(description="Sign out everywhere", icon="logout", permission="sign_out")
    def sign_out(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End every session of somebody else: a telephone is lost, somebody has left."""
        user = self.get_object(request, unquote(object_id))
        if user is None:
            raise Http404
        back = reverse("admin:auth_user_change", args=[user.pk])
        form = ReasonForm(request.POST or None)
        if not form.is_valid():
            text = "Their browsers are logged out at once; their API tokens end in five minutes."
            question = Question(f"Sign {user} out everywhere?", text, "Sign out", back)
            return ask(request, self.admin_site, form, question)
        ended = sign_out.everywhere(user, form.cleaned_data["reason"])
        messages.success(request, f"{user} is signed out; sessions ended: {ended}.")
        return HttpResponseRedirect(back)

    def has_reset_second_factor_permission(
        self, request: HttpRequest, object_id: Any = None
    ) -> bool:
        row = None if object_id is None else self.get_object(request, unquote(str(object_id)))
        may = self.has_change_permission(request, row)
        return may and self.allows(request, "reset_second_factor", object_id)

    def refusal(self, request: HttpRequest, action: str, row: User) -> str:
        if action != "reset_second_factor":
            return ""
        if row.pk == request.user.pk:
            return "another person resets yours"
        return "" if second_factor.is_begun(row) else "none is set up"

    @asking_action(
        description="Reset second factor", icon="phonelink_erase", permission="reset_second_factor"
    )
    def reset_second_factor(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """For somebody who lost telephone and recovery codes."""
        user = self.get_object(request, unquote(object_id))
        if user is None:
            raise Http404
        back = reverse("admin:auth_user_change", args=[user.pk])
        if why := self.refusal(request, "reset_second_factor", user):
            messages.warning(request, f"The second factor of {user} is not reset: {why}.")
            return HttpResponseRedirect(back)
        form = ReasonForm(request.POST or None)
        if not form.is_valid():
            text = f"Be sure who asks for it. Their sessions end. {second_factor.after_reset(user)}"
            if second_factor.is_required():
                text += " Until then their password alone opens the door."
            question = Question(f"Reset the second factor of {user}?", text, "Reset", back)
            return ask(request, self.admin_site, form, question)
        second_factor.reset(user, form.cleaned_data["reason"])
        messages.success(request, second_factor.after_reset(user))
        return HttpResponseRedirect(back)

    def roles(self, user: User) -> str:
        return ", ".join(group.name for group in user.groups.all()) or "–"

    def accounts(self, user: User) -> str:
        if not hasattr(user, "account_restriction"):
            return "all"
        return ", ".join(one.name for one in user.account_restriction.accounts.all()) or "none"


class GroupAdmin(TickedAdmin, auth_admin.GroupAdmin):  # type: ignore[misc]  # of one field only
    """The four roles are fixed; groups of one's own are not."""

    audit_name = "group"
    memberships = ("permissions",)
    membership_event = "rights_changed"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.name in RIGHTS:
            return False
        return bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.name in RIGHTS:
            return False
        return bool(super().has_delete_permission(request, obj))


def _is_superuser(request: HttpRequest) -> bool:
    return request.user.is_authenticated and request.user.is_superuser
