"""The home page, its fragment, and the switch on it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.http import HttpRequest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from brokers.access import Reach
from brokers.models import Account, AccountRestriction, Instrument
from execution import alarms, differences, halting
from execution.days import day_of, today
from execution.ids import first_id_at, uuid7
from execution.models import Alarm, Difference, FundingPayment, Protection
from execution.states import OrderState, SignalState
from fks_site import account_figures, dashboard, menu
from risk import audit, breakers, switch
from risk.models import AuditEvent, LimitHit, RiskLimit, RiskPolicy, TradingState
from tests.execution.test_book import priced
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    SignalFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
Scope = TradingState.Scope


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    cache.clear()


@pytest.fixture
def viewer(client: Client) -> Client:
    """Logged in, allowed to look at everything and to change nothing."""
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    return client


def test_the_view_counts_what_an_operator_needs() -> None:
    account = AccountFactory.create()
    now = timezone.now()
    waits = SignalFactory.create(received_at=now - timedelta(seconds=90))
    SignalFactory.create(state=SignalState.DENIED, reason="MAX_ORDER_VALUE")
    SignalFactory.create(state=SignalState.DENIED, reason="MAX_ORDER_VALUE")
    SignalFactory.create(state=SignalState.EXPIRED, reason="STALE")
    SignalFactory.create(state=SignalState.EXECUTED)
    OrderFactory.create(account=account, state=OrderState.OPEN)
    OrderFactory.create(account=account, state=OrderState.UNKNOWN)
    done = OrderFactory.create(account=account, state=OrderState.FILLED)
    FillFactory.create(order=done, realised_pnl=Decimal("1.5"))
    FillFactory.create(order=done, realised_pnl=Decimal("-0.25"))
    yesterday = now - timedelta(days=1)
    FillFactory.create(order=done, realised_pnl=Decimal(100), recorded_at=yesterday)
    PositionFactory.create(account=account, quantity=Decimal(0))
    held = PositionFactory.create(account=account, symbol="ETH/USDT")

    view = dashboard.gather(now)

    assert view.signals == 5
    assert view.oldest_undecided == waits.received_at
    assert view.undecided_seconds == 90
    assert [(one.reason, one.count) for one in view.refusals] == [
        ("MAX_ORDER_VALUE", 2),
        ("STALE", 1),
    ]
    assert (view.working, view.unresolved) == (2, 1)
    assert view.realised == {("dry_run", "USDT"): Decimal("1.25")}
    assert view.positions == [held]
    assert (view.differences, view.unguarded) == (0, 0)
    assert view.state == "active"


def test_an_old_undecided_signal_is_still_the_oldest() -> None:
    long_ago = timezone.now() - timedelta(days=3)
    SignalFactory.create(id=first_id_at(long_ago), received_at=long_ago)
    assert dashboard.gather(timezone.now()).oldest_undecided == long_ago


def test_the_day_is_shown_by_half_hours() -> None:
    now = timezone.now()

    def came(minutes: int, state: str) -> None:
        at = now - timedelta(minutes=minutes)
        SignalFactory.create(id=uuid7_at(at), received_at=at, state=state)

    for minutes, state in ((5, "executed"), (40, "executed"), (41, "denied"), (100, "failed")):
        came(minutes, state)
    came(60 * 24 + 5, "executed")  # yesterday
    came(60 * 24 + 5, "received")  # yesterday, and still waiting
    cells = dashboard.gather(now).arrivals
    assert len(cells) == 48
    assert [(one.came, one.refused, one.tone) for one in cells[-4:]] == [
        (1, 1, "danger"),
        (0, 0, "default"),
        (2, 1, "warning"),
        (1, 0, "success"),
    ]
    assert sum(one.came for one in cells) == 4
    assert (cells[-1].began, cells[-1].text) == (
        now - timedelta(minutes=30),
        f"{now - timedelta(minutes=30):%H:%M} to {now:%H:%M} UTC: 1 came, 0 refused",
    )


def uuid7_at(moment: datetime) -> UUID:
    """An id of that moment like no other."""
    return UUID(int=first_id_at(moment).int | uuid4().int & (1 << 62) - 1)


@pytest.mark.parametrize(
    ("accounts", "shown"),
    [
        ([], "dry_run"),
        ([("sandbox", True), ("dry_run", True)], "sandbox"),
        ([("sandbox", True), ("live", True)], "live"),
        ([("live", False), ("sandbox", True)], "sandbox"),
    ],
)
def test_the_most_serious_environment_in_use_is_shown(
    accounts: list[tuple[str, bool]], shown: str
) -> None:
    for environment, is_active in accounts:
        AccountFactory.create(environment=environment, is_active=is_active)
    assert dashboard.gather(timezone.now()).environment == shown


def test_ids_sort_by_the_time_the_list_filters_ask_for() -> None:
    before, now = first_id_at(timezone.now()), uuid7()
    assert before < now < first_id_at(timezone.now() + timedelta(seconds=1))


def test_the_fragment_asks_the_database_nine_times_at_most(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(12):
        order = OrderFactory.create(signal=SignalFactory.create(), state=OrderState.FILLED)
        FillFactory.create(order=order)
        PositionFactory.create(account=order.account)
    admin_client.get(reverse("admin:second_factor"))  # the session notes when it began
    cache.delete(dashboard.CACHE_KEY)
    with django_assert_max_num_queries(12):  # its nine, the session, its user, the second factor
        assert admin_client.get(reverse("admin:dashboard")).status_code == 200


def test_many_open_pages_cost_one(
    admin_client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    admin_client.get(reverse("admin:dashboard"))
    with django_assert_num_queries(3):  # the session, its user, whether they prove themselves
        admin_client.get(reverse("admin:dashboard"))


def test_a_fragment_without_log_in_reloads_the_page(client: Client) -> None:
    answer = client.get(reverse("admin:dashboard"))
    assert (answer.status_code, answer.headers["HX-Refresh"]) == (401, "true")
    assert answer.content == b""


def test_the_empty_home_page_shows_how_to_post(admin_client: Client) -> None:
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert "curl -H &#x27;Prefer: wait=5&#x27;" in page or "curl -H 'Prefer: wait=5'" in page
    assert "http://testserver/webhook/demo/SECRET" in page
    assert "Add one" in page


def test_what_needs_an_operator_is_marked(admin_client: Client) -> None:
    OrderFactory.create(state=OrderState.NEEDS_OPERATOR)
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert "fks-card-alarm" in page
    assert "needs operator" in page


def test_what_blocks_or_endangers_is_said_at_the_top(admin_client: Client) -> None:
    order = OrderFactory.create(state=OrderState.FILLED)
    Protection.objects.create(
        account=order.account, symbol=order.symbol, entry=order, naked_since=timezone.now()
    )
    Protection.objects.create(account=order.account, symbol="ETH/USDT", entry=order)
    seen = differences.Seen(differences.Kind.POSITION, "BTC/USDT", "BTC/USDT", "1", "2", "off")
    differences.note(order.account, [seen])
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert "1 position without its stop at the venue" in page
    assert "1 difference between the venue and our book: entries in that symbol" in page
    (listed,) = re.findall(r'id="note-differences" href="([^"]+)"', page)
    differences.ask_flatten(Difference.objects.get(), reason="not ours")
    answer = admin_client.get(listed.replace("&amp;", "&"))
    assert answer.context["cl"].result_list[0].state == Difference.State.FLATTENING


def test_the_gravest_alarms_are_shown_and_the_others_counted(admin_client: Client) -> None:
    kinds = [Alarm.Kind.NAKED_POSITION, Alarm.Kind.NEEDS_OPERATOR, *[Alarm.Kind.SILENT] * 4]
    for number, kind in enumerate([*kinds, Alarm.Kind.CHANNEL_DOWN]):
        alarms.sound(alarms.Seen(kind, f"number {number}", "as a test"))
    alarms.sound(alarms.Seen(Alarm.Kind.GAP, "over", "as a test"))
    alarms.clear(Alarm.Kind.GAP, "over")
    view = dashboard.gather(timezone.now())
    assert [(one.kind, one.key) for one in view.alarms] == [
        ("naked_position", "number 0"),
        ("needs_operator", "number 1"),
        ("silent", "number 5"),
        ("silent", "number 4"),
        ("silent", "number 3"),
    ]
    assert (view.alarms_raised, view.more_alarms) == (7, 2)
    page = admin_client.get(reverse("admin:index")).text
    address = f"{reverse('admin:execution_alarm_changelist')}?raised=now"
    assert f'<a id="note-alarms" href="{address}">and 2 more: all 7 alarms</a>' in page
    items = [item for group in menu.navigation(answer_of(admin_client)) for item in group["items"]]
    (item,) = [one for one in items if one["title"] == "Alarms"]
    assert (item["badge"], item["badge_variant"]) == ("7", "danger")


def answer_of(client: Client) -> HttpRequest:
    return client.get(reverse("admin:index")).wsgi_request


def test_every_kind_of_alarm_has_its_gravity() -> None:
    assert sorted(alarms.GRAVEST_FIRST) == sorted(Alarm.Kind)


def test_a_flatten_says_how_much_is_left(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    halting.press(halting.Mode.FLATTEN, scope=Scope.GLOBAL, key="", reason="out of everything")
    done = "nothing left; what still turns up is closed"
    assert done in admin_client.get(reverse("admin:index")).text
    held = [PositionFactory.create() for _ in range(3)]
    OrderFactory.create(account=held[0].account, cancel_reason="CANCELED_BY_OPERATOR")
    cache.delete(dashboard.CACHE_KEY)
    with django_assert_max_num_queries(15):  # twelve as always, and three for the flatten
        page = admin_client.get(reverse("admin:dashboard")).text
    assert "Flatten of everything</a>: 1 order and 3 positions left" in page
    seen = dashboard.gather(timezone.now(), Reach("olga", (held[1].account,)))
    assert [(one.orders, one.positions) for one in seen.flattening] == [(0, 1)]


def test_halt_and_resume(admin_client: Client, admin_user: User) -> None:
    address = reverse("admin:trading")
    halt = {"mode": "halt", "target": "global:", "reason": "venue misbehaves"}
    answer = admin_client.post(address, halt, follow=True)

    row = TradingState.objects.get()
    assert (row.scope, row.key, row.state) == ("global", "", "halted")
    assert (row.reason, row.changed_by) == ("venue misbehaves", admin_user.username)
    assert "Trading is halted" in answer.content.decode()
    event = AuditEvent.objects.get(kind="trading_state.changed")
    assert (event.actor, event.reason) == (admin_user.username, "venue misbehaves")
    assert (event.before, event.address) == ({"state": "active"}, "127.0.0.1")

    admin_client.post(address, {"mode": "resume", "target": "global:", "reason": "fixed"})
    row.refresh_from_db()
    assert row.state == "active"
    assert AuditEvent.objects.filter(kind="trading_state.changed").count() == 2


def test_a_release_from_a_page_that_has_not_seen_the_halt_is_refused(admin_client: Client) -> None:
    address, State = reverse("admin:trading"), TradingState.State
    switch.change(State.REDUCING, reason="rebalancing")

    def opened(mode: str) -> dict[str, str]:
        form = admin_client.get(address, {"mode": mode}).context["form"]
        seen = json.dumps(form["seen"].initial)
        return {"mode": mode, "target": "global:", "reason": "as planned", "seen": seen}

    reduce, resume, halt = opened("reduce_only"), opened("resume"), opened("halt")
    with audit.acting(audit.Actor("olga")):
        switch.change(State.HALTED, reason="the feed is wrong")
    for form in (reduce, resume):
        answer = admin_client.post(address, form)
        assert "everything: halted by now (olga: the feed is wrong)" in answer.text
        assert TradingState.objects.get().state == "halted"
    again = resume | {"seen": answer.context["form"]["seen"].value()}
    assert admin_client.post(address, again).status_code == 302
    assert TradingState.objects.get().state == "active"
    assert admin_client.post(address, halt).status_code == 302, "a halt is never too late"
    assert TradingState.objects.get().state == "halted"


def test_a_page_that_halts_names_no_account_of_others(client: Client) -> None:
    mine, other = AccountFactory.create(name="mine"), AccountFactory.create(name="theirs")
    for account in (mine, other):
        switch.change(
            TradingState.State.HALTED,
            scope=TradingState.Scope.ACCOUNT,
            key=account.name,
            reason="test",
        )
    user = UserFactory.create()
    user.user_permissions.set(Permission.objects.filter(codename="halt_tradingstate"))
    AccountRestriction.objects.create(user=user).accounts.add(mine)
    client.force_login(user)
    page = client.get(reverse("admin:trading"))
    assert page.context["form"]["seen"].initial == {"account:mine": 1}
    assert "theirs" not in page.text


def test_one_account_is_halted_alone(admin_client: Client) -> None:
    account = AccountFactory.create(name="kraken")
    form = {"mode": "reduce_only", "target": "account:kraken", "reason": "rebalancing"}
    admin_client.post(reverse("admin:trading"), form)
    row = TradingState.objects.get()
    assert (row.scope, row.key, row.state) == ("account", account.name, "reducing")
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert "Trading is active" in page
    assert "rebalancing" in page


@pytest.mark.parametrize(
    "form",
    [
        {"mode": "halt", "target": "global:", "reason": " "},
        {"mode": "halt", "target": "account:nobody", "reason": "typo"},
        {"mode": "pause", "target": "global:", "reason": "no such mode"},
    ],
)
def test_an_incomplete_switch_switches_nothing(admin_client: Client, form: dict[str, str]) -> None:
    answer = admin_client.post(reverse("admin:trading"), form)
    assert answer.status_code == 200
    assert not TradingState.objects.exists()
    assert not AuditEvent.objects.exclude(kind__startswith="login.").exists()


def test_who_may_only_look_cannot_halt(viewer: Client) -> None:
    form = {"mode": "halt", "target": "global:", "reason": "please"}
    assert viewer.post(reverse("admin:trading"), form).status_code == 403
    assert not TradingState.objects.exists()
    page = viewer.get(reverse("admin:index")).content.decode()
    assert "Trading is active" in page
    assert reverse("admin:trading") not in page


def test_who_may_not_look_sees_no_figures(client: Client) -> None:
    held = PositionFactory.create(symbol="SOL/USDT")
    client.force_login(UserFactory.create())
    for name in ("index", "dashboard"):
        page = client.get(reverse(f"admin:{name}")).content.decode()
        assert "You may not look" in page
        assert held.symbol not in page


def test_the_switch_asks_strangers_to_log_in(client: Client) -> None:
    form = {"mode": "halt", "target": "global:", "reason": "please"}
    answer = client.post(reverse("admin:trading"), form)
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/admin/login/")
    assert not TradingState.objects.exists()


# --- figures of accounts --------------------------------------------------------------------------


def of_today(**columns: Any) -> Any:
    """The home page's one account, with a loss of 450 booked 30 minutes ago."""
    account = AccountFactory.create(**columns)
    order = OrderFactory.create(account=account, state=OrderState.FILLED)
    booked = timezone.now() - timedelta(minutes=30)
    FillFactory.create(order=order, realised_pnl=Decimal(-450), recorded_at=booked)
    return account


def limit(value: str, mode: str = "enforce", **policy: Any) -> None:
    row, _ = RiskPolicy.objects.get_or_create(**({"account": None} | policy))
    RiskLimit.objects.create(policy=row, rule="daily_loss", value=Decimal(value), mode=mode)


def test_the_days_loss_stands_against_the_tightest_limit_in_force(admin_client: Client) -> None:
    with time_machine.travel(datetime(2026, 3, 10, 12, tzinfo=UTC), tick=True):
        account = of_today()
        limit("1000")
        limit("500", account=account)
        limit("10", mode="observe", account=AccountFactory.create(name="other"))
        limit("20", strategy="trend")
        (row,) = [one for one in dashboard.gather(timezone.now()).accounts if one.pk == account.pk]
        assert (row.realised, row.daily_limit) == (Decimal(-450), Decimal(500))
        admin_client.get(reverse("admin:second_factor"))
        page = admin_client.get(reverse("admin:dashboard")).content.decode()
    assert '<progress max="100" value="90"' in page
    assert "fks-used-warning" in page


def test_the_bar_counts_open_positions_as_the_rule_does(admin_client: Client) -> None:
    with time_machine.travel(datetime(2026, 3, 10, 12, tzinfo=UTC), tick=True):
        account = of_today()
        limit("500")
        PositionFactory.create(account=account, quantity=1, average_price=Decimal(90))
        priced(account, price="90")
        today(account, timezone.now())
        Instrument.objects.update(last_price=Decimal(50))
        row = dashboard.gather(timezone.now()).accounts[0]
        use = account_figures.daily_use(row)
        assert use == account_figures.DailyUse(Decimal(490), Decimal(500))
        assert (use.percent, use.tone) == (98, "warning")
        page = admin_client.get(reverse("admin:dashboard")).content.decode()
        assert "98 % of the daily loss limit used" in page

        Account.objects.update(environment="sandbox")
        Instrument.objects.update(last_price_at=timezone.now() - timedelta(minutes=6))
        cache.clear()
        page = admin_client.get(reverse("admin:dashboard")).content.decode()
        assert "a position has no price: entries are refused" in page
        RiskLimit.objects.update(parameters={"unrealised": "ignore"})
        row = dashboard.gather(timezone.now()).accounts[0]
        assert account_figures.daily_use(row) == account_figures.DailyUse(
            Decimal(450), Decimal(500)
        )


@pytest.mark.parametrize(
    ("zone", "starts", "is_counted"),
    [("UTC", "00:00", True), ("UTC", "11:45", False), ("America/New_York", "00:00", True),
     ("America/New_York", "07:45", False), ("Asia/Tokyo", "21:00", False)],
)  # fmt: skip
def test_a_day_is_the_accounts_own(zone: str, starts: str, is_counted: bool) -> None:
    with time_machine.travel(datetime(2026, 3, 10, 12, tzinfo=UTC), tick=True):
        account = of_today(day_zone=zone, day_starts=time.fromisoformat(starts))
        (row,) = dashboard.gather(timezone.now()).accounts
        assert row.began == day_of(account, timezone.now())[1]
        assert row.realised == (-450 if is_counted else 0)


def test_how_long_the_venue_takes_to_answer() -> None:
    account = AccountFactory.create()
    now = timezone.now()
    for number in range(1, 22):
        sent = now - timedelta(minutes=number)
        OrderFactory.create(
            account=account,
            submitted_at=sent,
            acknowledged_at=sent + timedelta(milliseconds=10 * number),
        )
    old = now - timedelta(hours=2)
    OrderFactory.create(account=account, submitted_at=old, acknowledged_at=now)
    (row,) = dashboard.gather(now).accounts
    assert row.answer_p95 == timedelta(milliseconds=200)


def test_a_breaker_is_tripped_and_reset_from_here(admin_client: Client, viewer: Client) -> None:
    account = AccountFactory.create(name="main")
    breaker = breakers.of_account(account.pk)
    venue = breakers.of_venue(account)
    page = admin_client.get(reverse("admin:dashboard")).content.decode()
    trip = reverse("admin:risk_circuitbreaker_trip", args=[venue.pk])
    assert f'href="{trip}"' in page
    breakers.trip(venue, "maintenance")
    cache.clear()
    page = admin_client.get(reverse("admin:dashboard")).content.decode()
    reset = reverse("admin:risk_circuitbreaker_reset", args=[venue.pk])
    assert f'href="{reset}"' in page
    assert "maintenance" in page
    assert f"operate-breaker-{breaker.pk}" in page
    looked = viewer.get(reverse("admin:dashboard")).content.decode()
    assert "maintenance" in looked
    assert "operate-breaker" not in looked


def test_the_home_page_draws_what_thirty_days_have_brought(admin_client: Client) -> None:
    order = OrderFactory.create(state=OrderState.FILLED)
    for days, result in ((40, 1000), (3, 5), (2, -2), (1, 4)):
        at = timezone.now() - timedelta(days=days)
        FillFactory.create(order=order, realised_pnl=Decimal(result), recorded_at=at)
    (curve,) = account_figures.curves(User(is_superuser=True))
    assert (curve.currency, curve.total, curve.is_loss) == ("USDT", Decimal(7), False)
    assert curve.line is not None
    assert (curve.line.first.total, curve.line.last.total) == (5, 7)
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert "Realised in 30 days" in page
    assert curve.line.path in page


def test_paper_is_not_added_to_money_on_the_home_page(admin_client: Client) -> None:
    for environment, result in (("dry_run", 900), ("live", -7), ("live", -3)):
        account = AccountFactory.create(environment=environment)
        FillFactory.create(order__account=account, realised_pnl=Decimal(result))
    realised = {("dry_run", "USDT"): 900, ("live", "USDT"): -10}
    assert dashboard.gather(timezone.now()).realised == realised
    found = account_figures.curves(User(is_superuser=True))
    assert {(one.environment, one.currency): one.total for one in found} == realised
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert page.count("Realised in 30 days") == 2


def test_thirty_days_are_counted_in_the_accounts_currency(admin_client: Client) -> None:
    """As the day is: at the last rate of the symbol, funding included."""
    account = AccountFactory.create()
    priced(account, "ETH/BTC", "0.05", last_rate=Decimal(60000))
    order = OrderFactory.create(account=account, symbol="ETH/BTC")
    FillFactory.create(order=order, realised_pnl=Decimal("-0.05"))
    FundingPayment.objects.create(
        account=account, payment_id="1", symbol="BTC/USDT:USDT", amount=Decimal(4), currency="USDT",
        at=timezone.now(), recorded_at=timezone.now(),
    )  # fmt: skip
    (curve,) = account_figures.curves(User(is_superuser=True))
    assert curve.total == dashboard.gather(timezone.now()).accounts[0].realised == -2996


def test_an_alert_counts_once_for_each_rule_that_denied_it(admin_client: Client) -> None:
    account, now = AccountFactory.create(), timezone.now()

    def denied(order: Any, *rules: str, kind: str = "denied", hours: int = 1) -> None:
        for rule in rules:
            LimitHit.objects.create(
                at=now - timedelta(hours=hours), kind=kind, rule=rule, scope="everything",
                account=account, symbol="BTC/USDT", order_id=order.pk, detail="too much",
            )  # fmt: skip

    first, second = SignalFactory.create(), SignalFactory.create()
    for _ in range(3):
        order = OrderFactory.create(signal=first, state=OrderState.DENIED)
        denied(order, "max_order_value", "daily_loss")
    denied(OrderFactory.create(account=account, signal=second), "max_order_value")
    by_hand = OrderFactory.create(account=account)
    denied(by_hand, "max_order_value")
    denied(by_hand, "max_drawdown", kind="observed")
    denied(by_hand, "max_drawdown", hours=25)
    found = account_figures.denials(User(is_superuser=True))
    assert [(one.rule, one.alerts) for one in found] == [("max_order_value", 3), ("daily_loss", 1)]
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert "Denied by rule, 24 h" in page
    assert "rule=max_order_value" in page
