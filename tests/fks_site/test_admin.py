"""Every page of the admin opens, hides secrets, escapes what senders wrote, and audits changes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import patch
from urllib.parse import quote
from uuid import uuid4

import pytest
from axes.models import AccessAttempt, AccessLog
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db.models import Model, QuerySet
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries
from unfold.admin import ModelAdmin

from brokers.accounts import set_credentials
from brokers.admin.base import ReadOnlyAdmin
from brokers.models import Account, ExchangeCredential, SymbolAlias
from execution import differences, tasks
from execution.authentication import digest_of, new_secret
from execution.ids import uuid7
from execution.models import (
    Alarm,
    Difference,
    Fill,
    Order,
    OrderEvent,
    Position,
    Protection,
    QuarantinedBody,
    Signal,
    Strategy,
    WebhookSecret,
)
from execution.states import OrderState
from execution.tasks import cancel_order
from risk import breakers
from risk.admin.audited import AuditedAdmin
from risk.channels import Channel, Event, Notice, Severity
from risk.models import (
    AllowedNetwork,
    AuditEvent,
    BreakerEvent,
    CircuitBreaker,
    IPAllowlist,
    LimitHit,
    RiskLimit,
    RiskPolicy,
    RiskReport,
    TradingState,
)
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    RouteFactory,
    SignalFactory,
    StrategyFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

CANARY = "canary-4f1d7c0b9e5a"
HOSTILE = "<script>alert('x')</script>{{7*7}}"
HAPPENED = (
    Signal,
    Order,
    Fill,
    Position,
    Protection,
    Difference,
    QuarantinedBody,
    AuditEvent,
    TradingState,
)


def recorded() -> QuerySet[AuditEvent]:
    """The audit trail without the tests' own logins."""
    return AuditEvent.objects.exclude(kind__startswith="login.")


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    cache.clear()


@pytest.fixture
def viewer() -> Client:
    """Logged in, allowed to look at everything and to change nothing."""
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def sent() -> Iterator[Any]:
    """Cancels handed to workers."""
    with patch.object(cancel_order, "apply_async") as apply_async:
        yield apply_async


@pytest.fixture
def story() -> Order:
    """One signal all the way to its position, with every text a sender or venue controls hostile."""
    strategy = StrategyFactory.create()
    route = RouteFactory.create(strategy=strategy)
    signal = SignalFactory.create(
        strategy=strategy,
        symbol="BTC/USDT",
        body=f'{{"symbol": "BTC/USDT", "comment": "{HOSTILE}"}}',
        alert={"symbol": "BTC/USDT", "action": "buy", "comment": HOSTILE, "extras": {"x": HOSTILE}},
        detail=HOSTILE,
    )
    order = OrderFactory.create(
        signal=signal,
        strategy=strategy,
        account=route.account,
        state=OrderState.FILLED,
        filled_quantity=Decimal("0.01"),
        average_price=Decimal("60000.5"),
        detail=HOSTILE,
        sizing=[{"label": "equity × risk", "formula": "100000 × 0.02", "result": "2000"}],
        verdicts=[
            _verdict("max_order_value", passed=True, measured="600"),
            _verdict("daily_loss", passed=False, mode="observe", measured="900"),
            _verdict(HOSTILE, passed=False, measured="1"),
        ],
    )
    OrderEvent.objects.create(
        order=order,
        at=timezone.now(),
        event="fill",
        from_state="submitting",
        to_state="filled",
        actor="system",
        detail=HOSTILE,
        evidence={"answer": HOSTILE},
    )
    FillFactory.create(order=order, realised_pnl=Decimal("-0.5"))
    PositionFactory.create(account=order.account)
    return order


def _verdict(rule: str, *, passed: bool, measured: str, mode: str = "enforce") -> dict[str, Any]:
    return {
        "rule": rule,
        "passed": passed,
        "mode": mode,
        "code": "",
        "detail": f"{rule} judged",
        "numbers": {"measured": measured, "allowed": "1000"},
    }


@pytest.fixture
def everything(story: Order) -> None:
    """A row of everything else that has a page."""
    account = story.account
    set_credentials(account, {"api_key": f"{CANARY}-key", "api_secret": f"{CANARY}-secret"})
    assert story.strategy is not None
    new_secret(story.strategy, Strategy.Auth.HMAC, CANARY)
    CircuitBreaker.objects.create(account=account, last_error=HOSTILE)
    policy = RiskPolicy.objects.create(account=account)
    RiskLimit.objects.create(policy=policy, rule="max_order_value", value=Decimal(1000))
    AllowedNetwork.objects.create(
        allowlist=IPAllowlist.objects.create(name="office"), cidr="10.0.0.0/8"
    )
    SymbolAlias.objects.create(alias="BINANCE:BTCUSDT", symbol="BTC/USDT")
    Protection.objects.create(
        account=account,
        symbol=story.symbol,
        entry=story,
        naked_since=timezone.now(),
        detail=HOSTILE,
    )
    seen = differences.Seen(differences.Kind.POSITION, HOSTILE, "k", HOSTILE, HOSTILE, HOSTILE)
    differences.note(account, [seen])
    for state in (OrderState.UNKNOWN, OrderState.AWAITING_APPROVAL):
        waits = OrderFactory.create(
            account=account, symbol=HOSTILE, state=state, broker_order_id=HOSTILE, detail=HOSTILE,
            approve_by=timezone.now() + timedelta(minutes=5),
        )  # fmt: skip
        OrderEvent.objects.create(
            order=waits,
            at=timezone.now(),
            event="lose",
            to_state=state,
            actor=HOSTILE,
            detail=HOSTILE,
        )
    TradingState.objects.create(scope="global", changed_at=timezone.now(), reason=HOSTILE)
    AuditEvent.objects.create(
        at=timezone.now(),
        kind="limit.changed",
        actor=HOSTILE,
        subject="limit max_order_value",
        before={"value": "1"},
        after={"value": HOSTILE},
    )
    QuarantinedBody.objects.create(
        strategy=story.strategy,
        received_at=timezone.now(),
        body=HOSTILE,
        code="NOT_JSON",
        detail=HOSTILE,
    )
    _from_outside(account)


def _from_outside(account: Account) -> None:
    """What strangers and venues say ends up in alarms, notices, log-ins and histories as well."""
    now = timezone.now()
    Alarm.objects.create(
        kind=Alarm.Kind.NOT_RECONCILED,
        key=HOSTILE,
        account=account,
        symbol=HOSTILE,
        detail=HOSTILE,
        raised_at=now,
    )
    channel = Channel.objects.create(name="desk", least_severity=Severity.INFO)
    Notice.objects.create(
        channel=channel, event=Event.ORDER_REJECTED, severity=Severity.WARNING, at=now, due_at=now,
        title=HOSTILE, text=HOSTILE, symbol=HOSTILE, error=HOSTILE, state=Notice.State.FAILED,
    )  # fmt: skip
    stranger = {"username": HOSTILE, "user_agent": HOSTILE, "http_accept": HOSTILE}
    at_door = {"path_info": f"/{HOSTILE}", "ip_address": "203.0.113.9"}
    AccessAttempt.objects.create(
        get_data=HOSTILE, post_data=HOSTILE, failures_since_start=1, **stranger, **at_door
    )
    AccessLog.objects.create(**stranger, **at_door)
    breaker = CircuitBreaker.objects.get(account=account)
    BreakerEvent.objects.create(
        breaker=breaker, at=now, to_state="open", actor=HOSTILE, reason=HOSTILE
    )
    LimitHit.objects.create(
        at=now, kind="denied", rule="max_order_value", scope=HOSTILE, account=account,
        symbol=HOSTILE, order_id=uuid4(), detail=HOSTILE,
    )  # fmt: skip
    fill = Fill.objects.get()
    Fill.objects.filter(pk=fill.pk).update(fee=1, fee_currency=HOSTILE[:20], trade_id=HOSTILE)


def _pages() -> Iterator[str]:
    """The home page, and the list, form and page of one row of every registered model."""
    yield reverse("admin:index")
    for name in ("trading", "approvals", "unknown_desk", "performance", "getting_started"):
        yield reverse(f"admin:{name}")
    yield reverse("admin:execution_lab")
    yield reverse("admin:search") + "?s=" + quote(HOSTILE[:8])
    for model, model_admin in admin.site._registry.items():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield reverse(f"{name}_changelist")
        if issubclass(model, User) or model_admin.has_add_permission is None:
            continue
        row = model._default_manager.first()
        if row is not None:
            yield reverse(f"{name}_change", args=[row.pk])


def page_of(row: Model, name: str = "change") -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{name}", args=[row.pk])


def test_every_page_opens_and_hides_secrets_and_escapes(
    admin_client: Client, everything: None
) -> None:
    shown = dict.fromkeys(_pages(), "")
    for address in shown:
        answer = admin_client.get(address, follow=True)  # one of a kind has no list
        assert answer.status_code == 200, address
        shown[address] = answer.content.decode()
    assert len(shown) > 30
    digests = {row.digest or row.sealed for row in WebhookSecret.objects.all()}
    digests.add(ExchangeCredential.objects.get().sealed)
    for address, page in shown.items():
        assert CANARY not in page, address
        assert "<script>alert" not in page, address
        assert not any(digest in page for digest in digests), address
    assert "&lt;script&gt;alert" in "".join(shown.values())


def test_the_bare_address_leads_to_the_admin(client: Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")


def test_every_admin_wears_the_sites_dress() -> None:
    plain = [
        model._meta.label
        for model, model_admin in admin.site._registry.items()
        if not isinstance(model_admin, ModelAdmin)
    ]
    assert plain == []


def test_every_page_only_shows_or_audits_what_it_changes() -> None:
    silent = [
        model._meta.label
        for model, model_admin in admin.site._registry.items()
        if not isinstance(model_admin, ReadOnlyAdmin | AuditedAdmin)
    ]
    assert silent == []
    audited = [one for one in admin.site._registry.values() if isinstance(one, AuditedAdmin)]
    assert all(one.audit_name and one.actions is None for one in audited)


def test_no_page_needs_inline_scripts(admin_client: Client, everything: None) -> None:
    for address in _pages():
        page = admin_client.get(address).content.decode()
        for tag in page.split("<script")[1:]:
            attributes = tag.partition(">")[0]
            assert "src=" in attributes or 'type="application/json"' in attributes, address


@pytest.mark.parametrize("model", HAPPENED)
def test_what_happened_cannot_be_changed(
    admin_client: Client, everything: None, model: type[Model]
) -> None:
    row = model._default_manager.order_by("pk").first()
    assert row is not None
    before = model._default_manager.filter(pk=row.pk).values().get()
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    assert admin_client.get(reverse(f"{name}_add")).status_code == 403
    assert admin_client.post(page_of(row), {"state": "denied"}).status_code == 403
    assert admin_client.post(page_of(row, "delete"), {"post": "yes"}).status_code == 403
    assert model._default_manager.filter(pk=row.pk).values().get() == before


def test_the_signal_tells_the_whole_story(admin_client: Client, story: Order) -> None:
    assert story.signal is not None
    page = admin_client.get(page_of(story.signal)).content.decode()
    for told in (
        "As received",
        "not read",
        "equity × risk",
        "100000 × 0.02",
        "max_order_value judged",
        "would refuse (observed only)",
        "measured <b>900</b>",
        "<summary>evidence</summary>",
        "60000",
        page_of(story),
        page_of(story.account),
    ):
        assert told in page, told


def test_the_order_leads_back_to_its_signal(admin_client: Client, story: Order) -> None:
    page = admin_client.get(page_of(story)).content.decode()
    assert story.signal is not None
    assert page_of(story.signal) in page
    assert page_of(story.fills.get()) in page
    assert page_of(Position.objects.get()) in page


def test_the_story_takes_as_many_queries_for_many_orders(
    admin_client: Client, story: Order, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(5):
        order = OrderFactory.create(signal=story.signal, state=OrderState.DENIED)
        OrderEvent.objects.create(
            order=order, at=timezone.now(), event="create", to_state="denied", actor="x"
        )
    assert story.signal is not None
    with django_assert_max_num_queries(27):
        admin_client.get(page_of(story.signal))


@pytest.mark.parametrize(
    ("stage", "states"),
    [
        ("working", {OrderState.OPEN, OrderState.UNKNOWN, OrderState.NEEDS_OPERATOR}),
        ("unknown", {OrderState.UNKNOWN}),
        ("needs_operator", {OrderState.NEEDS_OPERATOR}),
        ("denied", {OrderState.DENIED}),
        ("rejected", {OrderState.REJECTED}),
        ("", set(OrderState) & {"open", "unknown", "needs_operator", "denied", "rejected"}),
    ],
)
def test_the_tabs_over_orders(admin_client: Client, stage: str, states: set[str]) -> None:
    for state in ("open", "unknown", "needs_operator", "denied", "rejected"):
        OrderFactory.create(state=state)
    query = {"stage": stage} if stage else {}
    answer = admin_client.get(reverse("admin:execution_order_changelist"), query)
    assert {row.state for row in answer.context["cl"].result_list} == states


@pytest.mark.parametrize(
    "term", ["id", "hex", "signal_id", "client_order_id", "broker_order_id", "symbol"]
)
def test_orders_are_found_by_every_id(admin_client: Client, term: str) -> None:
    wanted = OrderFactory.create(
        signal=SignalFactory.create(), symbol="SOL/USDT", broker_order_id="venue-77"
    )
    OrderFactory.create()
    terms = {"hex": wanted.id.hex, "symbol": "sol"}
    query = {"q": terms.get(term) or str(getattr(wanted, term))}
    answer = admin_client.get(reverse("admin:execution_order_changelist"), query)
    assert list(answer.context["cl"].result_list) == [wanted]


def test_cancel_is_audited_and_handed_to_a_worker(
    admin_client: Client,
    sent: Any,
) -> None:
    order = OrderFactory.create(state=OrderState.OPEN)
    answer = admin_client.post(page_of(order, "cancel"), {"reason": "wrong side"})
    assert answer.headers["Location"] == page_of(order)
    sent.assert_called_once_with((str(order.pk),), retry=False)
    event = recorded().get()
    assert (event.kind, event.subject) == ("order.cancel_asked", f"order {order.pk}")
    assert (event.reason, event.before) == ("wrong side", {"state": "open"})
    order.refresh_from_db()
    assert (order.cancel_reason, order.cancel_asked_by) == ("CANCELED_BY_OPERATOR", "admin")


def test_cancel_needs_a_reason(admin_client: Client, sent: Any) -> None:
    order = OrderFactory.create(state=OrderState.OPEN)
    answer = admin_client.post(page_of(order, "cancel"), {"reason": "  "})
    assert answer.status_code == 200
    assert "This field is required" in answer.content.decode()
    assert not recorded().exists()
    sent.assert_not_called()


@pytest.mark.parametrize("state", [OrderState.FILLED, OrderState.CANCELED])
def test_what_cannot_be_canceled_is_not(admin_client: Client, sent: Any, state: str) -> None:
    order = OrderFactory.create(state=state)
    admin_client.post(page_of(order, "cancel"), {"reason": "too late"})
    assert not recorded().exists()
    sent.assert_not_called()
    assert page_of(order, "cancel") not in admin_client.get(page_of(order)).content.decode()


def test_a_lost_order_is_asked_about_at_once(admin_client: Client) -> None:
    order = OrderFactory.create(state=OrderState.UNKNOWN, next_check_at=None)
    before = timezone.now()
    with patch.object(tasks.check_order, "apply_async") as asked:
        admin_client.post(page_of(order, "ask_venue"), {"reason": "hurry"})
    order.refresh_from_db()
    assert order.next_check_at is not None
    assert order.next_check_at >= before
    asked.assert_called_once_with((str(order.pk),), retry=False)
    event = recorded().get()
    assert (event.kind, event.reason) == ("order.asked_about", "hurry")


@pytest.mark.parametrize(
    ("filled", "state", "reason"),
    [
        ("0", OrderState.NOT_PLACED, "NOT_PLACED"),
        ("0.004", OrderState.CANCELED, "CANCELED_BY_OPERATOR"),
    ],
)
def test_an_operators_word_ends_an_order_nobody_found(
    admin_client: Client, filled: str, state: OrderState, reason: str
) -> None:
    order = OrderFactory.create(state=OrderState.NEEDS_OPERATOR, filled_quantity=Decimal(filled))
    page = admin_client.get(page_of(order)).content.decode()
    assert page_of(order, "mark_ended") in page
    with patch.object(tasks.run_lane, "apply_async") as woken:
        admin_client.post(page_of(order, "mark_ended"), {"reason": "not in their history"})
    order.refresh_from_db()
    assert (order.state, order.reason) == (state, reason)
    assert order.journal.get().detail == "an operator's word: not in their history"
    event = recorded().get(kind="order.marked_ended")
    assert (event.before, event.after) == ({"state": "needs_operator"}, {"state": state.value})
    woken.assert_called_once_with((order.account_id, order.symbol), retry=False)


@pytest.mark.parametrize("state", [OrderState.UNKNOWN, OrderState.OPEN, OrderState.FILLED])
def test_only_what_waits_for_an_operator_is_marked(admin_client: Client, state: str) -> None:
    order = OrderFactory.create(state=state)
    admin_client.post(page_of(order, "mark_ended"), {"reason": "surely"})
    order.refresh_from_db()
    assert order.state == state
    assert not recorded().exists()
    assert page_of(order, "mark_ended") not in admin_client.get(page_of(order)).content.decode()


def test_who_may_only_look_cannot_act(viewer: Client, everything: None, sent: Any) -> None:
    order = OrderFactory.create(state=OrderState.OPEN)
    breaker, strategy = CircuitBreaker.objects.get(), Strategy.objects.latest("pk")
    form = {"reason": "please", "old": "now"}
    for act in ("cancel", "ask_venue", "mark_ended"):
        assert viewer.post(page_of(order, act), form).status_code == 403
    assert viewer.post(page_of(breaker, "trip"), form).status_code == 403
    assert viewer.post(page_of(breaker, "reset"), form).status_code == 403
    assert viewer.post(page_of(strategy, "rotate"), form).status_code == 403
    assert viewer.post(page_of(breaker), {"failure_threshold": "1"}).status_code == 403
    sent.assert_not_called()
    assert recorded().exclude(kind="difference.found").count() == 1
    assert viewer.get(page_of(order)).status_code == 200
    assert viewer.get(page_of(strategy)).status_code == 200
    assert viewer.get(page_of(order.account)).status_code == 200


def test_trip_and_reset(admin_client: Client) -> None:
    breaker = CircuitBreaker.objects.create(account=AccountFactory.create(name="kraken"))
    admin_client.post(page_of(breaker, "trip"), {"reason": "maintenance"})
    breaker.refresh_from_db()
    assert breaker.state == "open"
    admin_client.post(page_of(breaker, "reset"), {"reason": "back"})
    breaker.refresh_from_db()
    assert breaker.state == "closed"
    events = recorded().order_by("id").values_list("kind", "subject", "actor", "reason")
    assert list(events) == [
        ("breaker.tripped", "breaker kraken", "admin", "maintenance"),
        ("breaker.reset", "breaker kraken", "admin", "back"),
    ]


def test_a_threshold_is_changed_without_touching_the_state(admin_client: Client) -> None:
    breaker = CircuitBreaker.objects.create(account=AccountFactory.create(), state="open")
    form = {"failure_threshold": 9, "success_threshold": 2, "open_seconds": 60, "reason": "flaky"}
    admin_client.post(page_of(breaker), form)
    breaker.refresh_from_db()
    assert (breaker.failure_threshold, breaker.state) == (9, "open")
    event = recorded().get()
    assert (event.kind, event.reason) == ("breaker.changed", "flaky")
    assert event.before is not None
    assert event.after is not None
    assert (event.before["failure_threshold"], event.after["failure_threshold"]) == ("5", "9")


def _account_form(account: Account, **changes: str) -> dict[str, str]:
    return {
        "environment": account.environment,
        "quote_currency": account.quote_currency,
        "options": "{}",
        "day_zone": "UTC",
        "day_starts": "00:00:00",
        "is_active": "on",
        "reason": "because",
    } | changes


def test_a_difference_is_adopted_or_ignored_for_a_reason(
    admin_client: Client, viewer: Client
) -> None:
    held = PositionFactory.create(quantity=Decimal(1))
    rows = [
        differences.Seen(differences.Kind.POSITION, held.symbol, held.symbol, "1", "0.4", "less"),
        differences.Seen(differences.Kind.FOREIGN_ORDER, held.symbol, "77", "", "buy 1", "order"),
    ]
    position, foreign = differences.note(held.account, rows)
    form = {"reason": "sold by hand"}
    assert viewer.post(page_of(position, "adopt"), form).status_code == 403
    admin_client.post(page_of(position, "adopt"), {"reason": ""})
    held.refresh_from_db()
    assert held.quantity == 1
    admin_client.post(page_of(position, "adopt"), form)
    held.refresh_from_db()
    assert held.quantity == Decimal("0.4")
    refused = admin_client.post(page_of(foreign, "adopt"), form, follow=True)
    assert "cannot be adopted" in refused.content.decode()
    admin_client.post(page_of(foreign, "ignore"), {"reason": "mine"})
    foreign.refresh_from_db()
    assert (foreign.state, foreign.reason, foreign.resolved_by) == ("ignored", "mine", "admin")
    again = admin_client.post(page_of(foreign, "ignore"), {"reason": "twice"}, follow=True)
    assert "is ignored already" in again.content.decode()
    kinds = recorded().exclude(kind="difference.found").values_list("kind", "reason")
    assert sorted(kinds) == [
        ("difference.adopted", "sold by hand"),
        ("difference.ignored", "mine"),
    ]


def test_credentials_are_written_and_never_shown(admin_client: Client) -> None:
    account = AccountFactory.create(broker="ccxt", options={"exchange": "binance"})
    typed = {
        "credential_api_key": f"{CANARY}-abcd",
        "credential_api_secret": CANARY,
        "options": '{"exchange": "binance"}',
    }
    answer = admin_client.post(page_of(account), _account_form(account, **typed), follow=True)
    assert CANARY not in answer.content.decode()
    page = admin_client.get(page_of(account)).content.decode()
    assert CANARY not in page
    assert "…abcd" in page
    assert account.credential.reveal() == {"api_key": f"{CANARY}-abcd", "api_secret": CANARY}
    assert Account.objects.get().version > account.version
    assert CANARY not in str(list(recorded().values()))
    event = recorded().get(kind="credential.changed")
    assert (event.after, event.reason) == ({"hint": "…abcd"}, "because")


def test_credentials_without_the_exchanges_form_are_refused(admin_client: Client) -> None:
    account = AccountFactory.create(broker="ccxt", options={"exchange": "kraken"})
    typed = {
        "credential_api_key": "key",
        "credential_api_secret": f"{CANARY}!",
        "options": '{"exchange": "kraken"}',
    }
    answer = admin_client.post(page_of(account), _account_form(account, **typed))
    page = answer.content.decode()
    assert "a Kraken API secret is base64 text" in page
    assert CANARY not in page
    assert not ExchangeCredential.objects.filter(account=account).exists()


def test_a_rejected_form_does_not_give_the_credential_back(admin_client: Client) -> None:
    account = AccountFactory.create(broker="ccxt", options={"exchange": "kraken"})
    form = _account_form(account, credential_api_key=CANARY)
    page = admin_client.post(page_of(account), form).content.decode()
    assert "all credentials are replaced together" in page
    assert CANARY not in page
    assert not ExchangeCredential.objects.exists()


def test_saving_an_account_makes_workers_reconnect(admin_client: Client) -> None:
    account = AccountFactory.create(equity=Decimal(5))
    form = _account_form(account, options='{"spread_bps": "7"}')
    assert admin_client.post(page_of(account), form).status_code == 302
    stored = Account.objects.get()
    assert (stored.version, stored.options) == (account.version + 1, {"spread_bps": "7"})
    assert stored.equity == 5
    event = recorded().get()
    assert (event.kind, event.subject) == ("account.changed", f"account {account.name}")


def _told(**changes: Any) -> str:
    """What the check prints."""
    told = {
        "problems": [], "warnings": [], "latency_ms": 12, "clock_skew_ms": -3, "may_trade": True,
        "may_withdraw": None, "ip_restricted": False,
    }  # fmt: skip
    return json.dumps(told | changes)


@pytest.mark.parametrize(
    ("stdout", "stderr", "shown"),
    [
        (_told(), "", ["The venue answers", "12 ms", "-3 ms", "not told"]),
        (_told(problems=["this key may withdraw"]), "", ["this key may withdraw"]),
        (_told(warnings=[HOSTILE]), "", ["&lt;script&gt;alert"]),
        ("", "a log line\nCommandError: QUERY_FAILED: timeout", ["QUERY_FAILED: timeout"]),
    ],
)
def test_a_connection_is_tested_in_a_process_of_its_own(
    admin_client: Client, stdout: str, stderr: str, shown: list[str]
) -> None:
    account = AccountFactory.create(name="paper7")
    done = subprocess.CompletedProcess([], 0, stdout, stderr)
    with patch.object(subprocess, "run", return_value=done) as run:
        page = admin_client.get(page_of(account, "test_connection")).content.decode()
    assert run.call_args.args[0][-2:] == ["check_account", "paper7"]
    for words in shown:
        assert words in page
    assert "<script>alert" not in page


def test_a_silent_venue_is_a_problem_and_looking_is_not_testing(
    admin_client: Client, viewer: Client
) -> None:
    account = AccountFactory.create()
    silent = subprocess.TimeoutExpired("x", 20)
    with patch.object(subprocess, "run", side_effect=silent) as run:
        page = admin_client.get(page_of(account, "test_connection")).content.decode()
        assert "no answer within 20 s" in page
        assert viewer.get(page_of(account, "test_connection")).status_code == 403
    assert run.call_count == 1


@pytest.mark.parametrize("typed", ["", "Paper7", "paper"])
def test_nothing_goes_live_without_its_name(admin_client: Client, typed: str) -> None:
    account = AccountFactory.create(name="paper7", environment="sandbox")
    form = _account_form(account, environment="live", typed_name=typed)
    answer = admin_client.post(page_of(account), form)
    assert "type paper7 to confirm it" in answer.content.decode()
    account.refresh_from_db()
    assert account.environment == "sandbox"
    assert not recorded().exists()


def test_no_order_is_left_behind_in_another_environment(admin_client: Client) -> None:
    account = AccountFactory.create(name="paper7", reconciled_at=timezone.now())
    order = OrderFactory.create(account=account, state=OrderState.OPEN)
    sandbox = _account_form(account, environment="sandbox")
    page = admin_client.post(page_of(account), sandbox).content.decode()
    assert "paper7: 1 order has not ended" in page
    Order.objects.filter(pk=order.pk).update(state=OrderState.FILLED)
    assert admin_client.post(page_of(account), sandbox).status_code == 302
    account.refresh_from_db()
    assert (account.environment, account.reconciled_at) == ("sandbox", None)


def test_going_live_is_confirmed_once(admin_client: Client) -> None:
    """Typed to go live; other changes of a live account ask for nothing, switching on again does."""
    account = AccountFactory.create(name="paper7", environment="sandbox")
    live = _account_form(account, environment="live", typed_name="paper7")
    assert admin_client.post(page_of(account), live).status_code == 302
    later = live | {"typed_name": "", "quote_currency": "USD"}
    assert admin_client.post(page_of(account), later).status_code == 302
    off = {name: value for name, value in later.items() if name != "is_active"}
    assert admin_client.post(page_of(account), off).status_code == 302
    assert admin_client.post(page_of(account), later).status_code == 200
    account.refresh_from_db()
    assert (account.environment, account.quote_currency, account.is_active) == (
        "live",
        "USD",
        False,
    )


def test_unknown_options_are_refused(admin_client: Client) -> None:
    account = AccountFactory.create()
    form = _account_form(account, options='{"leverage": "100"}')
    page = admin_client.post(page_of(account), form).content.decode()
    assert "paper has no option &#x27;leverage&#x27;" in page
    assert not recorded().exists()


def test_a_new_account_leads_to_its_credentials(admin_client: Client) -> None:
    form = {
        "name": "kraken",
        "broker": "ccxt",
        "environment": "dry_run",
        "quote_currency": "USD",
        "options": '{"exchange": "kraken"}',
        "day_zone": "America/New_York",
        "day_starts": "17:00:00",
        "is_active": "on",
        "reason": "new venue",
    }
    answer = admin_client.post(reverse("admin:brokers_account_add"), form)
    account = Account.objects.get()
    assert answer.headers["Location"].startswith(page_of(account))
    assert "credential_api_secret" in admin_client.get(page_of(account)).content.decode()
    assert recorded().get().kind == "account.created"


def test_a_new_account_must_be_one_its_plugin_can_work_with(admin_client: Client) -> None:
    account = AccountFactory.build(environment="sandbox", quote_currency="USD")
    form = _account_form(account, name="kraken", broker="ccxt", options='{"exchange": "kraken"}')
    page = admin_client.post(reverse("admin:brokers_account_add"), form).content.decode()
    assert "has no sandbox: use environment dry_run" in page
    assert not Account.objects.exists()


def test_accounts_and_strategies_are_never_deleted(admin_client: Client) -> None:
    for row in (AccountFactory.create(), StrategyFactory.create()):
        assert (
            admin_client.post(page_of(row, "delete"), {"post": "yes", "reason": "x"}).status_code
            == 403
        )
        row.refresh_from_db()


def test_a_new_secret_is_shown_once_and_the_old_one_ends(admin_client: Client) -> None:
    strategy = StrategyFactory.create()
    old, _ = new_secret(strategy, "token")
    answer = admin_client.post(page_of(strategy, "rotate"), {"old": "later", "reason": "monthly"})
    value = answer.context["secrets"]["token"]
    assert value in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"].split(", ")
    new = strategy.secrets.exclude(pk=old.pk).get()
    assert new.digest == digest_of(value).hex()
    assert new.expires_at is None
    old.refresh_from_db()
    assert old.expires_at is not None
    assert timedelta(hours=23) < old.expires_at - timezone.now() <= timedelta(hours=24)
    assert value not in admin_client.get(page_of(strategy)).content.decode()
    event = recorded().get(kind="secret.rotated")
    assert value not in str(event.after)
    assert event.reason == "monthly"


def test_a_leaked_secret_ends_at_once(admin_client: Client) -> None:
    strategy = StrategyFactory.create()
    old, _ = new_secret(strategy, "token")
    admin_client.post(page_of(strategy, "rotate"), {"old": "now", "reason": "leaked"})
    old.refresh_from_db()
    assert old.expires_at is not None
    assert old.expires_at <= timezone.now()


def _formset(prefix: str, *rows: dict[str, Any], initial: int = 0) -> dict[str, Any]:
    form: dict[str, Any] = {
        f"{prefix}-TOTAL_FORMS": len(rows),
        f"{prefix}-INITIAL_FORMS": initial,
    }
    for number, row in enumerate(rows):
        form |= {f"{prefix}-{number}-{name}": value for name, value in row.items()}
    return form


def test_a_strategy_and_its_route_are_audited(admin_client: Client) -> None:
    account = AccountFactory.create(name="paper")
    form = {
        "slug": "breakout",
        "is_enabled": "on",
        "auth": "token",
        "format": "fks",
        "max_age": 300,
        "dedupe_window": 60,
        "most_alerts_window": 180,
        "approval_seconds": 120,
        "execution": "whole",
        "exit_execution": "whole",
        "slices": 10,
        "slicing_seconds": 600,
        "ladder_percent": "0.5",
        "trail_step": "0.25",
        "expects_zone": "UTC",
        "on_naked": "close",
        "reason": "new idea",
        **_formset(
            "routes",
            {"account": account.pk, "is_enabled": "on", "sizing": "fixed_quantity"},
        ),
        **_formset("secrets"),
    }
    answer = admin_client.post(reverse("admin:execution_strategy_add"), form, follow=True)
    strategy = Strategy.objects.get()
    assert not strategy.is_enabled, "it has no secret yet"
    assert strategy.routes.get().account == account
    assert "has no token secret" in answer.content.decode()
    kinds = recorded().order_by("id").values_list("kind", "subject", "reason")
    assert list(kinds) == [
        ("strategy.created", "strategy breakout", "new idea"),
        ("route.created", "route breakout → paper", "new idea"),
    ]


def _limit_form(*rows: dict[str, Any], initial: int = 0, reason: str = "why") -> dict[str, Any]:
    return {"account": "", "strategy": "", "symbol": "", "reason": reason} | _formset(
        "limits", *rows, initial=initial
    )


def test_a_limit_is_changed_with_before_and_after(admin_client: Client) -> None:
    policy = RiskPolicy.objects.create()
    limit = RiskLimit.objects.create(policy=policy, rule="max_order_value", value=Decimal(1000))
    row = {"id": limit.pk, "policy": policy.pk, "value": "500.50", "mode": "observe"}
    new = {"id": "", "policy": policy.pk, "rule": "daily_loss", "value": "50", "mode": "enforce"}
    form = _limit_form(row, new, initial=1, reason="quieter market")
    assert admin_client.post(page_of(policy), form).status_code == 302
    limit.refresh_from_db()
    assert (limit.value, limit.mode) == (Decimal("500.5"), "observe")
    assert policy.limits.get(rule="daily_loss").value == 50
    changed = recorded().get(subject__contains="max_order_value")
    assert (changed.kind, changed.reason) == ("limit.changed", "quieter market")
    assert changed.before == {"value": "1000", "mode": "enforce"}
    assert changed.after == {"value": "500.5", "mode": "observe"}
    assert recorded().filter(kind="limit.changed").count() == 2


def test_what_a_rule_is_told_is_written_beside_its_value(admin_client: Client) -> None:
    row = {"rule": "repeated_execution", "value": "5", "mode": "enforce"}
    add = reverse("admin:risk_riskpolicy_add")
    refused = admin_client.post(add, _limit_form(row | {"parameters": "window=soon"}))
    assert "is not a whole number of seconds" in refused.content.decode()
    assert (
        "name=text"
        in admin_client.post(add, _limit_form(row | {"parameters": "window"})).content.decode()
    )
    assert admin_client.post(add, _limit_form(row | {"parameters": "window=30"})).status_code == 302
    limit = RiskLimit.objects.get()
    assert limit.parameters == {"window": "30"}
    assert 'value="window=30"' in admin_client.get(page_of(limit.policy)).content.decode()


def test_what_limits_did_today_is_shown(admin_client: Client) -> None:
    policy = RiskPolicy.objects.create()
    RiskLimit.objects.create(policy=policy, rule="max_order_value", value=1)
    account = AccountFactory.create()
    for kind in ("denied", "observed", "observed"):
        LimitHit.objects.create(
            at=timezone.now(),
            kind=kind,
            rule="max_order_value",
            scope="everything",
            account=account,
            symbol="BTC/USDT",
            order_id=uuid7(),
            detail="order value 2 is above the limit of 1",
        )
    assert "1 denied, 2 would have denied" in admin_client.get(page_of(policy)).content.decode()
    listed = admin_client.get(reverse("admin:risk_limithit_changelist")).content.decode()
    assert listed.count("order value 2 is above the limit of 1") == 3


@pytest.mark.parametrize(
    ("rule", "value", "complaint"),
    [
        ("risk_per_trade", "2", "0.02 means 2 %, and 2 is above 1"),
        ("max_open_orders", "2.5", "2.5 is not a whole number"),
        ("no_such_rule", "1", "not one of the available choices"),
        ("max_order_value", "-1", "a limit is a number of at least 0"),
    ],
)
def test_a_senseless_limit_is_refused(
    admin_client: Client, rule: str, value: str, complaint: str
) -> None:
    form = _limit_form({"rule": rule, "value": value, "mode": "enforce"})
    answer = admin_client.post(reverse("admin:risk_riskpolicy_add"), form)
    assert complaint in answer.content.decode()
    assert not RiskLimit.objects.exists()
    assert not recorded().exists()


def test_a_network_with_host_bits_is_explained(admin_client: Client) -> None:
    form = {"name": "office", "reason": "us", **_formset("networks", {"cidr": "10.0.0.1/8"})}
    page = admin_client.post(reverse("admin:risk_ipallowlist_add"), form).content.decode()
    assert "did you mean 10.0.0.0/8?" in page
    assert not IPAllowlist.objects.exists()


def test_networks_are_audited_one_by_one(admin_client: Client) -> None:
    allowlist = IPAllowlist.objects.create(name="office")
    gone = AllowedNetwork.objects.create(allowlist=allowlist, cidr="10.0.0.0/8")
    kept = AllowedNetwork.objects.create(allowlist=allowlist, cidr="10.1.0.0/16")
    rows = [
        {"id": gone.pk, "allowlist": allowlist.pk, "cidr": "10.0.0.0/8", "DELETE": "on"},
        {"id": kept.pk, "allowlist": allowlist.pk, "cidr": "10.2.0.0/16"},
        {"id": "", "allowlist": allowlist.pk, "cidr": "192.0.2.7"},
    ]
    form = {"name": "office", "reason": "moved", **_formset("networks", *rows, initial=2)}
    assert admin_client.post(page_of(allowlist), form).status_code == 302
    events = {event.kind: event for event in recorded().all()}
    assert set(events) == {"network.created", "network.changed", "network.deleted"}
    assert events["network.deleted"].before["cidr"] == "10.0.0.0/8"
    assert events["network.changed"].before["cidr"] == "10.1.0.0/16"
    assert events["network.changed"].after["cidr"] == "10.2.0.0/16"
    assert {event.reason for event in events.values()} == {"moved"}


def test_a_deletion_asks_why(admin_client: Client) -> None:
    alias = SymbolAlias.objects.create(alias="XBT", symbol="BTC/USDT")
    address = page_of(alias, "delete")
    assert 'name="reason"' in admin_client.get(address).content.decode()
    refused = admin_client.post(address, {"post": "yes", "reason": " "}, follow=True)
    assert "A deletion needs a reason." in refused.content.decode()
    assert SymbolAlias.objects.exists()
    admin_client.post(address, {"post": "yes", "reason": "renamed"})
    assert not SymbolAlias.objects.exists()
    event = recorded().get()
    assert (event.kind, event.reason) == ("alias.deleted", "renamed")
    assert event.before["alias"] == "XBT"


def test_the_menu_shows_what_the_user_may_see(client: Client) -> None:
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename="view_order"))
    client.force_login(user)
    page = client.get(reverse("admin:index")).content.decode()
    assert reverse("admin:auth_user_changelist") not in page
    menu = page.partition("nav-sidebar")[2]
    assert "Quarantine" not in menu


def test_a_log_in_without_a_destination_leads_home(client: Client, admin_user: User) -> None:
    page = client.get("/admin/login/").content.decode()
    assert 'name="next" value="/admin/"' in page


def test_a_self_tests_report_is_shown(admin_client: Client) -> None:
    report = RiskReport.objects.create(
        at=timezone.now(),
        passed=False,
        actor="command",
        results=[
            {"control": "daily_loss", "scope": "everything", "passed": False, "detail": HOSTILE}
        ],
    )
    assert (
        "1, 1 failed"
        in admin_client.get(reverse("admin:risk_riskreport_changelist")).content.decode()
    )
    page = admin_client.get(page_of(report)).content.decode()
    assert "daily_loss" in page
    assert HOSTILE not in page


def test_a_breakers_history_is_shown(admin_client: Client) -> None:
    account = AccountFactory.create()
    for _ in range(5):
        breakers.failed(account, HOSTILE)
    page = admin_client.get(page_of(breakers.of_account(account.pk))).content.decode()
    assert "opened 1 time" in page
    assert page.count("<rect") == 2
    assert HOSTILE not in page
