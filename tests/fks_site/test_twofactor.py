"""The second factor: set up, proved, used once, asked again, and nowhere to be got around."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_otp.oath import totp

from fks_site import roles, twofactor
from risk import second_factor, switch
from risk.models import (
    AuditEvent,
    RecoveryCode,
    Safeguards,
    SecondFactor,
    SignOut,
    TradingState,
)
from tests.factories import PASSWORD, UserFactory
from tests.threads import together

pytestmark = pytest.mark.django_db

PAGE = "/admin/second-factor/"
START = "2026-11-21T12:00:00Z"


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def olivia(clock: Any) -> User:
    user: User = UserFactory.create(username="olivia", is_superuser=True)
    return user


def code_of(user: User) -> str:
    sealed = SecondFactor.objects.get(user=user)
    key = second_factor.crypto.decrypt(sealed.sealed, bound_to=second_factor.binding_of(user))[
        "key"
    ]
    return f"{totp(base64.b32decode(key)):06}"


def enrol(user: User, clock: Any) -> list[str]:
    second_factor.begin(user)
    codes = second_factor.confirm(user, code_of(user))
    clock.shift(timedelta(seconds=30))
    return codes


def test_it_is_set_up_with_a_picture_and_a_first_code(olivia: User) -> None:
    client = Client()
    client.force_login(olivia)
    assert client.get("/admin/").status_code == 200, "nobody is asked at first"
    page = client.get(PAGE)
    assert page["Cache-Control"] == "no-store"
    assert 'src="data:image/svg+xml;base64,' in page.text
    assert "This code is wrong" in client.post(PAGE, {"code": "000000"}).text
    assert not second_factor.has_one(olivia)
    done = client.post(PAGE, {"code": code_of(olivia)})
    assert second_factor.has_one(olivia)
    assert len(done.context["codes"]) == 10
    assert client.get("/admin/").status_code == 200
    assert AuditEvent.objects.get(kind="second_factor.set_up").actor == "olivia"


def test_keys_and_recovery_codes_are_not_readable_in_the_database(olivia: User, clock: Any) -> None:
    key = second_factor.begin(olivia)
    codes = enrol(olivia, clock)
    stored = str(list(SecondFactor.objects.values())) + str(list(RecoveryCode.objects.values()))
    stored += str(list(AuditEvent.objects.values()))
    assert not any(secret in stored for secret in (key, *codes))


def test_whoever_has_one_gets_nowhere_without_it(olivia: User, clock: Any) -> None:
    enrol(olivia, clock)
    client = Client()
    client.force_login(olivia)
    answer = client.get("/admin/execution/order/")
    assert (answer.status_code, answer["Location"]) == (
        302,
        f"{PAGE}?next=%2Fadmin%2Fexecution%2Forder%2F",
    )
    assert client.get("/api/v1/orders").status_code == 401, "a half session is none for the API"
    answer = client.post(answer["Location"], {"code": code_of(olivia)})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/execution/order/")
    assert client.get("/admin/execution/order/").status_code == 200
    assert client.get("/api/v1/orders").status_code == 200


def test_it_leads_nowhere_else(olivia: User, clock: Any) -> None:
    enrol(olivia, clock)
    client = Client()
    client.force_login(olivia)
    answer = client.post(f"{PAGE}?next=https://evil.example/", {"code": code_of(olivia)})
    assert answer["Location"] == "/admin/"


def test_where_it_is_required_everybody_sets_it_up(olivia: User) -> None:
    Safeguards.objects.create(second_factor=True)
    client = Client()
    client.force_login(olivia)
    assert client.get("/admin/")["Location"].startswith(PAGE)
    assert "Set up a second factor" in client.get(PAGE).text


def test_a_code_works_once(olivia: User, clock: Any) -> None:
    enrol(olivia, clock)
    code = code_of(olivia)
    assert [second_factor.verify(olivia, code) for _ in range(2)] == [True, False]


def test_a_clock_may_be_a_step_off_and_no_more(olivia: User, clock: Any) -> None:
    enrol(olivia, clock)
    code = code_of(olivia)
    clock.shift(timedelta(seconds=30))
    assert second_factor.verify(olivia, code)
    code = code_of(olivia)
    clock.shift(timedelta(seconds=60))
    assert not second_factor.verify(olivia, code)


def test_five_wrong_codes_close_the_door_for_a_minute(olivia: User, clock: Any) -> None:
    enrol(olivia, clock)
    for _ in range(5):
        assert not second_factor.verify(olivia, "000000")
    assert not second_factor.verify(olivia, code_of(olivia))
    clock.shift(timedelta(seconds=61))
    assert second_factor.verify(olivia, code_of(olivia))


def test_a_recovery_code_opens_once(olivia: User, clock: Any) -> None:
    first, *_ = enrol(olivia, clock)
    assert [second_factor.verify(olivia, first.upper()) for _ in range(2)] == [True, False]
    assert AuditEvent.objects.filter(kind="second_factor.recovered").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_code_that_two_requests_bring_opens_one() -> None:
    user = UserFactory.create()
    second_factor.begin(user)
    SecondFactor.objects.update(is_confirmed=True)
    code = code_of(user)
    assert sorted(together(*[lambda: second_factor.verify(user, code)] * 4)) == [False] * 3 + [True]


def test_tokens_take_a_code_too(olivia: User, clock: Any, client: Client) -> None:
    given = {"username": "olivia", "password": PASSWORD}

    def token(**more: str) -> Any:
        return client.post("/api/token", given | more, content_type="application/json")

    assert token().status_code == 200
    enrol(olivia, clock)
    answer = token()
    assert (answer.status_code, answer.json()["code"]) == (401, "SECOND_FACTOR_REQUIRED")
    assert token(code="000000").status_code == 401
    assert token(code=code_of(olivia)).status_code == 200
    olivia.second_factor.delete()
    Safeguards.objects.create(second_factor=True)
    assert token().status_code == 401, "who has none yet sets it up in the browser"


def test_what_loosens_asks_again_and_halting_does_not(olivia: User, clock: Any) -> None:
    enrol(olivia, clock)
    client = Client()
    client.force_login(olivia)
    client.post(PAGE, {"code": code_of(olivia)})
    limits, trading = reverse("admin:risk_riskpolicy_add"), reverse("admin:trading")
    assert client.get(limits).status_code == 200
    clock.shift(timedelta(minutes=11))
    assert client.get(limits)["Location"].startswith(PAGE)
    clock.shift(timedelta(minutes=20))
    client.get("/admin/")
    halt = {"mode": "halt", "target": "global:", "reason": "a drill"}
    assert client.post(trading, halt).status_code == 302
    assert switch.standing(account="x", venue="x", symbol="x") is not None
    assert client.post(trading, halt | {"mode": "resume"})["Location"].startswith(PAGE)
    assert TradingState.objects.get().state == "halted"
    client.post(PAGE, {"code": code_of(olivia)})
    client.post(trading, halt | {"mode": "resume"})
    assert TradingState.objects.get().state == "active"


def test_releasing_asks_after_ten_minutes_and_reducing_what_trades_never(
    olivia: User, clock: Any
) -> None:
    enrol(olivia, clock)
    client = Client()
    client.force_login(olivia)
    client.post(PAGE, {"code": code_of(olivia)})
    trading = reverse("admin:trading")
    form = {"mode": "reduce_only", "target": "global:", "reason": "a drill"}
    clock.shift(timedelta(minutes=11))
    assert client.post(trading, form)["Location"] == reverse("admin:index")
    assert client.post(trading, form | {"mode": "resume"})["Location"].startswith(PAGE)
    assert TradingState.objects.get().state == "reducing"
    client.post(trading, form | {"mode": "halt"})
    assert client.post(trading, form)["Location"].startswith(PAGE)
    assert TradingState.objects.get().state == "halted"
    assert client.post(trading, form | {"mode": "nonsense"}).status_code == 200


GUARDING = re.compile(
    "limit|polic|user|group|account|credential|secret|allow|network|channel|proposal|safeguard"
)
NO_SAFEGUARD = {"risk_limithit", "risk_ratelimit"}
HARMLESS = {
    "auth_user_sign_out",
    "brokers_account_compare",
    "brokers_account_test_connection",
    "risk_channel_test",
    "risk_channel_told",
    "risk_proposal_reject",
}


def test_no_page_that_may_loosen_is_forgotten() -> None:
    """A new page of such a model is in ``STEP_UP``, or named here as harmless."""
    pages = {"getting_started", "execution_strategy_rotate"}
    for model, model_admin in admin.site._registry.items():
        prefix = f"{model._meta.app_label}_{model._meta.model_name}"
        if prefix in NO_SAFEGUARD or not GUARDING.search(prefix):
            continue
        names = {str(url.name) for url in model_admin.urls if getattr(url, "name", None)}
        pages |= names - {f"{prefix}_changelist", f"{prefix}_history"}
    assert pages - HARMLESS == twofactor.STEP_UP


@pytest.mark.parametrize(
    "page", ["risk_channel_add", "auth_user_password_change", "getting_started"]
)
def test_these_pages_ask_for_a_fresh_code(olivia: User, clock: Any, page: str) -> None:
    enrol(olivia, clock)
    client = Client()
    client.force_login(olivia)
    client.post(PAGE, {"code": code_of(olivia)})
    named = [olivia.pk] if page.startswith("auth_user") else []
    address = reverse(f"admin:{page}", args=named)
    assert client.get(address).status_code == 200
    clock.shift(timedelta(minutes=11))
    assert client.get(address)["Location"].startswith(PAGE)


def test_a_session_ends_when_left_alone_and_after_eight_hours(olivia: User, clock: Any) -> None:
    client = Client()
    client.force_login(olivia)
    assert client.get("/admin/").status_code == 200
    for _ in range(6):
        clock.shift(timedelta(minutes=6))
        answer = client.get(reverse("admin:dashboard"))
    assert answer.status_code == 401, "what the page polls by itself keeps no session alive"
    client.force_login(olivia)
    client.get(reverse("admin:unknown_desk"))
    for _ in range(6):
        clock.shift(timedelta(minutes=6))
        answer = client.get(reverse("admin:unknown_desk"), headers={"HX-Request": "true"})
    assert answer.status_code == 302, "nor does a page that asks for itself again"
    client.force_login(olivia)
    for _ in range(24):
        assert client.get("/admin/").status_code == 200
        clock.shift(timedelta(minutes=20, seconds=1))
    assert client.get("/admin/").status_code == 302


def test_cookies_stay_on_this_site(olivia: User, client: Client) -> None:
    answer = client.post("/admin/login/", {"username": "olivia", "password": PASSWORD})
    assert answer.cookies["sessionid"]["samesite"] == "Strict"
    assert answer.cookies["sessionid"]["httponly"]


def test_the_shell_halts_and_helps_whoever_is_locked_out(olivia: User, clock: Any) -> None:
    enrol(olivia, clock)
    elsewhere = Client()
    elsewhere.force_login(olivia)
    assert elsewhere.get(reverse("admin:index"))["Location"].startswith(PAGE)
    call_command("halt", "--reason", "locked out")
    assert TradingState.objects.get().state == "halted"
    with pytest.raises(CommandError, match="there is no user 'nobody'"):
        call_command("reset_second_factor", "nobody", "--reason", "x")
    call_command("reset_second_factor", "olivia", "--reason", "lost her telephone")
    assert not second_factor.has_one(olivia)
    assert not RecoveryCode.objects.exists()
    event = AuditEvent.objects.get(kind="second_factor.reset")
    assert (event.actor, event.reason) == ("command", "lost her telephone")
    ended = elsewhere.get(reverse("admin:index"))["Location"]
    assert ended.startswith(reverse("admin:login")), "whoever holds the telephone is out"
    assert SignOut.objects.get(user=olivia).at == timezone.now(), "and renews no token"


def test_a_security_admin_resets_anothers_second_factor(olivia: User, clock: Any) -> None:
    roles.install()
    lost = UserFactory.create(username="lost")
    enrol(lost, clock)
    desk = Client()
    desk.force_login(lost)
    assert desk.get(reverse("admin:index"))["Location"].startswith(PAGE)
    helper = UserFactory.create(username="helper")
    helper.groups.add(Group.objects.get(name=roles.SECURITY_ADMIN))
    enrol(helper, clock)
    client = Client()
    client.force_login(helper)
    address = reverse("admin:auth_user_reset_second_factor", args=[lost.pk])
    assert client.post(address, {"reason": "phone lost"}).status_code == 302  # proves it first
    assert second_factor.has_one(lost)
    client.post(PAGE, {"code": code_of(helper)})
    page = reverse("admin:auth_user_change", args=[lost.pk])
    assert address in client.get(page).content.decode()
    assert "Be sure who asks for it." in client.get(address).content.decode()
    client.post(address, {"reason": " "})
    assert second_factor.has_one(lost)

    clock.shift(timedelta(minutes=11))
    assert client.get(address).status_code == 302  # a proof that is old is asked for again
    client.post(PAGE, {"code": code_of(helper)})
    client.post(address, {"reason": "phone lost, seen on a call"})
    assert not second_factor.has_one(lost)
    assert not RecoveryCode.objects.filter(user=lost).exists()
    event = AuditEvent.objects.get(kind="second_factor.reset")
    assert (event.actor, event.subject) == ("helper", "user lost")
    assert event.reason == "phone lost, seen on a call"
    ended = desk.get(reverse("admin:index"))["Location"]
    assert ended.startswith(reverse("admin:login")), "their sessions have ended"
    assert address not in client.get(page).content.decode()


@pytest.mark.parametrize("is_required", [False, True])
def test_after_a_reset_it_is_said_what_opens_the_door(olivia: User, is_required: bool) -> None:
    Safeguards.objects.update_or_create(defaults={"second_factor": is_required})
    said = StringIO()

    call_command("reset_second_factor", "olivia", "--reason", "lost", stdout=said)

    assert said.getvalue().strip() == (
        "olivia sets up another second factor at the next login."
        if is_required
        else "The password of olivia alone opens the door until they set up another second factor."
    )


def test_nobody_resets_their_own_or_a_superusers(olivia: User, clock: Any) -> None:
    roles.install()
    enrol(olivia, clock)
    helper = UserFactory.create(username="helper")
    helper.groups.add(Group.objects.get(name=roles.SECURITY_ADMIN))
    enrol(helper, clock)
    client = Client()
    client.force_login(helper)
    client.post(PAGE, {"code": code_of(helper)})
    for user in (olivia, helper):
        address = reverse("admin:auth_user_reset_second_factor", args=[user.pk])
        client.post(address, {"reason": "please"})
        assert second_factor.has_one(user)
    assert not AuditEvent.objects.filter(kind="second_factor.reset").exists()


def test_a_viewer_resets_nobodys(clock: Any) -> None:
    roles.install()
    lost = UserFactory.create(username="lost")
    enrol(lost, clock)
    user = UserFactory.create()
    user.groups.add(Group.objects.get(name=roles.OPERATOR))
    client = Client()
    client.force_login(user)
    address = reverse("admin:auth_user_reset_second_factor", args=[lost.pk])
    assert client.post(address, {"reason": "please"}).status_code == 403
    assert second_factor.has_one(lost)
