"""The self-test: it leaves nothing behind but its report, and finds a control that is gone."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command

from brokers.models import Account
from execution import riskcheck
from execution.models import Order, Signal, Strategy
from risk import limits, switch
from risk.models import AuditEvent, RiskLimit, RiskReport, TradingState
from tests.factories import StrategyFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _limits() -> None:
    limits.first_limits({})


def test_a_sound_installation_passes_and_stays_as_it_is() -> None:
    switch.change(TradingState.State.HALTED, reason="night")
    before = list(RiskLimit.objects.values("rule", "value", "mode").order_by("pk"))
    events = AuditEvent.objects.count()
    report = riskcheck.run()
    assert [one for one in report.results if not one["passed"]] == []
    assert report.passed
    assert len(report.results) == 14 + len(before)
    assert list(RiskLimit.objects.values("rule", "value", "mode").order_by("pk")) == before
    assert TradingState.objects.get().state == "halted"
    assert AuditEvent.objects.count() == events
    for model in (Account, Strategy, Signal, Order):
        assert not model.objects.exists()


def test_a_control_that_is_gone_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(switch, "refuse_if_switched_off", lambda **_: None)
    with pytest.raises(CommandError, match=r"2 of \d+ controls failed"):
        call_command("riskcheck")
    said = capsys.readouterr().out
    assert "FAILED the kill switch: halted (scratch strategy): became an order" in said
    assert "ok     no limit set (scratch strategy): denied with NO_LIMIT_SET" in said
    assert not RiskReport.objects.get().passed


def test_each_limit_is_tested_at_its_own_value() -> None:
    StrategyFactory.create(slug="demo")
    limits.set_limit("max_open_orders", Decimal(3), strategy="demo", reason="test")
    found = [one for one in riskcheck.run().results if one["control"] == "max_open_orders"]
    assert [(one["scope"], one["passed"]) for one in found] == [("strategy demo", True)]
    assert "working orders 4 is above the limit of 3" in found[0]["detail"]
