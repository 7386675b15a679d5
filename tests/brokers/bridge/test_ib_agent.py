"""The connection to TWS, its accounts, and the agent's file."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brokers.bridge.driver import Listed
from brokers.bridge.drivers.ib import is_real
from brokers.bridge.drivers.ib_contracts import Traded
from brokers.bridge.drivers.ib_placing import Placing
from brokers.bridge.drivers.ib_session import MOST_A_SECOND, Pace
from brokers.bridge.drivers.ib_settings import terms_of
from brokers.capabilities import Balances
from brokers.errors import ConfigurationError, QueryFailedError, UnknownSymbolError
from brokers.plugins.bridge import BridgePlugin
from brokers.symbols import resolve
from brokers.types import Environment, Outcome, Side
from tests.brokers.contract import order, ref
from tests.brokers.terminals import ib
from tests.brokers.terminals.rigs import IbRig, ib_agent


def test_tws_without_its_servers_gets_no_order_and_proves_nothing(ib_rig: IbRig) -> None:
    assert ib_rig.plugin.health_check().ok
    ib_rig.tws.say(1100, "Connectivity between IB and TWS has been lost.")
    result = ib_rig.plugin.execute_order(ib_rig.order())
    assert (result.outcome, result.retry_after) == (Outcome.NOT_SENT, 2)
    assert not ib_rig.plugin.health_check().ok
    with pytest.raises(QueryFailedError, match="lost its connection"):
        ib_rig.plugin.fetch_order(ref(ib_rig.order()))
    ib_rig.tws.say(1102, "Connectivity between IB and TWS has been restored.")
    assert ib_rig.plugin.health_check().ok
    assert ib_rig.plugin.execute_order(ib_rig.order()).outcome is Outcome.ACCEPTED


def test_outages_leave_no_account_summaries_behind(ib_rig: IbRig) -> None:
    """TWS allows two, and ib_async opens one after each outage."""
    assert ib_rig.plugin.health_check().ok
    for _ in range(3):
        ib_rig.tws.say(1100)
        ib_rig.tws.say(1102)
    assert ib_rig.plugin.health_check().ok
    assert len(ib_rig.plugin.balances()) == 1


def test_a_silent_tws_gets_no_order(ib_rig: IbRig) -> None:
    assert ib_rig.plugin.health_check().ok
    ib_rig.tws.mute = {49}
    result = ib_rig.plugin.execute_order(ib_rig.order())
    assert (result.outcome, ib_rig.sent()) == (Outcome.NOT_SENT, [])
    ib_rig.tws.mute = set()
    assert ib_rig.plugin.execute_order(ib_rig.order()).outcome is Outcome.ACCEPTED


@pytest.mark.alone
def test_no_more_messages_than_tws_takes() -> None:
    async def turns() -> float:
        pace, started = Pace(), time.monotonic()
        for _ in range(MOST_A_SECOND + 1):
            await pace.turn()
        return time.monotonic() - started

    assert 1 <= asyncio.run(turns()) < 2


def test_a_claim_that_ended_while_the_order_waited_its_turn_sends_nothing() -> None:
    class Crowded:
        async def turn(self) -> None:
            await asyncio.sleep(0.05)

    session: Any = SimpleNamespace(pace=Crowded(), require_servers=lambda: None)
    share = Traded("A/USD", None, Decimal(1), Decimal(1), Decimal(1), Decimal("0.01"), False)
    request = order(symbol="A/USD", quantity=Decimal(1))
    placing = Placing(
        replace(request, send_before=datetime.now(UTC) + timedelta(seconds=0.01)), "DU1", "fks"
    )
    result = asyncio.run(placing.run(session, share))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "EXPIRED_BEFORE_SENDING")
    assert (result.retry_after, placing.is_sent) == (1, False)


@pytest.mark.parametrize(
    ("account", "port", "real"),
    [
        ("DU1234567", 7497, False),
        ("DU1234567", 4002, False),
        ("DU1234567", 7496, True),
        ("DU1234567", 4001, True),
        ("U1234567", 7497, True),
        ("F1234567", 7497, True),
        ("", 7497, True),
    ],
)
def test_only_a_paper_number_behind_a_paper_port_is_paper(
    account: str, port: int, *, real: bool
) -> None:
    assert is_real(account, port) is real


def test_real_money_needs_both_ends_to_say_so(tmp_path: Path) -> None:
    tws = ib.Tws(accounts=("U7654321",))
    with ib.running(tws) as port:
        agent = ib_agent(tmp_path, tws, port)
        agent.start()
        rig = IbRig(tws, agent)
        request = rig.order()
        paper, live = agent.plugin(), agent.plugin(Environment.LIVE)
        assert paper.execute_order(request).outcome is Outcome.NOT_SENT
        refused = live.execute_order(request)
        assert (refused.outcome, "allow_live is off" in refused.detail) == (Outcome.NOT_SENT, True)
        agent.kill()
        agent.settings = "allow_live = true"
        agent.write()
        agent.start()
        assert agent.plugin().execute_order(request).outcome is Outcome.NOT_SENT
        assert rig.sent() == []
        live = agent.plugin(Environment.LIVE)
        assert live.execute_order(request).outcome is Outcome.ACCEPTED
        agent.kill()


def test_an_account_tws_is_not_on_gets_no_order(ib_rig: IbRig) -> None:
    ib_rig.tws.accounts = ("DU7777777",)
    result = ib_rig.plugin.execute_order(ib_rig.order())
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "on account DU7777777" in result.detail


def test_balances_are_asked_anew_and_leave_nothing_open(ib_rig: IbRig) -> None:
    for balance in (1000, 2000, 3000, 4000):
        ib_rig.tws.balance = Decimal(balance)
        told = ib_rig.plugin.balances()
        assert [(b.currency, b.total, b.free) for b in told] == [("USD", balance, balance)]


def test_what_an_account_is_worth_has_its_open_gains_in_it(ib_rig: IbRig) -> None:
    ib_rig.tws.balance, ib_rig.tws.open_gain = Decimal(1000), Decimal(50)
    [told] = ib_rig.plugin.balances()
    assert (told.total, told.free) == (1050, 1000)
    assert ib_rig.plugin.capabilities.balances is Balances.WORTH


def test_positions_are_signed_and_flat_ones_left_out(ib_rig: IbRig) -> None:
    ib_rig.plugin.execute_order(ib_rig.order(side=Side.SELL))
    assert [p.quantity for p in ib_rig.plugin.positions()] == [Decimal(-2)]
    ib_rig.plugin.execute_order(ib_rig.order())
    assert ib_rig.plugin.positions() == []


def test_a_dry_run_asks_what_if_and_places_nothing(tmp_path: Path) -> None:
    tws = ib.Tws()
    with ib.running(tws) as port:
        agent = ib_agent(tmp_path, tws, port, settings="dry_run = true")
        agent.start()
        rig = IbRig(tws, agent)
        passed, failed = (
            rig.plugin.execute_order(rig.limit()),
            rig.plugin.execute_order(rig.unaffordable()),
        )
        agent.kill()
    assert "passed its checks" in passed.detail
    assert "no funds (201)" in failed.detail
    assert {passed.outcome, failed.outcome} == {Outcome.NOT_SENT}
    assert ([told["whatIf"] for told in rig.sent()], tws.orders) == (["1", "1"], {})


def test_the_selftest_proves_a_paper_account(ib_rig: IbRig) -> None:
    arguments = (str(ib_rig.agent.file), "--account", "DU1234567", "--symbol", "BRK.A/USD")
    done = ib_rig.agent.command("selftest", *arguments)
    assert (done.returncode, done.stdout.count("ok  ")) == (0, 5), done.stdout + done.stderr
    assert [row["status"] for row in ib_rig.tws.orders.values()] == ["Cancelled"]


def test_the_log_names_orders_and_not_what_ib_async_says_of_the_account(ib_rig: IbRig) -> None:
    request = ib_rig.order()
    ib_rig.plugin.execute_order(request)
    ib_rig.plugin.positions()
    log = (ib_rig.agent.folder / "agent.log").read_text()
    assert f"{ib_rig.plugin.client_order_id(request.identity)} buy 2 BRK.A/USD: accepted" in log
    assert "DU1234567" not in log


@pytest.mark.parametrize(
    ("options", "symbol"), [({"shares": True}, "AAPL/USD"), ({"shares": "yes"}, ""), ({}, "")]
)
def test_a_lone_ticker_is_a_share_where_the_account_says_so(
    options: dict[str, Any], symbol: str
) -> None:
    shares = BridgePlugin.trades_shares(options)
    if symbol:
        assert resolve("NASDAQ:AAPL", shares=shares) == symbol
    else:
        with pytest.raises(UnknownSymbolError):
            resolve("NASDAQ:AAPL", shares=shares)


@pytest.mark.parametrize(
    ("options", "terms", "sentence"),
    [
        ({}, {}, "port must be"),
        ({"port": 7497}, {}, "client_id must be"),
        ({"port": 7497, "client_id": 0}, {}, "client_id must be"),
        ({"port": 7497, "client_id": 1, "colour": "red"}, {}, "no setting 'colour'"),
        ({"port": 7497, "client_id": 1, "host": "0.0.0.0"}, {}, "open to others"),  # noqa: S104
        ({"port": 7497, "client_id": 1, "host": "10.0.0.2"}, {}, "vpn = true"),
        ({"port": 7497, "client_id": 1, "time_zone": "Mars"}, {}, "there is no 'Mars'"),
        ({"port": 7497, "client_id": 1, "answer_seconds": 60}, {}, "answer_seconds must be"),
        ({"port": 7497, "client_id": 1}, {"type": "OPT"}, "must be one of"),
        ({"port": 7497, "client_id": 1}, {"exchange": ""}, "lacks exchange"),
        ({"port": 7497, "client_id": 1}, {"tick": 0.5}, "in quotation marks"),
        ({"port": 7497, "client_id": 1}, {"multiplier": 50}, "in quotation marks"),
        ({"port": 7497, "client_id": 1}, {"con_id": "5"}, "con_id is a number"),
        ({"port": 7497, "client_id": 1}, {"colour": "red"}, "no setting 'colour'"),
    ],
    ids=str,
)
def test_what_the_file_must_say(
    options: dict[str, Any], terms: dict[str, Any], sentence: str
) -> None:
    told = {"type": "STK", "exchange": "SMART", "currency": "USD", **terms}
    listed = {"A/USD": Listed("A/USD", "A", Decimal(1), told)}
    with pytest.raises(ConfigurationError, match=sentence):
        terms_of(listed, options)
