"""People: their users, groups and locks, and what everybody does about their own log-in."""

from __future__ import annotations

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import Group, User
from django.urls import reverse
from playwright.sync_api import expect

from fks_site import roles
from risk import second_factor
from tests.e2e import rows
from tests.e2e.browser import PageFor, person
from tests.e2e.pressing import action, add, answer, delete, page_of, recorded, save, told
from tests.factories import PASSWORD, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

WHY = "a new shift"
NEW = "a horse staples batteries"


@pytest.mark.drives(
    "auth_user_add",
    "auth_user_change",
    "auth_user_password_change",
    "auth_user_sign_out",
    "auth_user_reset_second_factor",
)
def test_a_user_is_made_and_looked_after(page_for: PageFor, complaints: list[str]) -> None:
    page = page_for(person("sam", roles.SECURITY_ADMIN))
    add(page, User)
    save(page, reason=WHY, username="nina", password1=PASSWORD, password2=PASSWORD)
    told(page, "was added successfully")
    nina = User.objects.get(username="nina")
    assert nina.check_password(PASSWORD)
    assert recorded("user.created") == ("sam", WHY)
    page.get_by_role("checkbox", name=roles.OPERATOR).check()
    save(page, reason=WHY, first_name="Nina")
    told(page, "was changed successfully")
    nina.refresh_from_db()
    assert (nina.first_name, list(nina.groups.values_list("name", flat=True))) == (
        "Nina",
        [roles.OPERATOR],
    )
    assert recorded("user.rights_changed") == ("sam", WHY)

    page.goto(page_of(nina))
    page.get_by_role("link", name="this form").click()
    for name in ("password1", "password2"):
        page.locator(f"[name={name}]").fill(NEW)
    page.get_by_role("button", name="Change password").click()
    told(page, "Password changed successfully.")
    nina.refresh_from_db()
    assert nina.check_password(NEW)

    second_factor.begin(nina)
    for name, says, button, then in (
        ("sign_out", "Their browsers are logged out at once", "Sign out", "nina is signed out"),
        ("reset_second_factor", "Be sure who asks for it.", "Reset", "nina"),
    ):
        page.goto(page_of(nina))
        answer(page, action(nina, name), says=says, button=button, reason=WHY)
        told(page, then)
    assert not second_factor.is_begun(User.objects.get(pk=nina.pk))
    assert complaints == []


@pytest.mark.drives(
    "auth_group_add", "auth_group_change", "auth_group_delete", "axes_accessattempt_delete"
)
def test_a_group_of_ones_own_and_a_lock_lifted(page_for: PageFor, complaints: list[str]) -> None:
    failed = rows.failed_log_in()
    page = page_for(UserFactory.create(username="sue", is_superuser=True))
    add(page, Group)
    page.get_by_role("checkbox", name="Can view fill").check()
    save(page, reason=WHY, name=rows.GROUP)
    told(page, "was added successfully")
    group = Group.objects.get(name=rows.GROUP)
    assert [one.codename for one in group.permissions.all()] == ["view_fill"]
    page.goto(page_of(group))
    page.get_by_role("checkbox", name="Can view fill").uncheck()
    save(page, reason=WHY)
    told(page, "was changed successfully")
    assert not group.permissions.exists()
    delete(page, group, reason=WHY)
    assert recorded("group.deleted") == ("sue", WHY)
    delete(page, failed, reason=WHY)
    assert not AccessAttempt.objects.exists()
    assert recorded("failed_login.deleted") == ("sue", WHY)
    assert complaints == []


@pytest.mark.drives("password_change", "logout", "login", "sign_out_everywhere")
def test_ones_own_log_in(page_for: PageFor, complaints: list[str]) -> None:
    page = page_for(person("vera", roles.VIEWER))
    page.goto(reverse("admin:password_change"))
    page.locator("[name=old_password]").fill(PASSWORD)
    for name in ("new_password1", "new_password2"):
        page.locator(f"[name={name}]").fill(NEW)
    page.get_by_role("button", name="Change password").click()
    told(page, "Your password was changed.")
    assert User.objects.get(username="vera").check_password(NEW)

    page.goto(reverse("admin:index"))
    page.get_by_text("vera", exact=True).first.click()
    page.get_by_role("button", name="Log out").click()
    expect(page).not_to_have_url(reverse("admin:index"))
    page.goto(reverse("admin:index"))
    page.locator("[name=username]").fill("vera")
    page.locator("[name=password]").fill(NEW)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Trading is active")).to_be_visible()

    page.get_by_text("vera", exact=True).first.click()
    page.get_by_role("link", name="Sign out everywhere").click()
    told(page, "Every browser you are logged in with is logged out, this one included.")
    page.get_by_role("button", name="Sign out everywhere").click()
    told(page, "You are signed out everywhere.")
    assert recorded("login.ended_everywhere")[0] == "vera"
    assert complaints == []
