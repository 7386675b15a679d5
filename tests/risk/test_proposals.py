"""The two-person rule: what loosens waits for another person, what tightens does not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import time, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brokers.accounts import set_credentials
from brokers.models import Account, ExchangeCredential
from execution.models import Order
from execution.proposable import demands_payload, senders_payload
from execution.states import OrderState
from risk import audit, proposals, switch
from risk.models import (
    AllowedNetwork,
    AuditEvent,
    IPAllowlist,
    Proposal,
    RiskLimit,
    Safeguards,
    TradingState,
)
from risk.proposable import limit_payload
from risk.proposals import NotDecided, State
from risk.types import LimitMode
from tests.factories import (
    PASSWORD,
    AccountFactory,
    OrderFactory,
    StrategyFactory,
    UserFactory,
    allow_trading,
)
from tests.threads import together

pytestmark = pytest.mark.django_db

CANARY = "canary-9b1f0c7d4e2a"
RELEASE = {"mode": "resume", "scope": "global", "key": ""}


@pytest.fixture(autouse=True)
def two() -> None:
    Safeguards.objects.create(two_person=True)
    allow_trading(max_order_value="1000")


def person(name: str, *, superuser: bool = True) -> User:
    user: User = UserFactory.create(username=name, is_superuser=superuser)
    return user


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def propose(kind: str, payload: Any, **more: Any) -> Proposal:
    with audit.acting(audit.Actor("anna", "10.0.0.1")):
        row = proposals.submit(kind, payload, reason="more room", **more)
    assert row is not None
    return row


def done(kind: str, payload: Any, **more: Any) -> bool:
    """Whether the change is made at once."""
    with audit.acting(audit.Actor("anna")):
        return proposals.submit(kind, payload, reason="at once", **more) is None


def limit(value: str, **more: Any) -> Any:
    return limit_payload("max_order_value", Decimal(value), **more)


def stored() -> Decimal:
    return RiskLimit.objects.get(rule="max_order_value", policy__account=None).value


def standing() -> TradingState | None:
    return switch.standing(account="any", venue="any", symbol="any")


def halted() -> None:
    switch.change(TradingState.State.HALTED, reason="a fire drill")


# --- what loosens ---------------------------------------------------------------------------------


def test_a_looser_limit_waits_and_another_person_lets_it_hold() -> None:
    row = propose("limit", limit("2000"))
    assert stored() == 1000
    assert (row.before, row.after) == (
        {"value": "1000", "mode": "enforce"},
        {"value": "2000", "mode": "enforce"},
    )
    with audit.acting(audit.Actor("bert", "10.0.0.2")):
        proposals.approve(row.pk, person("bert"), "agreed")
    assert stored() == 2000
    row.refresh_from_db()
    assert (row.state, row.decided_by, row.note) == (State.APPROVED, "bert", "agreed")
    event = AuditEvent.objects.get(kind="limit.changed")
    assert (event.actor, event.address) == ("bert", "10.0.0.2")
    assert event.reason == f"more room (proposed by anna: {row.pk})"


@pytest.mark.parametrize(
    ("payload", "at_once"),
    [
        (lambda: limit("999.99"), True),
        (lambda: limit("1000"), True),
        (lambda: limit("1000.01"), False),
        (lambda: limit("500", mode=LimitMode.OBSERVE), False),
        (lambda: limit("1000", mode=LimitMode.OFF), False),
        (lambda: limit("5000", strategy="demo"), True),
        (lambda: limit_payload("daily_loss", Decimal(500)), True),
        (lambda: limit_payload("trading_hours", Decimal(0)), True),
    ],
    ids=["lower", "same", "higher", "observed", "off", "narrower scope", "a new rule", "hours"],
)
def test_only_what_loosens_a_limit_waits(payload: Callable[[], Any], at_once: bool) -> None:
    StrategyFactory.create(slug="demo")
    assert done("limit", payload()) is at_once


def test_a_rule_that_grows_stricter_with_its_value_is_loosened_by_less() -> None:
    def seconds(value: str) -> Any:
        return limit_payload("duplicate_order", Decimal(value))

    assert done("limit", seconds("5"))
    assert done("limit", seconds("6"))
    assert not done("limit", seconds("4"))


def test_other_parameters_of_a_limit_wait() -> None:
    def hours(window: str) -> Any:
        return limit_payload("trading_hours", Decimal(0), parameters={"opens": window})

    assert done("limit", hours("09:00"))
    assert done("limit", hours("09:00"))
    assert not done("limit", hours("00:00"))


def test_the_limit_without_which_nothing_trades_is_not_set_by_one_alone() -> None:
    RiskLimit.objects.all().delete()
    desk = AccountFactory.create(name="desk")
    assert not done("limit", limit("1", account=desk.name))
    assert not done("limit", limit("1"))


def test_halting_is_never_proposed_and_releasing_always() -> None:
    assert done("release", {**RELEASE, "mode": "halt"})
    assert not done("release", {**RELEASE, "mode": "reduce_only"})
    assert not done("release", RELEASE)


def test_going_live_and_every_change_of_a_live_account_wait() -> None:
    AccountFactory.create(name="desk", environment=Account.Environment.SANDBOX)

    def change(**values: Any) -> Any:
        return {"account": "desk", "values": values}

    assert done("account", change(options={"spread_bps": "1"}))
    row = propose("account", change(environment="live"))
    proposals.approve(row.pk, person("bert"), "go")
    assert Account.objects.get(name="desk").environment == "live"
    assert not done("account", change(options={"spread_bps": "2"}))
    assert done("account", change(is_active=False))
    assert not done("account", change(is_active=True))


def test_an_account_that_goes_elsewhere_is_compared_and_its_key_asked_about_first() -> None:
    desk = AccountFactory.create(name="desk", environment=Account.Environment.SANDBOX)
    set_credentials(desk, {"api_key": "a", "api_secret": "b"})
    for values, kept in (({"is_active": False}, True), ({"options": {"spread_bps": "1"}}, False)):
        Account.objects.update(reconciled_at=timezone.now())
        ExchangeCredential.objects.update(asked_at=timezone.now(), checked_at=timezone.now())
        assert done("account", {"account": "desk", "values": values})
        key = ExchangeCredential.objects.get()
        known = (Account.objects.get().reconciled_at, key.asked_at, key.checked_at)
        assert [one is not None for one in known] == [kept] * 3


def test_nobody_agrees_to_another_environment_while_orders_are_under_way() -> None:
    desk = AccountFactory.create(name="desk", environment=Account.Environment.SANDBOX)
    row = propose("account", {"account": "desk", "values": {"environment": "live"}})
    order, bert = OrderFactory.create(account=desk, state=OrderState.PENDING), person("bert")
    with pytest.raises(proposals.NotDecided, match="desk: 1 order has not ended"):
        proposals.approve(row.pk, bert, "go")
    assert Account.objects.get().environment == "sandbox"
    Order.objects.filter(pk=order.pk).update(state=OrderState.FILLED)
    proposals.approve(row.pk, bert, "go")
    assert Account.objects.get().environment == "live"


def test_nobody_agrees_to_going_live_with_a_key_that_may_withdraw() -> None:
    AccountFactory.create(name="desk", environment=Account.Environment.SANDBOX)
    row = propose("account", {"account": "desk", "values": {"environment": "live"}})
    Account.objects.update(is_key_refused=True)
    with pytest.raises(proposals.NotDecided, match="make a key at the venue that may only"):
        proposals.approve(row.pk, person("bert"), "go")
    assert Account.objects.get().environment == "sandbox"


def test_credentials_wait_sealed_and_are_shown_to_nobody() -> None:
    desk = AccountFactory.create(name="desk")
    set_credentials(desk, {"api_key": "old-key-0123456789"})
    secrets = {"api_key": CANARY, "api_secret": CANARY + "-secret"}
    row = propose("account", {"account": "desk", "values": {}}, secrets=secrets)
    assert row.after == {"api_key": "*** (new)", "api_secret": "*** (new)"}
    assert CANARY not in str(list(Proposal.objects.values()))
    assert CANARY not in str(list(AuditEvent.objects.values()))
    proposals.approve(row.pk, person("bert"), "ok")
    assert ExchangeCredential.objects.get(account=desk).reveal() == secrets
    row.refresh_from_db()
    assert row.sealed == "", "what is decided keeps no secrets"


def test_a_rejected_credential_is_forgotten() -> None:
    AccountFactory.create(name="desk")
    row = propose("account", {"account": "desk", "values": {}}, secrets={"api_key": CANARY})
    proposals.reject(row.pk, person("bert"), "not now")
    row.refresh_from_db()
    assert (row.state, row.sealed) == (State.REJECTED, "")
    assert not ExchangeCredential.objects.exists()


def test_more_addresses_wait_and_fewer_do_not() -> None:
    office = IPAllowlist.objects.create(name="office")
    AllowedNetwork.objects.create(allowlist=office, cidr="10.0.0.0/8")

    def networks(*cidrs: str) -> Any:
        return {"allowlist": "office", "networks": dict.fromkeys(cidrs, "")}

    row = propose("allowlist", networks("10.0.0.0/8", "192.0.2.0/24"))
    proposals.approve(row.pk, person("bert"), "ok")
    assert set(office.networks.values_list("cidr", flat=True)) == {"10.0.0.0/8", "192.0.2.0/24"}
    assert done("allowlist", networks("192.0.2.0/24"))
    assert list(office.networks.values_list("cidr", flat=True)) == ["192.0.2.0/24"]


def test_the_rule_itself_is_not_given_up_by_one_alone() -> None:
    def rules(**changes: Any) -> Any:
        return {"two_person": True, "proposal_hours": 24, "second_factor": False} | changes

    assert done("safeguards", rules(proposal_hours=2, second_factor=True))
    row = propose("safeguards", rules(two_person=False, second_factor=True, proposal_hours=2))
    proposals.approve(row.pk, person("bert"), "ok")
    assert done("limit", limit("9000"))


def test_with_the_rule_off_everything_is_done_at_once() -> None:
    Safeguards.objects.update(two_person=False)
    halted()
    assert done("limit", limit("9000"))
    assert done("release", RELEASE)
    assert not Proposal.objects.exists()


def test_other_senders_of_a_strategy_wait_and_the_first_allowlist_does_not() -> None:
    IPAllowlist.objects.create(name="office")
    strategy = StrategyFactory.create(slug="trend")

    def senders(name: str) -> Any:
        return senders_payload(strategy) | {"allowlist": name}

    assert done("senders", senders("office"))
    row = propose("senders", senders(""))
    strategy.refresh_from_db()
    assert strategy.allowlist is not None
    proposals.approve(row.pk, person("bert"), "ok")
    strategy.refresh_from_db()
    assert strategy.allowlist is None


def test_another_certificate_waits_and_the_first_one_or_one_less_does_not() -> None:
    strategy = StrategyFactory.create(slug="trend")
    one, two, other = "aa" * 20, "bb" * 32, "cc" * 20

    def certificate(fingerprints: str, issuer: str = "") -> Any:
        columns = {"client_fingerprints": fingerprints, "client_issuer": issuer}
        return senders_payload(strategy) | columns

    assert done("senders", certificate(f"{one}, {two}", "CN=ours"))
    strategy.refresh_from_db()
    assert done("senders", certificate(two.upper(), "CN=ours"))
    assert done("senders", certificate(two))
    for wider in (
        certificate(f"{two} {other}"),
        certificate(other),
        certificate(two, "CN=theirs"),
        certificate(""),
    ):
        row = propose("senders", wider)
    strategy.refresh_from_db()
    assert (strategy.client_fingerprints, strategy.client_issuer) == (two, "")
    assert (row.before["client_fingerprints"], row.after["client_fingerprints"]) == (two, "none")
    proposals.approve(row.pk, person("bert"), "ok")
    strategy.refresh_from_db()
    assert strategy.client_fingerprints == ""


def test_other_senders_are_proposed_from_the_strategys_page() -> None:
    office = IPAllowlist.objects.create(name="office")
    strategy = StrategyFactory.create(slug="trend", allowlist=office, is_enabled=False)
    url = reverse("admin:execution_strategy_change", args=[strategy.pk])
    anna = client_of(person("anna"))
    form = strategy_form(anna.get(url)) | {"allowlist": "", "note": "new", "reason": "moved"}
    answer = anna.post(url, form, follow=True)
    assert "Another person" in answer.text, answer.context["errors"]
    strategy.refresh_from_db()
    assert (strategy.allowlist, strategy.note) == (office, "new"), "the rest of the form holds"
    assert Proposal.objects.get().subject == "senders of strategy trend"


@pytest.mark.parametrize(
    ("now", "wanted", "waits"),
    [
        ((False, False, 120), (True, False, 120), False),
        ((False, False, 120), (False, True, 999), False),
        ((True, False, 120), (True, True, 60), False),
        ((True, False, 120), (False, False, 120), True),
        ((True, True, 120), (True, False, 120), True),
        ((True, False, 120), (True, False, 121), True),
    ],
)
def test_less_approval_waits_and_more_of_it_does_not(
    now: tuple[bool, bool, int], wanted: tuple[bool, bool, int], waits: bool
) -> None:
    columns = ("needs_approval", "exits_need_approval", "approval_seconds")
    strategy = StrategyFactory.create(slug="trend", **dict(zip(columns, now, strict=True)))
    payload = {"strategy": "trend", "mode": dict(zip(columns, wanted, strict=True))}
    assert done("approval", payload) is not waits
    if waits:
        proposals.approve(Proposal.objects.get().pk, person("bert"), "ok")
    strategy.refresh_from_db()
    assert tuple(getattr(strategy, name) for name in columns) == wanted


@pytest.mark.parametrize(
    ("column", "value", "at_once"),
    [
        ("min_confidence", "0.59", False),
        ("min_confidence", None, False),
        ("min_confidence", "0.61", True),
        ("requires_confidence", False, False),
        ("min_reward_risk", "1.99", False),
        ("min_reward_risk", None, False),
        ("min_reward_risk", "2.01", True),
        ("requires_reward_risk", False, False),
        ("max_drift", "0.011", False),
        ("max_drift", None, False),
        ("max_drift", "0.009", True),
    ],
)
def test_a_strategy_that_asks_less_waits_and_one_that_asks_more_does_not(
    column: str, value: Any, at_once: bool
) -> None:
    strategy = StrategyFactory.create(
        slug="trend",
        min_confidence=Decimal("0.6"),
        requires_confidence=True,
        min_reward_risk=Decimal(2),
        requires_reward_risk=True,
        max_drift=Decimal("0.01"),
    )
    expected = Decimal(value) if isinstance(value, str) else value
    setattr(strategy, column, expected)
    assert done("demands", demands_payload(strategy)) is at_once
    if not at_once:
        strategy.refresh_from_db()
        assert getattr(strategy, column) != expected, "until then the stored one holds"
        proposals.approve(Proposal.objects.get().pk, person("bert"), "ok")
    strategy.refresh_from_db()
    assert getattr(strategy, column) == expected


def test_a_strategy_that_asks_less_is_proposed_from_its_page() -> None:
    strategy = StrategyFactory.create(slug="trend", min_confidence=Decimal("0.6"), is_enabled=False)
    url = reverse("admin:execution_strategy_change", args=[strategy.pk])
    anna = client_of(person("anna"))
    form = strategy_form(anna.get(url))
    form |= {"min_confidence": "0.5", "note": "new", "reason": "too few"}
    answer = anna.post(url, form, follow=True)
    assert "Another person" in answer.text, answer.context["errors"]
    strategy.refresh_from_db()
    assert (strategy.min_confidence, strategy.note) == (Decimal("0.6"), "new"), "the rest holds"
    proposal = Proposal.objects.get()
    assert proposal.subject == "demands of strategy trend"
    assert (proposal.before["min_confidence"], proposal.after["min_confidence"]) == ("0.6", "0.5")


def test_less_approval_is_proposed_from_the_strategys_page() -> None:
    strategy = StrategyFactory.create(slug="trend", needs_approval=True, is_enabled=False)
    url = reverse("admin:execution_strategy_change", args=[strategy.pk])
    anna = client_of(person("anna"))
    form = strategy_form(anna.get(url)) | {"note": "new", "reason": "too slow"}
    form.pop("needs_approval")
    answer = anna.post(url, form, follow=True)
    assert "Another person" in answer.text, answer.context["errors"]
    strategy.refresh_from_db()
    assert (strategy.needs_approval, strategy.note) == (True, "new"), "the rest of the form holds"
    assert Proposal.objects.get().subject == "approval mode of strategy trend"


def test_who_may_post_to_a_strategy_is_audited() -> None:
    strategy = StrategyFactory.create(slug="trend", is_enabled=False)
    olga = person("olga")
    url = reverse("admin:execution_strategy_change", args=[strategy.pk])
    anna = client_of(person("anna"))
    form = strategy_form(anna.get(url)) | {"senders": [olga.pk], "reason": "she runs it"}
    anna.post(url, form)
    assert list(strategy.senders.all()) == [olga]
    event = AuditEvent.objects.get(kind="strategy.senders_changed")
    assert (event.subject, event.actor, event.reason) == ("strategy trend", "anna", "she runs it")
    assert (event.before, event.after) == ({"senders": []}, {"senders": ["olga"]})


def strategy_form(page: Any) -> dict[str, Any]:
    """What the page's form would send unchanged."""
    form = page.context["adminform"].form
    values = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    for inline in page.context["inline_admin_formsets"]:
        management = inline.formset.management_form
        values |= {
            f"{management.prefix}-{name}": value for name, value in management.initial.items()
        }
    kept = {
        name: value for name, value in values.items() if value is not None and value is not False
    }
    return {name: "{}" if value == {} else value for name, value in kept.items()}


# --- who decides, and when ------------------------------------------------------------------------


def test_nobody_approves_their_own_proposal() -> None:
    anna = person("anna")
    row = propose("limit", limit("2000"))
    with pytest.raises(NotDecided, match="nobody approves what they proposed"):
        proposals.approve(row.pk, anna, "me too")
    assert stored() == 1000
    proposals.reject(row.pk, anna, "changed my mind")
    row.refresh_from_db()
    assert row.state == State.REJECTED


def test_the_right_is_needed_to_decide() -> None:
    row = propose("limit", limit("2000"))
    bert = person("bert", superuser=False)
    for act in (proposals.approve, proposals.reject):
        with pytest.raises(NotDecided, match=r"takes the right risk\.change_risklimit"):
            act(row.pk, bert, "ok")
    bert.user_permissions.add(Permission.objects.get(codename="change_risklimit"))
    proposals.approve(row.pk, User.objects.get(pk=bert.pk), "ok")
    assert stored() == 2000


def test_a_decided_proposal_is_not_decided_again() -> None:
    row = propose("limit", limit("2000"))
    bert = person("bert")
    proposals.approve(row.pk, bert, "ok")
    RiskLimit.objects.filter(rule="max_order_value").update(value=1)
    for act in (proposals.approve, proposals.reject):
        with pytest.raises(NotDecided, match="approved already"):
            act(row.pk, bert, "again")
    assert stored() == 1


def test_a_new_proposal_of_the_same_thing_ends_the_older_one() -> None:
    first = propose("limit", limit("2000"))
    second = propose("limit", limit("3000"))
    with pytest.raises(NotDecided, match="superseded already"):
        proposals.approve(first.pk, person("bert"), "ok")
    assert stored() == 1000
    assert Proposal.objects.get(state=State.OPEN) == second


def test_what_changed_meanwhile_outdates_a_proposal() -> None:
    row = propose("limit", limit("2000"))
    assert done("limit", limit("500"))
    with pytest.raises(NotDecided, match="has changed since"):
        proposals.approve(row.pk, person("bert"), "ok")
    row.refresh_from_db()
    assert (row.state, stored()) == (State.OUTDATED, Decimal(500))


def test_a_second_halt_outdates_a_release() -> None:
    halted()
    row = propose("release", RELEASE)
    halted()
    with pytest.raises(NotDecided, match="has changed since"):
        proposals.approve(row.pk, person("bert"), "ok")
    assert standing() is not None


def test_what_is_gone_cannot_be_approved() -> None:
    desk = AccountFactory.create(name="desk")
    row = propose("limit", limit("2000", account="")) and propose(
        "account", {"account": "desk", "values": {"environment": "live"}}
    )
    desk.delete()
    with pytest.raises(NotDecided, match="there is no account 'desk'"):
        proposals.approve(row.pk, person("bert"), "ok")


def test_a_proposal_expires() -> None:
    row = propose("limit", limit("2000"))
    with time_machine.travel(timezone.now() + timedelta(hours=24, seconds=1), tick=False):
        with pytest.raises(NotDecided, match="it has expired"):
            proposals.approve(row.pk, person("bert"), "ok")
        assert proposals.expire() == 1
        assert proposals.expire() == 0
    row.refresh_from_db()
    assert (row.state, stored()) == (State.EXPIRED, Decimal(1000))


@pytest.mark.django_db(transaction=True)
def test_two_approvals_at_one_moment_have_one_effect() -> None:
    row = propose("limit", limit("2000"))
    people = [person(name) for name in ("bert", "carl", "dora", "eva")]

    def approve(user: User) -> str:
        try:
            proposals.approve(row.pk, user, "ok")
        except NotDecided as error:
            return error.code
        return "approved"

    results = together(*[lambda user=user: approve(user) for user in people])  # type: ignore[misc]
    assert sorted(results) == ["NOT_OPEN", "NOT_OPEN", "NOT_OPEN", "approved"]
    assert AuditEvent.objects.filter(kind="limit.changed").count() == 1
    assert AuditEvent.objects.filter(kind="proposal.approved").count() == 1


# --- the ways in ----------------------------------------------------------------------------------


def test_the_shell_proposes_like_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    halted()
    call_command("resume", "--reason", "over")
    call_command("set_limit", "max_order_value", "2000", "--reason", "more room")
    out = capsys.readouterr().out
    assert "another person has to approve it" in out
    assert '{"status": "proposed", "proposal_id": ' in out
    assert {row.proposed_by for row in Proposal.objects.all()} == {"command"}
    assert standing() is not None
    call_command("halt", "--reason", "again")


def test_pages_propose_and_decide() -> None:
    halted()
    anna, bert = client_of(person("anna")), client_of(person("bert"))
    release = {"mode": "resume", "target": "global:", "reason": "drill over"}
    answer = anna.post(reverse("admin:trading"), release, follow=True)
    assert "Another person has to approve this release" in answer.text
    row = Proposal.objects.get()
    page = reverse("admin:risk_proposal_change", args=[row.pk])
    approve = reverse("admin:risk_proposal_approve", args=[row.pk])
    assert anna.get(page).status_code == 200
    assert approve not in anna.get(page).text
    assert approve in bert.get(page).text
    answer = anna.post(approve, {"reason": "me too"}, follow=True)
    assert "nobody approves what they proposed" in answer.text
    assert bert.post(approve, {"reason": ""}).status_code == 200
    assert standing() is not None
    answer = bert.post(approve, {"reason": "agreed"}, follow=True)
    assert "trading for everything: approved." in answer.text
    assert standing() is None


def test_limits_are_proposed_from_their_page() -> None:
    anna = client_of(person("anna"))
    row = RiskLimit.objects.get(rule="max_order_value")
    url = reverse("admin:risk_riskpolicy_change", args=[row.policy_id])
    other = RiskLimit.objects.get(rule="max_position_value")
    form = {"limits-TOTAL_FORMS": "2", "limits-INITIAL_FORMS": "2", "reason": "more room"}
    for number, (one, value) in enumerate([(row, "2000"), (other, "10")]):
        form |= {
            f"limits-{number}-id": str(one.pk),
            f"limits-{number}-policy": str(one.policy_id),
            f"limits-{number}-value": value,
            f"limits-{number}-mode": "enforce",
        }
    answer = anna.post(url, form, follow=True)
    assert "Another person has to approve this" in answer.text
    assert Proposal.objects.get().subject == "limit max_order_value (everything)"
    other.refresh_from_db()
    assert (stored(), other.value) == (Decimal(1000), Decimal(10)), "the stricter one holds"
    delete = reverse("admin:risk_riskpolicy_delete", args=[row.policy_id])
    assert anna.post(delete, {"post": "yes", "reason": "x"}).status_code == 403


def test_going_live_is_proposed_from_the_accounts_page() -> None:
    anna = client_of(person("anna"))
    desk = AccountFactory.create(name="desk", options={})
    url = reverse("admin:brokers_account_change", args=[desk.pk])
    form = {
        "environment": "live",
        "quote_currency": "USDT",
        "options": "{}",
        "is_active": "on",
        "day_zone": "UTC",
        "day_starts": "17:00",
        "typed_name": "desk",
        "reason": "ready",
    }
    assert "Another person" in anna.post(url, form, follow=True).text
    desk.refresh_from_db()
    assert desk.environment == "dry_run"
    assert Proposal.objects.get().after == {"environment": "live", "day_starts": "17:00:00"}
    proposals.approve(Proposal.objects.get().pk, person("bert"), "go")
    desk.refresh_from_db()
    assert (desk.environment, desk.day_starts) == ("live", time(17))

    form |= {"name": "real", "broker": "paper", "typed_name": "real"}
    answer = anna.post(reverse("admin:brokers_account_add"), form, follow=True)
    assert "going live takes another person" in answer.text
    assert not Account.objects.get(name="real").is_active


def test_networks_are_proposed_from_their_page() -> None:
    anna = client_of(person("anna"))
    office = IPAllowlist.objects.create(name="office")
    url = reverse("admin:risk_ipallowlist_change", args=[office.pk])
    form = {
        "name": "office",
        "networks-TOTAL_FORMS": "1",
        "networks-INITIAL_FORMS": "0",
        "networks-0-cidr": "192.0.2.0/24",
        "networks-0-note": "new office",
        "reason": "moved",
    }
    assert "Another person" in anna.post(url, form, follow=True).text
    assert not office.networks.exists()
    row = Proposal.objects.get()
    proposals.approve(row.pk, person("bert"), "ok")
    network = office.networks.get()
    assert (network.cidr, network.note) == ("192.0.2.0/24", "new office")


def test_the_rule_is_switched_on_its_page() -> None:
    Safeguards.objects.update(two_person=False)
    anna = client_of(person("anna"))
    page = reverse("admin:risk_safeguards_changelist")
    url = reverse("admin:risk_safeguards_change", args=[1])
    assert anna.get(page).status_code == 302
    form = {"two_person": "on", "proposal_hours": "8", "reason": "two of us now"}
    assert anna.post(url, form).status_code == 302
    assert Safeguards.current().two_person
    event = AuditEvent.objects.get(kind="safeguards.changed")
    assert (event.actor, event.reason) == ("anna", "two of us now")
    anna.post(url, {"proposal_hours": "8", "reason": "alone again"})
    assert Safeguards.current().two_person
    assert Proposal.objects.get().kind == "safeguards"


def test_the_api_proposes_and_decides(client: Client) -> None:
    halted()

    def post(user: str, path: str, body: Any) -> Any:
        given = {"username": user, "password": PASSWORD}
        token = client.post("/api/token", given, content_type="application/json").json()["access"]
        return client.post(
            f"/api/v1/{path}",
            body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {token}"},
        )

    person("anna")
    person("bert")
    answer = post("anna", "trading-state", {"state": "active", "reason": "over"})
    assert answer.status_code == 202
    row = Proposal.objects.get()
    assert answer.json() == {"status": "proposed", "proposal_id": str(row.pk)}
    own = post("anna", f"proposals/{row.pk}/approve", {"reason": "me"})
    assert (own.status_code, own.json()["code"]) == (403, "OWN_PROPOSAL")
    answer = post("bert", f"proposals/{row.pk}/approve", {"reason": "agreed"})
    assert (answer.status_code, answer.json()["state"]) == (200, "approved")
    again = post("bert", f"proposals/{row.pk}/reject", {"reason": "no"})
    assert (again.status_code, again.json()["code"]) == (409, "NOT_OPEN")
    assert standing() is None


def test_the_shell_is_the_way_out_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="needs a --reason"):
        call_command("safeguards", "--two-person", "off")
    call_command("safeguards", "--two-person", "off", "--reason", "bert has left")
    assert capsys.readouterr().out == '{"two_person": false, "second_factor": false}\n'
    event = AuditEvent.objects.get(kind="safeguards.changed")
    assert (event.actor, event.reason) == ("command", "bert has left")
    assert done("limit", limit("9000"))
