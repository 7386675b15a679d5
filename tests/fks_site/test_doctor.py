"""``manage.py doctor`` names what is wrong, says what to do, and is content where all is well."""

from __future__ import annotations

import io
import re
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.conf import settings as installed
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.utils import timezone

from brokers.errors import QueryFailedError
from brokers.models import Account, ExchangeCredential, SymbolAlias
from brokers.types import Health
from execution.authentication import new_secret
from execution.models import Alarm, Heartbeat, Strategy
from execution.states import OrderState
from fks_site.doctor import machine, trading
from fks_site.doctor.findings import Finding, ago
from risk import limits, switch
from risk.models import RiskLimit, TradingState
from risk.rules import RULES, Start
from tests.brokers.scripted import ScriptedPlugin, registered, script_of
from tests.factories import (
    AccountFactory,
    OrderFactory,
    PositionFactory,
    SignalFactory,
    StrategyFactory,
    allow_trading,
    webhook,
)

pytestmark = pytest.mark.django_db
Accounts = Callable[..., Account]


@pytest.fixture
def scripted() -> Iterator[Accounts]:
    with registered() as account:
        yield account


@pytest.fixture(autouse=True)
def _room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 400, 500)


def free(monkeypatch: pytest.MonkeyPatch, free_gb: float, total_gb: float) -> None:
    """A disk as full as that: this machine's own is nobody's promise."""
    usage = namedtuple("usage", "total used free")
    answer = usage(int(total_gb * 1e9), 0, int(free_gb * 1e9))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: answer)


def sound() -> None:
    """All a doctor could wish for."""
    limits.first_limits({})
    for name in ("worker", "beat"):
        Heartbeat.objects.create(name=name, at=timezone.now())


def examined() -> str:
    """What it prints where something is wrong."""
    out = io.StringIO()
    with pytest.raises(CommandError, match="to look at"):
        call_command("doctor", stdout=out)
    return out.getvalue()


def test_it_is_content_with_a_sound_installation(scripted: Accounts) -> None:
    scripted()
    sound()
    out = io.StringIO()
    call_command("doctor", stdout=out)

    assert {line[:4] for line in out.getvalue().splitlines()} == {"ok  "}


def test_it_names_what_is_wrong_and_what_to_do(scripted: Accounts) -> None:
    account = scripted()
    script_of(account).failure = QueryFailedError("timeout")
    said = examined()

    assert "BAD  limits\n       no limit is enforced, so nothing trades\n         → see" in said
    assert f"       account {account.name}: as scripted\n         → `manage.py check_acc" in said
    assert "       a worker has never been heard of\n         → look whether" in said
    findings = re.findall(r"^ {7}\S.*\n(.*)$", said, re.MULTILINE)
    assert len(findings) >= 4
    assert all(re.fullmatch(r" {9}→ \S.*", line) for line in findings)


def test_warnings_are_counted_and_fail_nothing(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(name="desk")
    sound()
    free(monkeypatch, 9, 100)
    RiskLimit.objects.filter(rule="daily_loss").update(mode=RiskLimit.Mode.OBSERVE)
    out = io.StringIO()
    call_command("doctor", stdout=out)

    assert "warn disk\n       warning: 9.0 of 100.0 GB are free at " in out.getvalue()
    assert "warn limits\n       warning: not enforced on desk: daily_loss\n" in out.getvalue()
    assert out.getvalue().endswith("\n0 things to look at, 2 warnings\n")


@pytest.mark.parametrize(
    ("free_gb", "total_gb", "level"),
    [(11, 100, None), (9, 100, True), (0.9, 5, True), (0.19, 100, False), (0.19, 1, False)],
)
def test_the_disk(
    monkeypatch: pytest.MonkeyPatch, free_gb: float, total_gb: float, level: bool | None
) -> None:
    free(monkeypatch, free_gb, total_gb)

    assert [finding.is_warning for finding in machine.disk()] == [] if level is None else [level]


def test_the_disk_before_there_is_any_state(settings: Any, tmp_path: Path) -> None:
    settings.FKS_VAR = tmp_path / "not" / "yet"

    assert list(machine.disk()) == []


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, None), (9, "9.0 s ahead of"), (-9, "9.0 s behind")]
)
def test_the_clock_against_the_database_servers(seconds: int, said: str | None) -> None:
    with time_machine.travel(timezone.now() + timedelta(seconds=seconds), tick=False):
        found = list(machine.clock())

    if said is None:
        assert found == []
    else:
        [finding] = found
        assert re.match(rf"this machine's clock is {said[:1]}\.\d s {said[6:]} the", finding.what)
        assert "NTP" in finding.then


@pytest.mark.parametrize(("skew", "count"), [(-1500, 1), (900, 0)])
def test_the_clock_against_a_venues(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch, skew: int, count: int
) -> None:
    scripted(name="desk")
    health = Health(ok=True, detail="fine", clock_skew_ms=skew)
    monkeypatch.setattr(ScriptedPlugin, "health_check", lambda _: health)

    said = [finding.what for finding in trading.accounts()]
    sentence = (
        "account desk: its venue's clock and ours differ by -1500 ms, so orders may be refused"
    )
    assert said == [sentence] * count


def test_since_when_programs_are_silent() -> None:
    now = timezone.now()
    Heartbeat.objects.create(name="worker", at=now - timedelta(seconds=14))
    Heartbeat.objects.create(name="beat", at=now - timedelta(minutes=7))

    [finding] = machine.programs()
    assert finding.what == (
        f"beat was last heard of 7 min ago, at {now - timedelta(minutes=7):%Y-%m-%d %H:%M:%S} UTC"
    )
    assert "`manage.py serve beat`" in finding.then


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (200_000, "2 days"),
    ],
)
def test_ages_as_people_say_them(seconds: int, said: str) -> None:
    assert ago(timedelta(seconds=seconds)) == said


def test_missing_limits_are_named_for_each_account() -> None:
    desk, other = AccountFactory.create(name="desk"), AccountFactory.create(name="other")
    AccountFactory.create(name="retired", is_active=False)
    usual = sorted(rule.name for rule in RULES.values() if rule.start is Start.ENFORCE)
    for name in usual[2:]:
        limits.set_limit(name, RULES[name].default, reason="test")
    limits.set_limit(usual[0], RULES[usual[0]].default, account=desk, reason="test")
    limits.set_limit(usual[1], RULES[usual[1]].default, symbol="BTC/USDT", reason="test")

    found = {finding.what for finding in trading.limits()}
    assert found == {
        f"not enforced on {desk.name}: {usual[1]}",
        f"not enforced on {other.name}: {', '.join(_in_order(usual[:2]))}",
    }


def _in_order(names: list[str]) -> list[str]:
    return [name for name in RULES if name in names]


def test_alarms_that_are_not_over() -> None:
    desk, now = AccountFactory.create(name="desk"), timezone.now()
    raised = {"kind": Alarm.Kind.NAKED_POSITION, "account": desk, "detail": "no stop rests"}
    Alarm.objects.create(key="a", symbol="BTC/USDT", raised_at=now - timedelta(minutes=5), **raised)
    Alarm.objects.create(key="b", raised_at=now, cleared_at=now, **raised)

    assert list(trading.alarms()) == [
        Finding(
            "alarm for 5 min: position without its stop: BTC/USDT on desk: no stop rests",
            "docs/runbook.md#a-position-is-unguarded",
        )
    ]


def test_of_many_alarms_the_newest_are_named_and_the_rest_counted() -> None:
    for number in range(trading.SHOWN + 3):
        Alarm.objects.create(kind="gap", key=str(number), detail="", raised_at=timezone.now())

    *_, last = found = list(trading.alarms())
    assert len(found) == trading.SHOWN + 1
    assert last.what == "and 3 more alarms"
    assert f": {trading.SHOWN + 2}:" in found[0].what


def sections() -> set[str]:
    text = Path(installed.BASE_DIR, "docs/runbook.md").read_text()
    headings = re.findall(r"^##+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


def test_each_section_it_sends_to_is_in_the_runbook() -> None:
    text = "".join(
        path.read_text()
        for path in Path(installed.BASE_DIR, "fks_site/doctor").iterdir()
        if path.suffix == ".py"
    )
    named = set(re.findall(r"docs/runbook\.md#([\w-]+)", text)) | set(trading.RUNBOOK.values())

    assert set(trading.RUNBOOK) == set(Alarm.Kind)
    assert named <= sections()


def test_orders_and_alerts_that_wait() -> None:
    order = OrderFactory.create(state=OrderState.UNKNOWN, unknown_since=timezone.now())
    SignalFactory.create(received_at=timezone.now() - timedelta(seconds=31))

    first, second = trading.orders()
    assert first.what.startswith(f"order {order.pk} (")
    assert second.what == "1 alerts have waited more than 30 s for a decision"


def test_switches_that_are_on() -> None:
    switch.change(TradingState.State.HALTED, reason="a drill")
    scope = TradingState.Scope.STRATEGY
    switch.change(TradingState.State.REDUCING, scope=scope, key="trend", reason="it fires")

    everything, strategy = trading.switches()
    assert (everything.what, everything.then) == (
        "everything: halted: a drill",
        "release it with `manage.py resume --reason …`",
    )
    assert (strategy.what, strategy.then) == (
        "strategy trend: reduce only: it fires",
        "release it with `manage.py resume --strategy trend --reason …`",
    )


def test_settings_that_are_served_to_others_are_looked_at_more_closely(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]
    assert list(machine.configuration()) == []

    settings.BEHIND_TLS = True  # with cookies and HSTS as they are here, without it
    found = list(machine.configuration())
    assert found
    assert all(finding.is_warning for finding in found)
    settings.ALLOWED_HOSTS = ["*"]
    assert [f.what for f in machine.configuration() if not f.is_warning] == [
        "ALLOWED_HOSTS contains '*'."
    ]


@pytest.mark.parametrize(
    "url",
    ["localhost:6379", "redis://me:pass/word@valkey:6379/0", "redis://127.0.0.1:1/0?timeout=1"],
)
def test_the_address_of_the_queue_is_none(url: str) -> None:
    with override_settings(REDIS_URL=url):
        said = examined()

    assert "\n       REDIS_URL is no address of Valkey\n         → it reads redis://HOST" in said
    assert "pass" not in said


def test_it_goes_on_after_a_plugin_that_stumbles(scripted: Accounts) -> None:
    broken, sound_one = scripted(), scripted()
    script_of(broken).init_failure = KeyError("a secret")
    script_of(sound_one).failure = QueryFailedError("timeout")
    said = examined()

    assert f"account {broken.name}: scripted failed with KeyError: see its options\n" in said
    assert f"account {sound_one.name}: as scripted" in said
    assert "a secret" not in said


def test_it_goes_on_where_the_keys_are_none() -> None:
    credential = ExchangeCredential(account=AccountFactory.create())
    credential.seal({"api_key": "k", "api_secret": "s"})
    credential.save()
    with override_settings(CREDENTIAL_KEYS=["short"], CREDENTIAL_KEYS_PATH=None):
        said = examined()

    sentence = f"the credential of {credential.account.name} cannot be read: see CREDENTIAL_KEYS"
    assert sentence in said


def test_the_strategy_nobody_can_post_to(scripted: Accounts) -> None:
    scripted()
    StrategyFactory.create(slug="mute", auth="hmac")
    expired, _ = webhook(slug="expired")
    expired.secrets.update(expires_at=timezone.now())
    StrategyFactory.create(slug="tokens", auth="jwt")
    StrategyFactory.create(slug="manual")

    named = [line.split()[1] for line in examined().splitlines() if "no live secret" in line]
    assert named == ["expired", "mute"]
    assert "manual" not in examined()
    assert Strategy.objects.count() == 4


def test_the_strategy_whose_last_secret_ends(scripted: Accounts) -> None:
    scripted()
    soon = timezone.now() + timedelta(hours=5)
    for slug in ("ending", "replaced"):
        strategy, _ = webhook(slug=slug)
        strategy.secrets.update(expires_at=soon)
        new_secret(strategy, "token" if slug == "replaced" else "hmac")
    changed, _ = webhook(slug="changed")
    changed.secrets.update(expires_at=soon)
    Strategy.objects.filter(pk=changed.pk).update(auth="hmac")

    said = [line for line in examined().splitlines() if "last token secret ends at" in line]
    assert ["changed" in said[0], "ending" in said[1], len(said)] == [True, True, 2]
    assert f"{soon:%Y-%m-%d %H:%M} UTC" in said[0]


@override_settings(FKS_LIVE_TRADING=True, FKS_VAR="/nowhere")
def test_a_role_that_may_change_the_audit_trail() -> None:
    [finding] = machine.audit_role()
    assert finding.what == "the database role may UPDATE, DELETE, TRUNCATE the audit trail"


def test_trading_with_few_limits_is_a_warning(scripted: Accounts) -> None:
    scripted()
    allow_trading(daily_loss=str(Decimal(100)))

    [finding] = trading.limits()
    assert finding.is_warning
    assert "max_order_value" not in finding.what


def test_what_is_left_under_an_alias_that_has_ended(scripted: Accounts) -> None:
    account, today = scripted(), timezone.now().date()
    for symbol, until in (("ES 12-26", today - timedelta(days=1)), ("ES 03-27", today)):
        PositionFactory.create(account=account, symbol=symbol, quantity=1)
        days = {"valid_from": until - timedelta(days=90), "valid_until": until}
        SymbolAlias.objects.create(alias="ES1!", symbol=symbol, **days)

    [finding] = trading.aliases()

    assert f"{account.name} still has ES 12-26, and its alias has ended: ES1! → " in finding.what
    assert "by ES1! that closes" in finding.then
    assert finding.is_warning
