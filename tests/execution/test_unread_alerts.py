"""An alert of a known sender that could not be read: somebody is told, once, and in time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from execution import silence
from execution.models import Alarm, QuarantinedBody, Strategy
from risk.channels import Channel, Notice, Severity
from tests.execution.posting import post
from tests.factories import StrategyFactory, webhook

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def refused(strategy: Strategy, code: str = "NOT_JSON", **ago: Any) -> QuarantinedBody:
    return QuarantinedBody.objects.create(
        strategy=strategy, received_at=NOW - timedelta(**ago), body="?", code=code, detail="no JSON"
    )


def raised() -> list[tuple[str, str]]:
    return [(alarm.kind, alarm.key) for alarm in silence.look(NOW)]


def test_a_refused_body_is_told_as_an_alarm(new_process: None) -> None:
    channel = Channel.objects.create(name="phone", least_severity=Severity.ALARM)
    strategy, secret = webhook()

    assert post(f"{strategy.slug}/{secret}", b'{"symbol": "BTCUSDT"').status_code == 400

    (alarm,) = silence.look()
    assert (alarm.kind, alarm.key) == (Alarm.Kind.UNREAD, f"{strategy.slug} NOT_JSON")
    notice = Notice.objects.get(channel=channel)
    assert (notice.severity, notice.strategy) == (Severity.ALARM, strategy.slug)
    assert notice.title == f"an alert could not be read: {strategy.slug} NOT_JSON"
    assert notice.due_at == notice.at


def test_a_sender_that_is_not_known_tells_nobody(new_process: None) -> None:
    strategy, _ = webhook()
    assert post(strategy.slug, b"{").status_code == 401
    assert silence.look() == []


def test_a_flood_is_told_once_for_each_strategy_and_code() -> None:
    Channel.objects.create(name="phone", least_severity=Severity.ALARM)
    one, other = StrategyFactory.create(slug="one"), StrategyFactory.create(slug="other")
    for seconds in range(50, 0, -1):
        refused(one, seconds=seconds)
    refused(one, "INVALID", seconds=5)
    refused(other, seconds=3)

    assert sorted(raised()) == [
        ("unread", "one INVALID"),
        ("unread", "one NOT_JSON"),
        ("unread", "other NOT_JSON"),
    ]
    detail = Alarm.objects.get(key="one NOT_JSON").detail
    last = NOW - timedelta(seconds=1)
    assert detail.startswith(f"50 refused, the last at {last:%H:%M:%S} UTC")
    refused(one, seconds=0)
    assert raised() == []
    assert Notice.objects.count() == 3


def test_it_is_over_a_while_after_the_last() -> None:
    strategy = StrategyFactory.create(slug="one")
    refused(strategy, minutes=14)
    assert raised() == [("unread", "one NOT_JSON")]

    assert silence.look(NOW + timedelta(minutes=2)) == []
    assert Alarm.objects.get().cleared_at is not None

    refused(strategy, minutes=0)
    assert raised() == [("unread", "one NOT_JSON")]


def test_what_was_let_in_is_alarmed_no_longer() -> None:
    body = refused(StrategyFactory.create(slug="one"), minutes=1)
    assert raised() == [("unread", "one NOT_JSON")]

    body.delete()

    assert raised() == []
    assert Alarm.objects.get().cleared_at is not None


def test_of_a_flood_only_the_newest_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "MOST_UNREAD", 5)
    early, late = StrategyFactory.create(slug="early"), StrategyFactory.create(slug="late")
    refused(early, minutes=1)
    for _ in range(5):
        refused(late, minutes=1)

    assert raised() == [("unread", "late NOT_JSON")]
    assert Alarm.objects.get().detail.startswith("5 refused")
