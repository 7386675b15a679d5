"""Accounts: what they are, and their keys, which can be written and never read."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from brokers import keys
from brokers.accounts import (
    AIM,
    check,
    forget_comparison,
    refuse_other_environment,
    set_credentials,
    stored_credentials,
)
from brokers.admin.base import CarefulAdmin, changed_columns
from brokers.admin.unfolded import display
from brokers.display import ENVIRONMENT_COLORS, moment_column, number_column
from brokers.errors import ConfigurationError, CredentialError
from brokers.models import Account, ExchangeCredential
from brokers.registry import registry
from brokers.types import Environment
from brokers.venue_logins import LOGIN_COLORS

CREDENTIAL = "credential_"
TYPED = "typed_name"
ADD_HELP = "Credentials are entered on the next page: each broker asks for its own."
ADD_HELP_DONE = "If its broker asks for credentials, enter them here."


def credential_names(broker: str) -> tuple[str, ...]:
    """What ``broker`` asks for; nothing when its plugin is not installed or does not load."""
    known = broker in registry().usable()
    return registry().get(broker).credential_fields if known else ()


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]
    """The account's columns, and one empty field per credential: what is stored stays hidden.

    Going live takes the account's name, typed: no slip of a mouse trades real money.
    """

    typed_name = forms.CharField(
        label="To go live, type the account's name",
        required=False,
        help_text="Asked only where this makes the account trade real money.",
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
    )

    class Meta:
        model = Account
        fields: ClassVar[list[str]] = [
            "name",
            "broker",
            "environment",
            "quote_currency",
            "options",
            "is_active",
            "maker_fee",
            "taker_fee",
            "day_zone",
            "day_starts",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "options" in self.fields:
            self.fields["options"].help_text = _options_help(self.instance.broker)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        broker = cleaned.get("broker") or self.instance.broker
        if broker in registry().broken():
            self.add_error("broker", registry().broken()[broker])
        elif broker:
            self._refuse_unknown_options(broker, cleaned.get("options"))
            self._refuse_half_a_credential(broker, cleaned)
            self._refuse_what_cannot_work(broker, cleaned)
        self._refuse_going_live_by_accident(cleaned)
        self._refuse_leaving_orders_behind()
        return cleaned

    def credentials(self) -> dict[str, str]:
        """What was typed in; empty when the stored credentials stay."""
        names = [name for name in self.fields if name.startswith(CREDENTIAL)]
        typed = {name: self.cleaned_data.get(name, "") for name in names}
        return {name.removeprefix(CREDENTIAL): value for name, value in typed.items() if value}

    def _refuse_unknown_options(self, broker: str, options: Any) -> None:
        if options is None:
            return
        if not isinstance(options, dict):
            self.add_error("options", 'options are a JSON object: {"name": "value"}')
            return
        known = registry().get(broker).option_fields
        unknown = sorted(set(options) - set(known))
        if unknown:
            listed = ", ".join(known) or "none"
            self.add_error("options", f"{broker} has no option {unknown[0]!r}; known: {listed}")

    def _refuse_going_live_by_accident(self, cleaned: dict[str, Any]) -> None:
        goes_live = cleaned.get("environment") == Environment.LIVE and cleaned.get("is_active")
        stored = Account.objects.filter(pk=self.instance.pk).first()
        was_live = stored and stored.environment == Environment.LIVE and stored.is_active
        name = cleaned.get("name") or self.instance.name
        if not goes_live or was_live:
            return
        if cleaned.get(TYPED) != name:
            self.add_error(TYPED, f"This trades real money from now on: type {name} to confirm it.")
        if stored and not self._types_a_credential(cleaned):
            try:
                keys.refuse_going_live(stored)
            except ConfigurationError as error:
                self.add_error(None, str(error))

    def _refuse_leaving_orders_behind(self) -> None:
        if self.instance.pk and "environment" in self.changed_data:
            try:
                refuse_other_environment(self.instance)
            except ConfigurationError as error:
                self.add_error("environment", str(error))

    def _types_a_credential(self, cleaned: dict[str, Any]) -> bool:
        return any(cleaned.get(name) for name in self.fields if name.startswith(CREDENTIAL))

    def _refuse_what_cannot_work(self, broker: str, cleaned: dict[str, Any]) -> None:
        """The plugin must take what the account is to be, with the key that was typed, else the stored
        one; where there is none yet, all but that is checked. Nothing is sent anywhere.
        """
        typed = {n: cleaned.get(CREDENTIAL + n, "") for n in credential_names(broker)}
        given = {name: value for name, value in typed.items() if value}
        if self.errors or not (given or AIM & set(self.changed_data)):
            return
        given = given or stored_credentials(self.instance)
        known = {n: cleaned.get(n, getattr(self.instance, n)) for n in AIM}
        try:
            check(self.instance.name, broker=broker, credentials=given, **known)
        except ConfigurationError as error:
            if given or error.code != CredentialError.code:
                self.add_error(None, str(error))

    def _refuse_half_a_credential(self, broker: str, cleaned: dict[str, Any]) -> None:
        wanted = credential_names(broker)
        missing = [name for name in wanted if not cleaned.get(CREDENTIAL + name)]
        if len(missing) < len(wanted):
            for name in set(missing) - registry().get(broker).optional_credentials:
                self.add_error(CREDENTIAL + name, "all credentials are replaced together")


def _options_help(broker: str) -> str:
    if broker not in registry().usable():
        return "A JSON object of the broker's options."
    plugin = registry().get(broker)
    words = (f"{name}: {text}" for name, text in plugin.option_fields.items())
    return f"{plugin.label}. A JSON object. {' '.join(words)}"


@admin.register(Account)
class AccountAdmin(CarefulAdmin):
    form = AccountForm
    list_display = (
        "name",
        "broker",
        "shown_environment",
        "is_active",
        "quote_currency",
        number_column("equity"),
        "key_hint",
        moment_column("reconciled_at", "reconciled"),
    )
    list_filter = ("broker", "environment", "is_active")
    list_select_related = ("credential",)
    search_fields = ("name",)
    warn_unsaved_form = True

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """The form class with one write-only field per credential."""
        names = credential_names(obj.broker) if obj else ()
        fields = {CREDENTIAL + name: _secret_field(name, _stored(obj)) for name in names}
        form = type("AccountForm", (kwargs.pop("form", self.form),), fields)
        return super().get_form(request, obj, change, form=form, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        columns = [
            "name", "broker", "environment", "quote_currency", "is_active", "options",
            "maker_fee", "taker_fee", "day_zone", "day_starts",
        ]  # fmt: skip
        if obj is None:
            return [(None, {"fields": [*columns, TYPED], "description": ADD_HELP})]
        if not self.has_change_permission(request, obj):
            login = ["venue_login"] if obj.login_terms() is not None else []
            return [(None, {"fields": [*columns, "key_hint", "key_rights", *login]})]
        secrets = [CREDENTIAL + name for name in credential_names(obj.broker)]
        shown = [*columns, TYPED]
        sets: list[tuple[str | None, dict[str, Any]]] = [(None, {"fields": shown})]
        if secrets:
            sets.append(("Credentials: written, never shown", {"fields": [*secrets, "key_rights"]}))
        if obj.login_terms() is not None:
            sets.append(("Log-in at the venue", {"fields": ["venue_login"]}))
        return sets

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ["key_hint"]
        return ["name", "broker", "key_hint", "key_rights", "venue_login"]

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: Any = None) -> Any:
        """Go on to the account's page, where its credentials are entered."""
        if "_addanother" not in request.POST:
            self.message_user(request, f"Added {obj}. {ADD_HELP_DONE}", messages.SUCCESS)
            return HttpResponseRedirect(reverse("admin:brokers_account_change", args=[obj.pk]))
        return super().response_add(request, obj, post_url_continue)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Saving anything makes every worker reconnect: the account's version grows."""
        if not change:
            obj.save()
        elif columns := changed_columns(obj, form):
            obj.version += 1
            forgotten = forget_comparison(obj, columns)
            obj.save(update_fields=[*columns, *forgotten, "version"])
        if typed := form.credentials():
            set_credentials(obj, typed)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never: an account's orders refer to it. Switch it off instead."""
        return False

    @display(description="environment", label=ENVIRONMENT_COLORS)
    def shown_environment(self, account: Account) -> tuple[str, str]:
        return account.environment, account.get_environment_display()

    @display(description="state", label=LOGIN_COLORS)
    def venue_login(self, account: Account) -> tuple[str, str] | None:
        found = account.venue_login
        return None if found is None else (found.state, found.text)

    @display(description="what the key may do", label=keys.STATE_COLORS)
    def key_rights(self, account: Account) -> tuple[str, str] | None:
        """As the venue last told; a worker asks when a key is new, and daily."""
        credential = ExchangeCredential.objects.filter(account=account).first()
        if credential is None:
            return None
        found = keys.state_of(credential)
        return found.state, found.text

    @display(description="API key")
    def key_hint(self, account: Account) -> str:
        return _stored(account) or "none"


def _stored(account: Account | None) -> str:
    if account is None or account.pk is None:
        return ""
    try:
        credential = account.credential
    except ExchangeCredential.DoesNotExist:
        return ""
    return credential.hint or "stored"


def _secret_field(name: str, stored: str) -> forms.CharField:
    kept = f"Stored: {stored}. Leave empty to keep it." if stored else "None is stored."
    return forms.CharField(
        label=name.replace("_", " ").replace("api", "API"),
        required=False,
        help_text=kept,
        strip=True,
        widget=UnfoldAdminPasswordWidget(
            attrs={"autocomplete": "new-password"}, render_value=False
        ),
    )
