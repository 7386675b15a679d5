"""``/metrics``: who may read it, which names it has, and what the database's numbers say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries

from brokers.models import Account
from execution import metrics as counted
from execution.models import Heartbeat
from execution.states import OrderState, SignalState
from fks_site import metrics
from risk import breakers, switch
from risk.models import TradingState
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    SignalFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

Value = Callable[..., float | None]


@pytest.fixture
def value(client: Client) -> Value:
    """The value of one sample in a fresh scrape."""

    def read(name: str, **labels: str) -> float | None:
        text = client.get("/metrics").content.decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None

    return read


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_a_scraper_on_this_machine_reads_it(client: Client, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=")


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=1.0.0", "text/html"])
def test_whatever_the_scraper_accepts(client: Client, accept: str) -> None:
    assert client.get("/metrics", headers={"Accept": accept}).status_code == 200


def test_from_elsewhere_it_is_for_staff(client: Client) -> None:
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    assert client.get("/metrics", **elsewhere).status_code == 401

    backend = "django.contrib.auth.backends.ModelBackend"
    client.force_login(UserFactory.create(is_staff=False), backend=backend)
    refused = client.get("/metrics", **elsewhere)
    assert refused.status_code == 403
    assert refused.json()["code"] == "PERMISSION_DENIED"

    client.force_login(UserFactory.create(is_staff=True), backend=backend)
    assert client.get("/metrics", **elsewhere).status_code == 200


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1/32",)])
@pytest.mark.parametrize("forwarded", ["192.0.2.7", "127.0.0.1", "127.0.0.1, 192.0.2.7"])
def test_what_a_proxy_passes_on_is_not_local(
    client: Client, settings: Any, trusted: tuple[str, ...], forwarded: str
) -> None:
    settings.TRUSTED_PROXIES = trusted

    assert client.get("/metrics", headers={"X-Forwarded-For": forwarded}).status_code == 401


def test_the_known_names_are_there(client: Client) -> None:
    counted.webhook_requests.labels("accepted").inc(0)
    counted.order_executions.labels("binance", "accepted").inc(0)

    text = client.get("/metrics").content.decode()

    for line in (
        'webhook_requests_total{status="accepted"} ',
        'order_executions_total{exchange="binance",status="accepted"} ',
        "processing_duration_seconds_count ",
        "active_exchanges 0.0",
        "fks_database_up 1.0",
        "fks_unknown_order_age_seconds 0.0",
        "fks_oldest_unprocessed_signal_seconds 0.0",
        'fks_trading_state{key="",scope="global"} 0.0',
        *(
            f"fks_{stage}_seconds_count "
            for stage in ("accept", "queue", "decide", "submit", "ack")
        ),
        *(f'fks_orders{{state="{state.value}"}} 0.0' for state in OrderState),
    ):
        assert f"\n{line}" in text, line


def test_orders_and_signals(value: Value) -> None:
    now = timezone.now()
    OrderFactory.create()
    for age in (90, 30):
        OrderFactory.create(state=OrderState.UNKNOWN, unknown_since=now - timedelta(seconds=age))
    SignalFactory.create(received_at=now - timedelta(seconds=45))
    SignalFactory.create(received_at=now - timedelta(hours=9), state=SignalState.EXECUTED)

    assert value("fks_orders", state="pending") == 1
    assert value("fks_orders", state="unknown") == 2
    assert value("fks_orders", state="filled") == 0
    assert value("fks_unknown_order_age_seconds") == pytest.approx(90, abs=10)
    assert value("fks_oldest_unprocessed_signal_seconds") == pytest.approx(45, abs=10)


def test_accounts_and_their_breakers(value: Value) -> None:
    for name, options in (("a", {"exchange": "kraken"}), ("b", {"exchange": "kraken"})):
        Account.objects.create(name=name, broker="ccxt", options=options)
    desk = AccountFactory.create(name="desk")
    AccountFactory.create(name="retired", is_active=False)
    breakers.trip(breakers.of_account(desk.pk), "maintenance")

    assert value("active_exchanges") == 2
    assert value("fks_breaker_state", account="desk") == 2
    assert value("fks_breaker_state", account="a") == 0
    assert value("fks_breaker_state", account="retired") is None


def test_positions_and_what_they_made(value: Value) -> None:
    desk = AccountFactory.create(name="desk")
    PositionFactory.create(account=desk, realised_pnl=Decimal("12.5"))
    PositionFactory.create(account=desk, symbol="ETH/USDT", quantity=0, realised_pnl=Decimal(-2))
    order = OrderFactory.create(account=desk)
    FillFactory.create(order=order, realised_pnl=Decimal(-2))
    yesterday = timezone.now() - timedelta(days=1)
    FillFactory.create(order=order, realised_pnl=Decimal("12.5"), recorded_at=yesterday)

    assert value("fks_positions", account="desk") == 1
    assert value("fks_realised_pnl", account="desk") == 10.5
    assert value("fks_realised_pnl_today", account="desk") == -2


def test_switches_and_heartbeats(value: Value) -> None:
    AccountFactory.create(name="desk")
    scope = TradingState.Scope.ACCOUNT
    switch.change(TradingState.State.HALTED, scope=scope, key="desk", reason="a drill")
    Heartbeat.objects.create(name="worker", at=timezone.now() - timedelta(seconds=20))

    assert value("fks_trading_state", scope="global") == 0
    assert value("fks_trading_state", scope="account", key="desk") == 2
    assert value("fks_heartbeat_age_seconds", part="worker") == pytest.approx(20, abs=10)


def test_a_scrape_costs_the_same_however_much_there_is(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(3):
        FillFactory.create(order=OrderFactory.create())

    with django_assert_num_queries(10):
        client.get("/metrics")


def test_without_a_database_the_rest_is_still_there(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(metrics, "_signals", fail)

    answer = client.get("/metrics")

    assert answer.status_code == 200
    assert b"\nfks_database_up 0.0" in answer.content
    assert b"fks_orders" not in answer.content
    assert b"\nprocessing_duration_seconds_count " in answer.content


def test_what_other_processes_counted_is_added_up(
    value: Value, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    program = (
        "from execution.metrics import webhook_requests, stage_seconds;"
        "webhook_requests.labels('accepted').inc(); stage_seconds['accept'].observe(0.1)"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True)

    assert value("webhook_requests_total", status="accepted") == 2
    assert value("fks_accept_seconds_count") == 2
    assert value("fks_database_up") == 1
