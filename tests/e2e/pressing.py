"""How a person presses things: a row's menu, a question with its consequence, a form that is saved."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from playwright.sync_api import Page, expect

from risk.models import AuditEvent


def open_menu(page: Page, row: str) -> None:
    """The further actions of the row of a list that has the text ``row``."""
    listed = page.locator("#result_list tr").filter(has_text=row)
    listed.get_by_role("button", name="More actions").click()


def answer(page: Page, address: str, *, says: str, button: str, **typed: str) -> None:
    """Press what leads to ``address``; the question tells the consequence; answer it."""
    page.locator(f'a[href="{address}"]:visible').first.click()
    dialog = page.locator("#modal-content")
    expect(dialog.locator(".fks-dialog-text")).to_contain_text(says)
    if typed:
        expect(dialog.locator("[autofocus]")).to_be_focused()  # only then is it left there
    for name, text in typed.items():
        dialog.locator(f"[name={name}]").fill(text)
    dialog.get_by_role("button", name=button, exact=True).click()


def add(page: Page, model: Any) -> None:
    """From the list of ``model``: open the form for another one."""
    page.goto(list_of(model))
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add")
    page.locator(f'a[href^="{address}"]:visible').first.click()
    expect(page.locator("[name=reason]")).to_be_visible()


def save(page: Page, *, reason: str, **typed: str) -> None:
    """Fill in the page's form, say why, and save it."""
    for name, text in (*typed.items(), ("reason", reason)):
        page.locator(f"form [name={name}]").fill(text)
    page.get_by_role("button", name="Save", exact=True).click()


def delete(page: Page, row: Any, *, reason: str) -> None:
    """From the row's page: ask for its end, say why, and agree."""
    page.goto(page_of(row))
    page.locator(f'a[href="{action(row, "delete")}"]:visible').first.click()
    told(page, "With it go:")
    page.locator("form [name=reason]").fill(reason)
    page.get_by_role("button", name="Delete", exact=True).click()
    told(page, "was deleted successfully")


def told(page: Page, text: str) -> None:
    """The page says so."""
    expect(page.get_by_text(text).first).to_be_visible()


def recorded(kind: str) -> tuple[str, str]:
    """Who did it, and why, as the audit trail has it; once."""
    event = AuditEvent.objects.get(kind=kind)
    return event.actor, event.reason


def action(row: Any, name: str) -> str:
    """The address of an action on a row."""
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{name}", args=[row.pk])


def page_of(row: Any) -> str:
    return action(row, "change")


def list_of(model: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
