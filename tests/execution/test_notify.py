"""Notifications: written with their event, sent as real HTTP by a task, at a channel's pace."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import requests
import time_machine
from django.db import transaction
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from brokers.errors import CredentialError
from brokers.models import Account
from execution import account_tasks, alarms, differences, notify, periodic_tasks, weekly
from execution.models import Alarm, Difference, EquitySample
from execution.states import OrderState
from execution.transitions import Event as Move
from execution.transitions import move
from risk import breakers, hits, notices, switch
from risk.channels import Channel, Event, Notice, Severity
from risk.models import TradingState
from risk.types import Verdict
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    SignalFactory,
    StrategyFactory,
)
from tests.receiver import TOKEN, Mailbox, Receiver, mailbox, receiver

__all__ = ["mailbox", "receiver"]

pytestmark = pytest.mark.django_db


def channel_to(address: str, name: str = "desk", **columns: Any) -> Channel:
    columns.setdefault("least_severity", Severity.INFO)
    channel = Channel.objects.create(name=name, **columns)
    channel.seal(address)
    channel.save()
    return channel


def told() -> list[str]:
    return list(Notice.objects.order_by("id").values_list("event", flat=True))


def later(seconds: float) -> time_machine.travel:
    return time_machine.travel(timezone.now() + timedelta(seconds=seconds), tick=True)


# --- what is put down -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "moved", "event", "severity"),
    [
        (OrderState.SUBMITTING, Move.ACKNOWLEDGE, Event.ORDER_ACCEPTED, Severity.INFO),
        (OrderState.OPEN, Move.FILL_PARTLY, Event.ORDER_PARTLY_FILLED, Severity.INFO),
        (OrderState.OPEN, Move.FILL, Event.ORDER_FILLED, Severity.INFO),
        (OrderState.OPEN, Move.CANCEL, Event.ORDER_ENDED, Severity.INFO),
        (OrderState.PENDING, Move.DENY, Event.ORDER_DENIED, Severity.INFO),
        (OrderState.SUBMITTING, Move.REJECT, Event.ORDER_REJECTED, Severity.WARNING),
        (OrderState.SUBMITTING, Move.LOSE_SIGHT, Event.ORDER_UNKNOWN, Severity.WARNING),
        (OrderState.UNKNOWN, Move.GIVE_UP, Event.ORDER_NEEDS_OPERATOR, Severity.ALARM),
    ],
)
def test_an_orders_move_is_told(
    state: OrderState, moved: Move, event: Event, severity: Severity
) -> None:
    channel_to("json://127.0.0.1:1/x")
    order = OrderFactory.create(state=state, strategy=StrategyFactory.create(slug="trend"))
    assert move(order, moved, detail="said so")
    notice = Notice.objects.get()
    assert (notice.event, notice.severity) == (event, severity)
    assert (notice.account, notice.strategy, notice.symbol) == (
        order.account.name,
        "trend",
        "BTC/USDT",
    )
    assert notice.title.endswith(f"buy 0.01 BTC/USDT on {order.account.name}")
    assert f"order {order.pk}" in notice.text


def test_a_step_between_states_is_no_news() -> None:
    channel_to("json://127.0.0.1:1/x")
    order = OrderFactory.create(state=OrderState.PENDING)
    assert move(order, Move.CLAIM, attempt=1)
    assert told() == []


def test_a_move_that_is_rolled_back_tells_nobody() -> None:
    channel_to("json://127.0.0.1:1/x")
    order = OrderFactory.create(state=OrderState.OPEN)
    with transaction.atomic():
        move(order, Move.FILL)
        assert told() == [Event.ORDER_FILLED]
        transaction.set_rollback(True)
    assert told() == []


def test_a_fill_says_how_much_at_what_price() -> None:
    channel_to("json://127.0.0.1:1/x")
    order = OrderFactory.create(state=OrderState.OPEN)
    move(order, Move.FILL, filled_quantity=order.quantity, average_price=order.reference_price)
    notice = Notice.objects.get()
    assert notice.title.startswith("Filled: buy 0.01 BTC/USDT")
    assert notice.text == f"0.01 of 0.01 at 60000 · order {order.pk}"


def test_a_venues_text_may_hold_anything() -> None:
    channel_to("json://127.0.0.1:1/x")
    notices.tell(Event.ORDER_REJECTED, lambda: notices.News("a\x00b" * 200, "c\x00"))
    row = Notice.objects.get()
    assert (row.title, row.text) == (("ab" * 200)[:200], "c")


def test_where_nobody_listens_an_event_costs_one_query(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    channel_to("json://127.0.0.1:1/x", is_active=False)
    with django_assert_num_queries(1):
        notices.tell(Event.ORDER_FILLED, lambda: pytest.fail("nobody asked for words"))
    assert told() == []


@pytest.mark.parametrize(
    ("filters", "is_told"),
    [
        ({}, True),
        ({"is_active": False}, False),
        ({"least_severity": Severity.WARNING}, True),
        ({"least_severity": Severity.ALARM}, False),
        ({"events": ["order_rejected"]}, True),
        ({"events": ["order_filled"]}, False),
        ({"accounts": ["main"]}, True),
        ({"accounts": ["other"]}, False),
        ({"strategies": ["trend"]}, True),
        ({"strategies": ["other"]}, False),
    ],
)
def test_filters(filters: dict[str, Any], is_told: bool) -> None:
    channel_to("json://127.0.0.1:1/x", **filters)
    news = notices.News("no", account="main", strategy="trend", symbol="BTC/USDT")
    notices.tell(Event.ORDER_REJECTED, lambda: news)
    assert Notice.objects.exists() is is_told


def test_an_event_of_no_account_and_strategy_passes_their_filters() -> None:
    channel_to("json://127.0.0.1:1/x", accounts=["main"], strategies=["trend"])
    switch.change(TradingState.State.HALTED, reason="enough")
    switch.change(TradingState.State.ACTIVE, reason="again")
    assert told() == [Event.TRADING_SWITCHED, Event.TRADING_RESUMED]


def test_a_breaker_that_opens_and_closes_is_told() -> None:
    channel_to("json://127.0.0.1:1/x")
    breaker = breakers.of_account(AccountFactory.create(name="main").pk)
    breakers.trip(breaker, "maintenance")
    breakers.reset(breaker, "over")
    opened, closed = Notice.objects.order_by("id")
    assert (opened.event, opened.severity, opened.account) == ("breaker_opened", 30, "main")
    assert opened.text == "maintenance"
    assert (closed.event, closed.severity) == ("breaker_closed", 10)


def test_a_limit_four_fifths_used_is_told_once_an_hour_of_each_account() -> None:
    """However often it warns: every warning would put the next telling off."""
    channel_to("json://127.0.0.1:1/x")
    verdict = Verdict(
        rule="max_order_value",
        passed=True,
        detail="850 of 1000",
        scope="everything",
        used=Decimal("0.85"),
    )
    places = [
        hits.Place(order.account_id, "trend", "BTC/USDT", order.pk)
        for order in OrderFactory.create_batch(2)
    ]
    noon = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0)
    for minutes, count in ((0, 1), (0, 1), (20, 1), (40, 1), (59, 1), (60, 2), (100, 2), (125, 3)):
        with time_machine.travel(noon + timedelta(minutes=minutes), tick=False):
            hits.note(places[0], [verdict])
        assert told() == [Event.LIMIT_NEAR] * count
    assert Notice.objects.earliest("pk").title == "max_order_value is 80 % used (everything)"
    with time_machine.travel(noon + timedelta(minutes=126), tick=False):
        hits.note(places[1], [verdict])
    assert told() == [Event.LIMIT_NEAR] * 4


def test_drift_is_told_once() -> None:
    channel_to("json://127.0.0.1:1/x")
    account = AccountFactory.create(name="main")
    seen = differences.Seen(Difference.Kind.POSITION, "BTC/USDT", "BTC/USDT", "0", "1", "one more")
    differences.note(account, [seen])
    differences.note(account, [seen])
    notice = Notice.objects.get()
    assert (notice.event, notice.severity, notice.text) == ("drift", 30, "one more")


@pytest.mark.parametrize("kind", sorted(set(Alarm.Kind) - {Alarm.Kind.NEEDS_OPERATOR}))
def test_an_alarm_is_told_when_it_is_raised_and_when_it_is_over(kind: str) -> None:
    channel_to("json://127.0.0.1:1/x")
    seen = alarms.Seen(Alarm.Kind(kind), "trend BTC/USDT", "why")
    alarms.sound(seen)
    alarms.sound(seen)
    assert [one.text for one in Notice.objects.all()] == ["why"]
    alarms.clear(seen.kind, seen.key)
    alarms.clear(seen.kind, seen.key)
    assert told()[1:] == [Event.ALARM_OVER]


def test_a_venue_that_refuses_the_log_in_is_an_alarm(
    monkeypatch: pytest.MonkeyPatch, scripted: Any
) -> None:
    channel_to("json://127.0.0.1:1/x")
    account: Account = scripted()

    def refused(_: Account) -> None:
        raise CredentialError("the session has ended")

    monkeypatch.setattr("execution.reconcile.reconcile_account", refused)
    account_tasks.reconcile_account(account.pk)
    account_tasks.reconcile_account(account.pk)
    notice = Notice.objects.get()
    assert (notice.event, notice.account, notice.text) == (
        "login_needed",
        account.name,
        "the session has ended",
    )


# --- sending --------------------------------------------------------------------------------------


def test_an_alarm_reaches_a_real_receiver_with_the_next_sweep(
    receiver: Receiver, eager: None
) -> None:
    channel_to(receiver.address)
    notices.tell(Event.NAKED_POSITION, lambda: notices.News("BTC/USDT has no stop", "look"))
    periodic_tasks.sweep()
    (body,) = receiver.bodies
    assert (body["title"], body["type"]) == ("FKS: BTC/USDT has no stop", "failure")
    assert body["message"].startswith("look\n")
    notice = Notice.objects.get()
    assert notice.state == Notice.State.SENT
    assert notice.sent_at is not None
    assert notice.sent_at - notice.at < timedelta(seconds=5)
    periodic_tasks.sweep()
    assert len(receiver.bodies) == 1


def test_what_is_no_alarm_waits_for_company_and_goes_as_one_message(receiver: Receiver) -> None:
    channel = channel_to(receiver.address)
    with time_machine.travel(timezone.now(), tick=False):
        for number in range(12):
            notices.tell(Event.ORDER_FILLED, lambda number=number: notices.News(f"fill {number}"))  # type: ignore[misc]
        notices.tell(Event.ORDER_REJECTED, lambda: notices.News("refused"))
        assert notify.due_channels() == []
        assert notify.deliver(channel.pk) == 0
    with later(4):
        assert notify.due_channels() == [channel.pk]
        assert notify.deliver(channel.pk) == 13
    (body,) = receiver.bodies
    assert body["title"] == "FKS: 13 events, worst: warning"
    lines = body["message"].splitlines()
    assert lines[:2] == ["• refused", "• fill 0"]
    assert lines[-1] == "and 3 × order filled"
    assert len(lines) == 11


@pytest.mark.parametrize("length", [30, 400])
def test_ten_long_lines_and_the_counts_of_the_rest_fit(length: int) -> None:
    """However long the lines, and however many kinds of events are only counted."""
    told = [Notice(event=Event.DRIFT, title=f"{n}", text="x" * length) for n in range(notify.LINES)]
    rest = [Notice(event=event, title="more") for event in Event for _ in range(30)]
    for row in told + rest:
        row.severity = Severity.WARNING
    few, many = (notify.compose(told + rest[:end])[1] for end in (60, None))
    assert [line[:4] for line in few.splitlines()[:-1]] == [f"• {n} " for n in range(notify.LINES)]
    for body, kinds in ((few, 2), (many, len(Event))):
        assert len(body) <= notify.LONGEST
        assert body.splitlines()[-1].count("30 × ") == kinds


def test_beyond_its_pace_a_channel_waits_and_an_alarm_does_not(receiver: Receiver) -> None:
    channel = channel_to(receiver.address, per_minute=2)
    start = timezone.now()
    for second in (0, 10, 20):
        with time_machine.travel(start + timedelta(seconds=second), tick=True):
            notices.tell(Event.ORDER_FILLED, lambda: notices.News("filled"))
        with time_machine.travel(start + timedelta(seconds=second + 4), tick=True):
            notify.deliver(channel.pk)
    assert len(receiver.bodies) == 2
    with time_machine.travel(start + timedelta(seconds=26), tick=True):
        notices.tell(Event.DRIFT, lambda: notices.News("drift"))
        assert notify.deliver(channel.pk) == 2
        notices.tell(Event.DRIFT, lambda: notices.News("more drift"))
        assert notify.deliver(channel.pk) == 0
    with time_machine.travel(start + timedelta(seconds=30), tick=True):
        assert notify.deliver(channel.pk) == 1
    assert [body["title"] for body in receiver.bodies[2:]] == [
        "FKS: 2 events, worst: alarm",
        "FKS: more drift",
    ]


def test_a_receiver_that_fails_is_asked_again_and_said_to_be_down(receiver: Receiver) -> None:
    channel = channel_to(receiver.address)
    receiver.status = 500
    notices.tell(Event.DRIFT, lambda: notices.News("drift"))
    start = timezone.now()
    for seconds in (0, 6, 17):
        with time_machine.travel(start + timedelta(seconds=seconds), tick=True):
            assert notify.due_channels() == [channel.pk]
            assert notify.deliver(channel.pk) == 0
            assert not Notice.objects.filter(event=Event.DRIFT, due_at__lte=timezone.now()).exists()
    notice = Notice.objects.get(event=Event.DRIFT)
    assert (notice.state, notice.tries) == ("waiting", 3)
    assert "500" in notice.error
    assert Alarm.objects.get(kind="channel_down").cleared_at is None
    receiver.status = 200
    with time_machine.travel(start + timedelta(seconds=60), tick=True):
        assert notify.deliver(channel.pk) == 2
    assert Alarm.objects.get(kind="channel_down").cleared_at is not None


def test_a_receiver_that_fails_is_left_alone_whatever_comes_meanwhile(receiver: Receiver) -> None:
    channel = channel_to(receiver.address, events=[Event.ORDER_REJECTED, Event.NAKED_POSITION])
    receiver.status = 500
    start, tried = timezone.now(), list[float]()

    def second(number: float, event: Event) -> None:
        with time_machine.travel(start + timedelta(seconds=number), tick=False):
            before = len(receiver.bodies)
            notices.tell(event, lambda: notices.News("one more"))
            Notice.objects.filter(tries=0).update(due_at=timezone.now())
            notify.deliver(channel.pk)
            tried.extend([number] * (len(receiver.bodies) - before))

    for number in range(40):
        second(number, Event.ORDER_REJECTED)
    assert tried == [0, 5, 15, 35]
    for number in range(40, 52):
        second(number, Event.NAKED_POSITION)
    assert tried[4:] == [40, 45, 50]


def test_a_long_text_is_cut_and_says_so(receiver: Receiver) -> None:
    channel = channel_to(receiver.address)
    long = "the venue says: " + "x" * 5000
    notices.tell(Event.NOT_FLAT, lambda: notices.News("t" * 200, long))
    assert notify.deliver(channel.pk) == 1
    (body,) = receiver.bodies
    assert len(body["title"]) + len(body["message"]) < 1950
    assert body["message"].startswith("the venue says: xxx")
    assert "cut here; all of it is in the admin" in body["message"]
    assert body["message"].endswith(" UTC")
    assert Notice.objects.get().text == long


HOSTILE = "<!channel> <img src=x> @everyone <@123> [a](http://evil) & <b"
"""What a symbol or a venue's error may say: Telegram refuses half a tag, a mail shows a picture."""


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("tgram://123456789:abcdefg_hijklmnop/123456", "&lt;!channel&gt; &lt;img src=x&gt;"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#d", "&lt;!channel&gt; &lt;img"),
        ("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "<!channel> <img src=x>"),
    ],
)
def test_a_chat_takes_hostile_text_for_text(
    monkeypatch: pytest.MonkeyPatch, address: str, shown: str
) -> None:
    posted: list[dict[str, Any]] = []

    def send(_: Any, request: requests.PreparedRequest, **__: Any) -> requests.Response:
        posted.append(json.loads(request.body or b"{}"))
        answer = requests.Response()
        answer.status_code = 200
        answer._content = b"ok"
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    notify.send(channel_to(address), HOSTILE, HOSTILE, Severity.ALARM)
    [body] = posted
    attachments = body.get("attachments", [body])
    text = attachments[0].get("text") or attachments[0]["content"]
    assert shown in text
    assert "@everyone" not in text
    assert "@123" not in text
    assert body.get("mrkdwn", False) is False


def test_a_mail_takes_hostile_text_for_text(mailbox: Mailbox) -> None:
    notify.send(channel_to(mailbox.address), "no\r\nBcc: x@y.example", HOSTILE, Severity.ALARM)
    [mail] = mailbox.mails
    head, _, body = mail.partition("\r\n\r\n")
    assert "text/plain" in head
    assert "text/html" not in mail
    assert "\r\nBcc:" not in mail
    assert "<!channel> <img src=3Dx>" in body


@pytest.mark.parametrize(
    ("tries", "age", "state"),
    [(19, 24 * 3600 + 1, "failed"), (18, 72 * 3600, "waiting"), (200, 23 * 3600, "waiting")],
)
def test_after_a_day_and_twenty_tries_it_is_given_up(
    receiver: Receiver, tries: int, age: int, state: str
) -> None:
    channel = channel_to(receiver.address)
    receiver.status = 500
    notices.tell(Event.DRIFT, lambda: notices.News("drift"))
    Notice.objects.update(tries=tries)
    with later(age):
        notify.deliver(channel.pk)
    notice = Notice.objects.get(event=Event.DRIFT)
    assert (notice.tries, notice.state) == (tries + 1, state)


def test_what_grew_old_while_the_machine_slept_is_tried_again(receiver: Receiver) -> None:
    channel = channel_to(receiver.address)
    receiver.status = 500
    notices.tell(Event.DRIFT, lambda: notices.News("drift"))
    monday = timezone.now() + timedelta(days=3)
    with time_machine.travel(monday, tick=True):
        assert notify.deliver(channel.pk) == 0
    receiver.status = 200
    with time_machine.travel(monday + timedelta(seconds=6), tick=True):
        assert notify.deliver(channel.pk) == 1


@pytest.mark.parametrize("seconds", [100, 3600])
def test_a_clock_that_is_set_back_holds_no_alarm_back(receiver: Receiver, seconds: int) -> None:
    channel = channel_to(receiver.address)
    with later(seconds):
        notices.tell(Event.DRIFT, lambda: notices.News("drift"))
        assert notify.deliver(channel.pk) == 1
        receiver.status = 500
        notices.tell(Event.NOT_FLAT, lambda: notices.News("not flat"))
    with later(seconds + 10):
        assert notify.deliver(channel.pk) == 0
    assert Notice.objects.get(event=Event.NOT_FLAT).tries == 1
    receiver.status = 200
    notices.tell(Event.NAKED_POSITION, lambda: notices.News("no stop"))
    assert notify.deliver(channel.pk) == 2


def test_what_waited_when_the_clock_was_set_back_is_sent(receiver: Receiver) -> None:
    channel = channel_to(receiver.address, per_minute=1)
    with later(3600):
        notices.tell(Event.ORDER_FILLED, lambda: notices.News("filled"))
    with later(3604):
        assert notify.deliver(channel.pk) == 1
        notices.tell(Event.ORDER_FILLED, lambda: notices.News("filled, too"))
    assert notify.due_channels() == [channel.pk]
    assert notify.deliver(channel.pk) == 1
    assert [body["title"] for body in receiver.bodies] == ["FKS: filled", "FKS: filled, too"]


def test_a_channel_switched_off_drops_what_waited(receiver: Receiver) -> None:
    channel = channel_to(receiver.address)
    notices.tell(Event.DRIFT, lambda: notices.News("drift"))
    Channel.objects.update(is_active=False)
    assert notify.deliver(channel.pk) == 0
    assert Notice.objects.get().state == Notice.State.DROPPED
    assert receiver.bodies == []


def test_no_address_is_kept_in_the_clear(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    channel = channel_to(receiver.address.replace("json", "jsons"))
    notices.tell(Event.DRIFT, lambda: notices.News("drift"))
    notify.deliver(channel.pk)
    notice = Notice.objects.get(event=Event.DRIFT)
    assert notice.error != ""
    for text in (notice.error, caplog.text, repr(channel), channel.sealed):
        assert TOKEN not in text
    text = notify.without_address("500 at /bot123456:SECRET/x", "tgram://123456:SECRET/42")
    assert text == "500 at /bot***:***/x"


def test_an_address_moved_to_another_row_does_not_open(receiver: Receiver) -> None:
    one = channel_to(receiver.address)
    other = Channel.objects.create(name="other", sealed=one.sealed)
    with pytest.raises(notify.NotDeliveredError):
        notify.send(other, "t", "b", Severity.INFO)
    assert receiver.bodies == []


# --- the weekly summary ---------------------------------------------------------------------------


def test_the_weekly_summary_comes_once_on_monday_morning(receiver: Receiver) -> None:
    monday = datetime(2026, 11, 16, 7, 0, 5, tzinfo=UTC)
    with time_machine.travel(monday - timedelta(days=2), tick=True):
        order = OrderFactory.create(
            account=AccountFactory.create(name="main"), state=OrderState.FILLED
        )
        FillFactory.create(order=order, realised_pnl=Decimal("11.999999999999999999"))
        for days, worth in ((6, "1000.555555"), (3, "990"), (1, "1002.1")):
            at = monday - timedelta(days=days)
            EquitySample.objects.create(account=order.account, at=at, equity=Decimal(worth))
        OrderFactory.create(account=order.account, state=OrderState.DENIED, reason="STALE")
        channel = channel_to(receiver.address, weekly_summary=True)
        channel_to(receiver.address, name="other")
        Channel.objects.update(summarised_at=timezone.now() - timedelta(days=3))
    with time_machine.travel(monday - timedelta(minutes=1), tick=True):
        assert weekly.look() == 0
    with time_machine.travel(monday, tick=True):
        assert weekly.look() == 1
        assert weekly.look() == 0
    notice = Notice.objects.get()
    assert (notice.channel, notice.event, notice.title) == (
        channel,
        "weekly_summary",
        "Week to 2026-11-16",
    )
    assert notice.text.splitlines() == [
        "main: +12 USDT in 1 fills, equity 1002.1 (+1.54)",
        "0 alerts, 2 orders, 1 filled",
        "refused 1 × STALE",
        "0 alarms",
    ]


def test_a_channel_of_some_accounts_gets_the_week_of_these_only(receiver: Receiver) -> None:
    monday = datetime(2026, 11, 16, 7, 0, 5, tzinfo=UTC)
    with time_machine.travel(monday - timedelta(days=2), tick=True):
        mine, other = (AccountFactory.create(name=name) for name in ("mine", "other"))
        for account, result in ((mine, 12), (other, -40)):
            order = OrderFactory.create(
                account=account, signal=SignalFactory.create(), state=OrderState.FILLED
            )
            FillFactory.create(order=order, realised_pnl=result)
            Alarm.objects.create(
                kind=Alarm.Kind.NAKED_POSITION,
                key=account.name,
                account=account,
                detail="no stop",
                raised_at=timezone.now(),
            )
        OrderFactory.create(account=other, state=OrderState.DENIED, reason="STALE")
        channel_to(receiver.address, weekly_summary=True, accounts=["mine"])
    with time_machine.travel(monday, tick=True):
        assert weekly.look() == 1
    assert Notice.objects.get().text.splitlines() == [
        "mine: +12 USDT in 1 fills",
        "1 alerts, 1 orders, 1 filled",
        "1 alarms",
    ]
