"""An order in doubt that FKS has proved absent: when the agent sends it once more, and when never."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from brokers.bridge.drivers.nt8 import Nt8Driver
from brokers.bridge.journal import Journal, OtherOrderError
from brokers.types import ExecutionResult, OrderRequest, Outcome, Side
from tests.brokers.contract import limit, order
from tests.brokers.terminals.rigs import IbRig, Mt5Rig, TerminalRig

UNKNOWN = ExecutionResult(Outcome.UNKNOWN, code="VENUE_UNREACHABLE")


def grown_old(rig: TerminalRig, seconds: int = 61) -> None:
    """All orders of the journal were sent so long ago; the agent is started anew."""
    rig.agent.kill()
    sent_at = datetime.now(UTC) - timedelta(seconds=seconds)
    with closing(sqlite3.connect(rig.agent.folder / "journal.sqlite3")) as journal, journal:
        journal.execute("UPDATE orders SET sent_at = ?", (sent_at.isoformat(),))
    rig.agent.start()


def lost(rig: TerminalRig, request: OrderRequest) -> OrderRequest:
    """``request`` on its second attempt, after the first never reached the terminal."""
    rig.lose_the_request()
    assert rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    assert rig.placed(request) == 0
    return replace(request, attempt=2)


def test_an_exit_the_terminal_never_got_leaves_on_its_second_attempt(mt5_rig: Mt5Rig) -> None:
    again = lost(mt5_rig, order(side=Side.SELL))
    grown_old(mt5_rig)
    assert mt5_rig.plugin.execute_order(again).outcome is Outcome.ACCEPTED
    repeated = mt5_rig.plugin.execute_order(replace(again, attempt=3))
    assert (repeated.outcome, mt5_rig.placed(again)) == (Outcome.ACCEPTED, 1)


def test_at_interactive_brokers_as_well(ib_rig: IbRig) -> None:
    again = lost(ib_rig, ib_rig.order())
    grown_old(ib_rig)
    assert ib_rig.plugin.execute_order(again).outcome is Outcome.ACCEPTED
    assert ib_rig.placed(again) == 1


def test_an_order_whose_agent_died_before_it_knew_is_sent_again(mt5_rig: Mt5Rig) -> None:
    again = lost(mt5_rig, limit())
    mt5_rig.agent.kill()
    with closing(sqlite3.connect(mt5_rig.agent.folder / "journal.sqlite3")) as journal, journal:
        journal.execute("UPDATE orders SET result = NULL")
    grown_old(mt5_rig)
    assert mt5_rig.plugin.execute_order(again).outcome is Outcome.ACCEPTED
    assert mt5_rig.placed(again) == 1


def test_an_order_at_the_terminal_is_never_sent_again(mt5_rig: Mt5Rig) -> None:
    request = order(side=Side.SELL)
    mt5_rig.lose_the_answer()
    assert mt5_rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    grown_old(mt5_rig)
    assert mt5_rig.plugin.execute_order(replace(request, attempt=2)).outcome is Outcome.UNKNOWN
    assert mt5_rig.placed(request) == 1


def test_nobody_sends_again_what_fks_has_not_proved_absent(mt5_rig: Mt5Rig) -> None:
    again = lost(mt5_rig, limit())
    grown_old(mt5_rig)
    first = replace(again, attempt=1)
    assert mt5_rig.plugin.execute_order(first).outcome is Outcome.UNKNOWN
    assert mt5_rig.placed(first) == 0


def test_nor_before_the_agents_own_settle_window_is_over(mt5_rig: Mt5Rig) -> None:
    again = lost(mt5_rig, limit())
    grown_old(mt5_rig, seconds=20)
    assert mt5_rig.plugin.execute_order(again).outcome is Outcome.UNKNOWN
    assert mt5_rig.placed(again) == 0


def test_nor_while_the_terminal_cannot_say(mt5_rig: Mt5Rig) -> None:
    again = lost(mt5_rig, limit())
    grown_old(mt5_rig)
    mt5_rig.terminal.cut_off()
    assert mt5_rig.plugin.execute_order(again).outcome is Outcome.UNKNOWN
    mt5_rig.terminal.reconnect()
    assert mt5_rig.plugin.execute_order(again).outcome is Outcome.ACCEPTED
    assert mt5_rig.placed(again) == 1


def test_ninjatraders_files_prove_nothing_absent() -> None:
    assert not Nt8Driver.proves_absence


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite3")


def test_of_two_that_take_an_absent_id_anew_one_sends(journal: Journal) -> None:
    request = limit()
    journal.intend("a", "fks1", request)
    journal.finish("a", request.identity, UNKNOWN)
    assert journal.intend("a", "fks1", request, absent=1) is None
    taken = journal.intend("a", "fks1", request, absent=1)
    assert taken is not None
    assert (taken.attempt, taken.result) == (2, None)


def test_what_never_left_may_have_become_smaller(journal: Journal) -> None:
    request = limit()
    smaller = replace(request, quantity=request.quantity / 2, attempt=2)
    journal.intend("a", "fks1", request)
    journal.finish("a", request.identity, UNKNOWN)
    with pytest.raises(OtherOrderError):
        journal.intend("a", "fks1", smaller)
    with pytest.raises(OtherOrderError):
        journal.intend("a", "fks1", replace(smaller, price=Decimal(1)), absent=1)
    assert journal.intend("a", "fks1", smaller, absent=1) is None
    waits = ExecutionResult(Outcome.NOT_SENT, code="X", retry_after=1)
    journal.finish("a", request.identity, waits)
    assert journal.intend("a", "fks1", replace(smaller, quantity=request.quantity / 4)) is None
    found = journal.find("a", request.identity)
    assert found is not None
    assert found.request.quantity == request.quantity / 4
