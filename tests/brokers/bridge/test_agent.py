"""The agent as a process: what it lets in, what it refuses, what a kill leaves behind."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.error import HTTPError

import pytest

from brokers.bridge import PROTOCOL, selftest, settings
from brokers.bridge.client import BridgeClient, BridgeRefusal
from brokers.bridge.signing import new_key, read_key
from brokers.errors import ConfigurationError, CredentialError, QueryFailedError
from brokers.plugins.bridge import BridgePlugin
from brokers.types import (
    AccountConfig,
    Environment,
    ExecutionResult,
    OrderRef,
    Outcome,
    VenueStatus,
)
from tests.brokers.contract import limit, ref
from tests.brokers.terminals import mt5
from tests.brokers.terminals.agent import RunningAgent
from tests.brokers.terminals.rigs import Mt5Rig, mt5_agent

GOOD_KEY = base64.urlsafe_b64encode(bytes(32)).decode()


@pytest.fixture
def terminal() -> Iterator[tuple[mt5.Mt5Terminal, str]]:
    made = mt5.Mt5Terminal()
    with mt5.running(made) as address:
        yield made, address


def agent_with(folder: Path, terminal: tuple[mt5.Mt5Terminal, str], **more: str) -> RunningAgent:
    agent = mt5_agent(folder, *terminal, **more)
    agent.start()
    return agent


def test_strangers_get_nothing(mt5_rig: Mt5Rig) -> None:
    url = f"http://127.0.0.1:{mt5_rig.agent.port}/v1/execute_order"
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, b"{}", method="POST"))
    assert refused.value.code == 401
    with pytest.raises(HTTPError) as unknown:
        urllib.request.urlopen(url)
    assert unknown.value.code == 501


def test_a_wrong_key_sends_nothing(mt5_rig: Mt5Rig) -> None:
    mt5_rig.agent.key = new_key()
    result = mt5_rig.agent.plugin().execute_order(limit())
    assert result.outcome is Outcome.NOT_SENT
    assert mt5_rig.terminal.sent == []


def test_ends_of_different_age_refuse_each_other(mt5_rig: Mt5Rig) -> None:
    client = BridgeClient(f"http://127.0.0.1:{mt5_rig.agent.port}", read_key(mt5_rig.agent.key))
    with pytest.raises(BridgeRefusal, match="update the older end") as refused:
        client.ask("hello", {"account": "5012345", "protocol": PROTOCOL + 1}, 5)
    assert refused.value.code == "ACCOUNT_MISCONFIGURED"


def test_health_tells_how_far_the_clocks_differ(mt5_rig: Mt5Rig) -> None:
    health = mt5_rig.plugin.health_check()
    assert health.ok
    assert abs(health.clock_skew_ms or 0) < 1000


def test_an_absent_agent_is_not_sent_and_a_vanished_one_too(mt5_rig: Mt5Rig) -> None:
    plugin = mt5_rig.plugin
    plugin.health_check()
    mt5_rig.agent.kill()
    result = plugin.execute_order(limit())
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "VENUE_UNREACHABLE")
    assert result.retry_after == 2
    assert not plugin.health_check().ok
    with pytest.raises(QueryFailedError):
        plugin.fetch_order(ref(limit()))


def test_an_agent_that_never_answered_is_not_asked_by_everybody_at_once(mt5_rig: Mt5Rig) -> None:
    plugin = mt5_rig.agent.plugin()
    mt5_rig.agent.kill()
    with pytest.raises(QueryFailedError, match="no connection"):
        _ = plugin.capabilities
    mt5_rig.agent.start()
    with pytest.raises(QueryFailedError, match="no connection"):
        _ = plugin.capabilities
    assert plugin.health_check().ok, "who looks after it asks at once, and tells the others"
    assert plugin.capabilities.submit_timeout > 0


@pytest.mark.parametrize("ahead", [-60, 60])
def test_clocks_that_differ_end_no_order(
    mt5_rig: Mt5Rig, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    plugin, request, now = mt5_rig.plugin, limit(), time.time
    plugin.health_check()
    with monkeypatch.context() as patch:
        patch.setattr("brokers.bridge.client.time.time", lambda: now() + ahead)
        result = plugin.execute_order(request)
        with pytest.raises(QueryFailedError, match=f"the clocks differ by {ahead}"):
            plugin.positions()
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "VENUE_UNREACHABLE")
    assert result.retry_after == 2
    assert plugin.execute_order(request).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull"])
def test_an_answer_nobody_signed_is_unknown(mt5_rig: Mt5Rig, answer: bytes) -> None:
    plugin = mt5_rig.plugin
    plugin.health_check()
    mt5_rig.agent.kill()
    with socket.create_server(("127.0.0.1", mt5_rig.agent.port)) as impostor:

        def play() -> None:
            connection, _ = impostor.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=play)
        thread.start()
        assert plugin.execute_order(limit()).outcome is Outcome.UNKNOWN
        thread.join()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"quantity": Decimal(1001)}, "NOT_SUPPORTED"),
        ({"symbol": "ETH/USDT"}, "UNKNOWN_SYMBOL"),
    ],
)
def test_the_agents_own_lists_rule(mt5_rig: Mt5Rig, changes: dict[str, object], code: str) -> None:
    result = mt5_rig.plugin.execute_order(limit(**changes))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, code)
    assert mt5_rig.terminal.sent == []


@pytest.mark.parametrize(("allowed", "most"), [("20", "20"), ("5000", "1000"), ("0.0001", "0.001")])
def test_the_largest_order_is_the_terminals_or_the_smaller_one_of_the_agents_file(
    tmp_path: Path, terminal: tuple[mt5.Mt5Terminal, str], allowed: str, most: str
) -> None:
    listed = f'[instruments."BTC/USDT"]\nsymbol = "BTCUSDT"\nmax_quantity = "{allowed}"\n'
    agent = agent_with(tmp_path, terminal, instruments=listed)
    assert agent.plugin().instrument("BTC/USDT").max_quantity == Decimal(most)
    agent.kill()


def test_another_account_is_refused(mt5_rig: Mt5Rig) -> None:
    result = mt5_rig.agent.plugin(account="999").execute_order(limit())
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "'999'" in result.detail


def test_a_terminal_that_changed_its_login_gets_no_order(mt5_rig: Mt5Rig) -> None:
    mt5_rig.plugin.health_check()
    mt5_rig.terminal.login = 1
    result = mt5_rig.plugin.execute_order(limit())
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")


@pytest.mark.parametrize("trade_mode", [2, 3])
def test_real_money_needs_both_ends_to_say_so(
    tmp_path: Path, terminal: tuple[mt5.Mt5Terminal, str], trade_mode: int
) -> None:
    """A mode nobody knows counts as real."""
    agent = agent_with(tmp_path, terminal)
    plugin = agent.plugin()
    assert plugin.health_check().ok
    terminal[0].trade_mode = trade_mode
    switched = plugin.execute_order(limit())
    live = agent.plugin(Environment.LIVE).execute_order(limit())
    assert {switched.outcome, live.outcome} == {Outcome.NOT_SENT}
    assert "allow_live is off" in live.detail
    agent.kill()
    agent.settings = "allow_live = true"
    agent.write()
    agent.start()
    assert agent.plugin().execute_order(limit()).outcome is Outcome.NOT_SENT
    assert agent.plugin(Environment.LIVE).execute_order(limit()).outcome is Outcome.ACCEPTED
    agent.kill()


def test_a_dry_run_checks_and_sends_nothing(
    tmp_path: Path, terminal: tuple[mt5.Mt5Terminal, str]
) -> None:
    agent = agent_with(tmp_path, terminal, settings="dry_run = true")
    plugin = agent.plugin()
    passed, failed = (
        plugin.execute_order(limit()),
        plugin.execute_order(limit(quantity=Decimal(900))),
    )
    assert (passed.outcome, failed.outcome) == (Outcome.NOT_SENT, Outcome.NOT_SENT)
    assert "passed its checks" in passed.detail
    assert "No money (10019)" in failed.detail
    assert terminal[0].sent == []
    assert plugin.check_permissions().trade is False
    agent.kill()


def test_a_late_order_is_not_sent_and_may_be_tried_again(mt5_rig: Mt5Rig) -> None:
    request = limit(send_before=datetime.now(UTC) - timedelta(seconds=1))
    late = mt5_rig.plugin.execute_order(request)
    assert (late.outcome, late.retry_after) == (Outcome.NOT_SENT, 1)
    again = limit(identity=request.identity)
    assert mt5_rig.plugin.execute_order(again).outcome is Outcome.ACCEPTED
    assert mt5_rig.placed(again) == 1


def test_an_agent_killed_while_sending_never_sends_again(mt5_rig: Mt5Rig) -> None:
    """The terminal took the order and is silent; the agent dies with the intent on disk."""
    request = limit()
    ends: list[ExecutionResult] = []
    mt5_rig.plugin.health_check()
    mt5_rig.terminal.faults.append("hang")
    held = threading.Thread(target=lambda: ends.append(mt5_rig.plugin.execute_order(request)))
    held.start()
    while not mt5_rig.terminal.sent:
        time.sleep(0.01)
    mt5_rig.agent.kill()
    held.join()
    mt5_rig.agent.start()
    plugin = mt5_rig.agent.plugin()
    assert "1 orders without a result" in plugin.health_check().detail
    again = plugin.execute_order(request)
    assert [ends[0].outcome, again.outcome] == [Outcome.UNKNOWN, Outcome.UNKNOWN]
    assert mt5_rig.placed(request) == 1
    found = plugin.fetch_order(ref(request))
    assert found is not None
    assert found.status is VenueStatus.OPEN


def test_a_repeated_id_returns_the_stored_result_after_a_restart(mt5_rig: Mt5Rig) -> None:
    request = limit()
    first = mt5_rig.plugin.execute_order(request)
    mt5_rig.agent.kill()
    mt5_rig.agent.start()
    assert mt5_rig.agent.plugin().execute_order(request) == first
    other = limit("49000", identity=request.identity)
    refused = mt5_rig.agent.plugin().execute_order(other)
    assert (refused.outcome, refused.code) == (Outcome.UNKNOWN, "DUPLICATE_ORDER")
    assert mt5_rig.placed(request) == 1


def test_a_terminal_without_its_server_is_not_healthy(mt5_rig: Mt5Rig) -> None:
    assert mt5_rig.plugin.health_check().ok
    mt5_rig.terminal.flags["connected"] = False
    assert not mt5_rig.plugin.health_check().ok


def test_the_log_names_orders_and_no_key(mt5_rig: Mt5Rig) -> None:
    request = limit()
    mt5_rig.plugin.execute_order(request)
    log = (mt5_rig.agent.folder / "agent.log").read_text()
    assert f"{mt5_rig.plugin.client_order_id(request.identity)} buy 0.002 BTC/USDT" in log
    assert mt5_rig.agent.key not in log
    assert mt5_rig.agent.key not in repr(settings.read(mt5_rig.agent.file))


def test_the_selftest_proves_a_demo_account_and_refuses_a_real_one(mt5_rig: Mt5Rig) -> None:
    arguments = (str(mt5_rig.agent.file), "--account", "5012345", "--symbol", "BTC/USDT")
    done = mt5_rig.agent.command("selftest", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok  ") == 5
    assert len(mt5_rig.terminal.past) == 1
    mt5_rig.terminal.trade_mode = 2
    refused = mt5_rig.agent.command("selftest", *arguments)
    assert (refused.returncode, "real account" in refused.stdout) == (1, True)


def test_a_key_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "brokers.bridge", "key", str(tmp_path / "bridge.key")]
    assert subprocess.run(command, capture_output=True).returncode == 0
    read_key((tmp_path / "bridge.key").read_text())
    assert (tmp_path / "bridge.key").stat().st_mode & 0o077 == 0
    assert subprocess.run(command, capture_output=True).returncode == 1


def test_tls_with_a_pinned_certificate(
    tmp_path: Path, terminal: tuple[mt5.Mt5Terminal, str]
) -> None:
    subject = ("-subj", "/CN=bridge", "-days", "2", "-nodes")
    files = ("-keyout", str(tmp_path / "tls.key"), "-out", str(tmp_path / "tls.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *files, *subject]
    subprocess.run(command, check=True, capture_output=True)
    tls = 'tls_certificate = "tls.pem"\ntls_key = "tls.key"'
    agent = agent_with(tmp_path, terminal, settings=tls)
    url = f"https://127.0.0.1:{agent.port}"
    pin = selftest.fingerprint((tmp_path / "tls.pem").read_text())
    pinned = agent.plugin(url=url, certificate_sha256=pin)
    assert pinned.execute_order(limit()).outcome is Outcome.ACCEPTED
    other = agent.plugin(url=url, certificate_sha256="0" * 64)
    assert other.execute_order(limit()).outcome is Outcome.NOT_SENT
    stranger = agent.plugin(url=url)
    assert stranger.execute_order(limit()).outcome is Outcome.NOT_SENT
    assert agent.plugin().execute_order(limit()).outcome is not Outcome.ACCEPTED
    agent.kill()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('listen = "0.0.0.0:8811"', "open to others"),
        ('listen = "192.168.1.2:8811"', "vpn = true"),
        ("accounts = []", "at least one account"),
        ("accounts = [5]", "in quotation marks"),
        ('driver = "mt4"', "no driver 'mt4'"),
        ('dry_run = "yes"', "true or false"),
        ("colour = 1", "no setting 'colour'"),
    ],
)
def test_a_file_that_would_be_unsafe_is_refused(tmp_path: Path, line: str, sentence: str) -> None:
    agent = mt5_agent(tmp_path, mt5.Mt5Terminal(), "127.0.0.1:1")
    name = line.partition(" ")[0]
    rest = [one for one in agent.file.read_text().splitlines() if not one.startswith(f"{name} =")]
    agent.file.write_text("\n".join([line, *rest]))
    with pytest.raises(settings.SettingsError, match=sentence):
        settings.read(agent.file)


@pytest.mark.parametrize(
    ("options", "key", "error"),
    [
        ({"account": "1"}, GOOD_KEY, ConfigurationError),
        ({"url": "http://127.0.0.1:1"}, GOOD_KEY, ConfigurationError),
        ({"url": "http://8.8.8.8:1", "account": "1"}, GOOD_KEY, ConfigurationError),
        ({"url": "http://10.0.0.1:1", "account": "1"}, GOOD_KEY, ConfigurationError),
        ({"url": "ftp://127.0.0.1:1", "account": "1"}, GOOD_KEY, ConfigurationError),
        ({"url": "http://[::1", "account": "1"}, GOOD_KEY, ConfigurationError),
        ({"url": "http://127.0.0.1:70000", "account": "1"}, GOOD_KEY, ConfigurationError),
        ({"url": "http://127.0.0.1:1", "account": "1"}, "short", CredentialError),
    ],
)
def test_an_account_that_cannot_work_is_refused(
    options: dict[str, str], key: str, error: type[Exception]
) -> None:
    config = AccountConfig("1", "b", Environment.SANDBOX, options, {"bridge_key": key})
    with pytest.raises(error):
        BridgePlugin().init(config)


def test_a_dry_run_account_of_fks_reads_and_sends_nothing(mt5_rig: Mt5Rig) -> None:
    plugin = mt5_rig.agent.plugin(Environment.DRY_RUN)
    assert plugin.fetch_data("BTC/USDT").bid == 60000
    assert plugin.execute_order(limit()).outcome is Outcome.NOT_SENT
    assert mt5_rig.terminal.sent == []
    placed = mt5_rig.plugin.execute_order(limit())
    foreign = OrderRef("", "BTC/USDT", placed.broker_order_id, None)
    assert plugin.cancel_order(foreign).code == "NOT_SUPPORTED"
    assert len(mt5_rig.plugin.open_orders()) == 1


def test_an_agent_that_rehearses_cancels_nothing(
    tmp_path: Path, terminal: tuple[mt5.Mt5Terminal, str]
) -> None:
    agent = agent_with(tmp_path, terminal)
    placed = agent.plugin().execute_order(limit())
    agent.kill()
    agent.settings = "dry_run = true"
    agent.write()
    agent.start()
    foreign = OrderRef("", "BTC/USDT", placed.broker_order_id, None)
    canceled = agent.plugin().cancel_order(foreign)
    assert (canceled.outcome, canceled.code) == (Outcome.NOT_SENT, "NOT_SUPPORTED")
    assert len(agent.plugin().open_orders()) == 1
    agent.kill()


def test_an_instrument_the_agent_does_not_list_is_left_alone(mt5_rig: Mt5Rig) -> None:
    placed = mt5_rig.plugin.execute_order(limit())
    foreign = OrderRef("", "ETH/USDT", placed.broker_order_id, None)
    canceled = mt5_rig.plugin.cancel_order(foreign)
    assert (canceled.outcome, canceled.code) == (Outcome.NOT_SENT, "UNKNOWN_SYMBOL")
    assert len(mt5_rig.plugin.open_orders()) == 1


def test_a_terminal_on_another_account_tells_nothing_of_it(mt5_rig: Mt5Rig) -> None:
    plugin, since = mt5_rig.plugin, datetime.now(UTC) - timedelta(hours=1)
    plugin.execute_order(limit())
    mt5_rig.terminal.login = 1
    questions: list[Callable[[], object]] = [
        plugin.positions,
        plugin.balances,
        plugin.open_orders,
        lambda: plugin.trades_since("BTC/USDT", since),
    ]
    for question in questions:
        with pytest.raises(QueryFailedError, match="on account 1"):
            question()
