"""``/metrics``: who may read it, which names it has, and what the database's numbers say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
import time_machine
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries

from brokers.models import Account, Instrument
from execution import days, periodic_tasks
from execution import metrics as counted
from execution.models import Difference, Heartbeat, Order, Protection, SpreadWatch
from execution.states import OrderState, SignalState
from fks_site import gauges
from fks_site.users import restrict
from risk import audit, breakers, limits, sealing, switch
from risk.models import AuditEvent, CircuitBreaker, TradingState
from risk.types import LimitMode
from tests.factories import (
    AccountFactory,
    FillFactory,
    OrderFactory,
    PositionFactory,
    SignalFactory,
    UserFactory,
    webhook,
)

pytestmark = pytest.mark.django_db

Value = Callable[..., float | None]


@pytest.fixture
def value(client: Client) -> Value:
    """The value of one sample in a fresh scrape."""

    def read(name: str, **labels: str) -> float | None:
        lines = client.get("/metrics").content.decode().splitlines(keepends=True)
        text = "".join(one for one in lines if one.startswith((f"{name}{{", f"{name} ")))
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if labels.items() <= sample.labels.items():
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

    member = UserFactory.create(is_staff=True)
    client.force_login(member, backend=backend)
    assert client.get("/metrics", **elsewhere).status_code == 200

    restrict(member, [AccountFactory.create()], reason="one desk only")
    assert client.get("/metrics", **elsewhere).status_code == 403
    assert client.get("/metrics").status_code == 200  # this machine, whoever asks


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1/32",)])
@pytest.mark.parametrize("forwarded", ["192.0.2.7", "127.0.0.1", "127.0.0.1, 192.0.2.7"])
def test_what_a_proxy_passes_on_is_not_local(
    client: Client, settings: Any, trusted: tuple[str, ...], forwarded: str
) -> None:
    settings.TRUSTED_PROXIES = trusted

    assert client.get("/metrics", headers={"X-Forwarded-For": forwarded}).status_code == 401


def test_a_scraper_elsewhere_is_let_in_by_its_network(client: Client, settings: Any) -> None:
    settings.METRICS_NETWORKS = ("192.0.2.0/28",)

    assert client.get("/metrics", REMOTE_ADDR="192.0.2.7").status_code == 200
    assert client.get("/metrics", REMOTE_ADDR="192.0.2.77").status_code == 401
    passed_on = {"REMOTE_ADDR": "192.0.2.7", "HTTP_X_FORWARDED_FOR": "198.51.100.9"}
    assert client.get("/metrics", **passed_on).status_code == 401


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_a_scraper_may_ask_by_address_and_nobody_else(
    client: Client, settings: Any, path: str
) -> None:
    settings.METRICS_NETWORKS = ("172.30.0.0/24",)
    by_address = {"HTTP_HOST": "172.30.0.7:8000"}

    assert client.get(path, REMOTE_ADDR="172.30.0.9", **by_address).status_code == 200
    assert client.get(path, REMOTE_ADDR="192.0.2.7", **by_address).status_code == 400
    passed_on = {"REMOTE_ADDR": "172.30.0.9", "HTTP_X_FORWARDED_FOR": "172.30.0.9"}
    assert client.get(path, **passed_on, **by_address).status_code == 400
    assert client.get("/admin/", REMOTE_ADDR="172.30.0.9", **by_address).status_code == 400


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


def test_what_waits_to_be_sent(value: Value) -> None:
    now = timezone.now()
    assert value("fks_oldest_waiting_order_seconds") == 0
    order = OrderFactory.create()
    Order.objects.filter(pk=order.pk).update(created_at=now - timedelta(seconds=50))

    assert value("fks_oldest_waiting_order_seconds") == pytest.approx(50, abs=10)


def test_how_accounts_stand_with_their_venues(value: Value) -> None:
    now = timezone.now()
    AccountFactory.create(name="quiet", reconciled_at=None)
    desk = AccountFactory.create(name="desk", reconciled_at=now - timedelta(seconds=70))
    for number, state in enumerate(("open", "flattening", "ignored", "gone")):
        Difference.objects.create(
            account=desk,
            symbol="BTC/USDT",
            kind=Difference.Kind.POSITION,
            key=str(number),
            state=state,
            detail="",
            first_seen_at=now,
            last_seen_at=now,
        )

    assert value("fks_account_reconciled", account="desk") == 1
    assert value("fks_account_reconciled", account="quiet") == 0
    assert value("fks_reconciliation_age_seconds", account="desk") == pytest.approx(70, abs=10)
    assert value("fks_reconciliation_age_seconds", account="quiet") is None
    assert value("fks_differences", account="desk") == 2
    assert value("fks_differences", account="quiet") == 0


def test_positions_without_their_stop(value: Value) -> None:
    desk, now = AccountFactory.create(name="desk"), timezone.now()
    entry = OrderFactory.create(account=desk)
    for symbol, seconds in (("BTC/USDT", 8), ("ETH/USDT", 90), ("SOL/USDT", None)):
        since = None if seconds is None else now - timedelta(seconds=seconds)
        Protection.objects.create(account=desk, symbol=symbol, entry=entry, naked_since=since)

    assert value("fks_unguarded_positions", account="desk") == 2
    assert value("fks_unguarded_position_age_seconds", account="desk") == pytest.approx(90, abs=10)


class TestDailyLoss:
    def lose(self, account: Account, amount: str, hours_ago: int = 0) -> None:
        at = timezone.now() - timedelta(hours=hours_ago)
        FillFactory.create(
            order=OrderFactory.create(account=account),
            realised_pnl=-Decimal(amount),
            recorded_at=at,
        )

    def test_the_strictest_limit_counts(self, value: Value) -> None:
        desk = AccountFactory.create(name="desk")
        limits.set_limit("daily_loss", Decimal(500), reason="test")
        limits.set_limit("daily_loss", Decimal(200), account=desk, reason="test")
        self.lose(desk, "120")
        self.lose(desk, "500", hours_ago=25)
        self.lose(AccountFactory.create(name="other"), "150")

        assert value("fks_daily_loss_share", account="desk") == pytest.approx(0.6)
        assert value("fks_daily_loss_share", account="other") == pytest.approx(0.3)

    def test_a_gain_is_no_loss(self, value: Value) -> None:
        limits.set_limit("daily_loss", Decimal(500), reason="test")
        self.lose(AccountFactory.create(name="desk"), "-20")

        assert value("fks_daily_loss_share", account="desk") == 0

    def test_without_a_limit_there_is_no_share(self, value: Value) -> None:
        self.lose(AccountFactory.create(name="desk"), "20")

        assert value("fks_daily_loss_share", account="desk") is None

    def test_it_is_what_the_rule_compares(self, value: Value) -> None:
        """The day of the gauges and the day of the risk rule are the same number."""
        desk, now = AccountFactory.create(name="desk"), timezone.now()
        Instrument.objects.create(
            account=desk,
            symbol="ETH/USDT",
            venue_symbol="ETHUSDT",
            base="ETH",
            quote="USDT",
            quantity_step=Decimal("0.01"),
            price_tick=Decimal("0.01"),
            refreshed_at=now,
            last_price=Decimal(90),
            last_rate=Decimal("1.1"),
            last_price_at=now,
        )
        days.today(desk, now)
        PositionFactory.create(
            account=desk, symbol="ETH/USDT", quantity=2, average_price=Decimal(100)
        )
        self.lose(desk, "7")

        assert days.today(desk, now).result == Decimal(-29)
        limits.set_limit("daily_loss", Decimal(58), account=desk, reason="test")
        assert value("fks_daily_loss_share", account="desk") == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("amount", "mode", "parameters", "share"),
        [
            ("100", "enforce", {}, 1),
            ("100", "enforce", {"unrealised": "ignore"}, 0.2),
            ("0", "enforce", {"unrealised": "ignore"}, 1),
            ("100", "observe", {}, None),
        ],
    )
    def test_it_is_used_up_while_the_rule_refuses(
        self, value: Value, amount: str, mode: str, parameters: dict[str, str], share: float | None
    ) -> None:
        """A position without a fresh price is held: what counts open positions cannot know."""
        desk = AccountFactory.create(name="desk", environment="sandbox")
        PositionFactory.create(account=desk)
        self.lose(desk, "20")
        limits.set_limit(
            "daily_loss",
            Decimal(amount),
            mode=LimitMode(mode),
            parameters=parameters,
            reason="test",
        )

        assert value("fks_daily_loss_share", account="desk") == share


def test_the_audit_trail(value: Value) -> None:
    sealing.seal()
    assert value("fks_audit_unsealed_events") == 0
    with time_machine.travel(timezone.now() - timedelta(seconds=40)):
        audit.record("drill", "subject")

    assert value("fks_audit_unsealed_events") == 1
    assert value("fks_audit_unsealed_age_seconds") == pytest.approx(40, abs=10)
    assert (value("fks_database_bytes") or 0) > 1_000_000


@contextmanager
def unguarded_audit() -> Iterator[None]:
    """As somebody who owns the database: with the guard switched off."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE risk_auditevent DISABLE TRIGGER risk_guard_audit")
        yield
        cursor.execute("ALTER TABLE risk_auditevent ENABLE TRIGGER risk_guard_audit")


def test_a_changed_audit_event_is_an_alarm_until_it_is_put_right(value: Value) -> None:
    event = audit.record("drill", "subject", reason="true")
    sealing.seal()
    assert value("fks_alarms", kind="audit_broken") == 0

    with unguarded_audit():
        AuditEvent.objects.filter(pk=event.pk).update(reason="forged")
    periodic_tasks.verify_audit()
    assert value("fks_alarms", kind="audit_broken") == 1

    with unguarded_audit():
        AuditEvent.objects.filter(pk=event.pk).update(reason="true")
    sealing.seal()
    periodic_tasks.verify_audit()
    assert value("fks_alarms", kind="audit_broken") == 0


def test_the_queues_and_the_disk(value: Value, settings: Any) -> None:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete("sweeps", "exits", "orders")
        client.rpush("orders", "a", "b")
        try:
            assert value("fks_queue_messages", queue="orders") == 2
            assert value("fks_queue_messages", queue="exits") == 0
            assert value("fks_valkey_up") == 1
        finally:
            client.delete("orders")
    disk = shutil.disk_usage(settings.FKS_VAR)
    assert value("fks_disk_bytes") == disk.total
    assert 0 < (value("fks_disk_free_bytes") or 0) <= disk.total


def test_without_valkey_the_rest_is_still_there(value: Value, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    assert value("fks_valkey_up") == 0
    assert value("fks_queue_messages") is None
    assert value("fks_database_up") == 1


ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
FOREIGN = ("django_", "python_", "process_")
"""Prefixes of what libraries count by themselves."""


def test_the_catalogue_and_the_scrape_agree(client: Client, settings: Any) -> None:
    """Every family is in docs/metrics.md with its type and labels, and nothing else is."""
    counted.webhook_requests.labels("accepted").inc(0)
    counted.order_executions.labels("binance", "accepted").inc(0)
    counted.stream_connections.labels("binance").inc(0)
    counted.stream_events.labels("binance", "booked").inc(0)
    SpreadWatch.objects.create(
        symbol="BTC/USDT", is_enabled=True, net=Decimal("0.001"), looked_at=timezone.now()
    )
    AccountFactory.create(reconciled_at=timezone.now(), name="desk")
    PositionFactory.create(account=AccountFactory.create(name="other"))
    AccountFactory.create(name="shares", broker="schwab", options={"account": "12345678"})
    limits.set_limit("daily_loss", Decimal(500), reason="test")
    CircuitBreaker.objects.create(venue="binance")
    Heartbeat.objects.create(name="worker", at=timezone.now())

    scraped = {}
    for family in text_string_to_metric_families(client.get("/metrics").content.decode()):
        if not family.name.startswith(FOREIGN) and not family.name.endswith("_created"):
            labels = {name for sample in family.samples for name in sample.labels} - {"le"}
            name = family.name + "_total" * (family.type == "counter")
            scraped[name] = family.type, frozenset(labels)
    text = (Path(settings.BASE_DIR) / "docs" / "metrics.md").read_text()
    documented = {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall(text)
    }
    assert documented == scraped


def test_switches_and_heartbeats(value: Value) -> None:
    AccountFactory.create(name="desk")
    scope = TradingState.Scope.ACCOUNT
    switch.change(TradingState.State.HALTED, scope=scope, key="desk", reason="a drill")
    Heartbeat.objects.create(name="worker", at=timezone.now() - timedelta(seconds=20))

    assert value("fks_trading_state", scope="global") == 0
    assert value("fks_trading_state", scope="account", key="desk") == 2
    assert value("fks_heartbeat_age_seconds", part="worker") == pytest.approx(20, abs=10)


def test_what_others_send_makes_no_new_series(client: Client) -> None:
    """Labels come from lists in the code and from operators; strangers and alerts choose none."""
    strategy, secret = webhook()

    def send(names: range) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        for n in names:
            odd = {"REMOTE_ADDR": f"198.51.100.{n}", "HTTP_USER_AGENT": f"bot {n}"}
            client.post(f"/webhook/nobody-{n}/{n}", b"{", content_type="text/plain", **odd)
            client.get(f"/no/such/page/{n}", **odd)
            client.generic(f"METHOD{n}", "/health", **odd)
            alert = f'{{"symbol": "COIN{n}/USDT", "action": "buy", "quantity": "1", "id": "{n}"}}'
            stored = client.post(
                f"/webhook/{strategy.slug}/{secret}", alert, content_type=f"text/x{n}"
            )
            assert stored.status_code == 202, stored.content
            order = OrderFactory.create(account=account, symbol=f"COIN{n}/USDT")
            FillFactory.create(order=order)
            PositionFactory.create(account=account, symbol=f"COIN{n}/USDT", quantity=1)
        text = client.get("/metrics").content.decode()
        return {
            (sample.name, frozenset(sample.labels.items()))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    account = AccountFactory.create(name="desk")
    few = send(range(1, 3))
    assert send(range(3, 20)) - few == set()


def test_a_scrape_costs_the_same_however_much_there_is(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(3):
        FillFactory.create(order=OrderFactory.create())

    with django_assert_num_queries(18):
        client.get("/metrics")


def test_without_a_database_the_rest_is_still_there(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(gauges, "_signals", fail)

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
