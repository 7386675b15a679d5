"""The NinjaTrader 8 driver over a real agent process and both folders with their bad habits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brokers.base import ExecutionPlugin
from brokers.bridge.drivers import memory_of, nt8_lines
from brokers.bridge.drivers.nt8_folders import Folders, NotTakenError
from brokers.bridge.drivers.nt8_instructions import Instructions
from brokers.bridge.drivers.nt8_settings import terms_of
from brokers.bridge.journal import Journal
from brokers.errors import (
    BrokerError,
    ConfigurationError,
    NotShownError,
    NotSupportedError,
    QueryFailedError,
    QuoteUnavailableError,
)
from brokers.types import OrderRequest, OrderType, Outcome, Side, TimeInForce, VenueStatus
from tests.brokers.contract import limit, order, ref
from tests.brokers.terminals import nt8
from tests.brokers.terminals.rigs import Nt8Rig, nt8_agent

EVERY_KIND = [
    (order(), "MARKET;;"),
    (limit("50000"), "LIMIT;50000;"),
    (order(type=OrderType.STOP, stop_price=Decimal(55000)), "STOPMARKET;;55000"),
    (
        order(type=OrderType.STOP_LIMIT, stop_price=Decimal(55000), price=Decimal("54999.5")),
        "STOPLIMIT;54999.5;55000",
    ),
]


def until(holds: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def waiting(rig: Nt8Rig) -> list[str]:
    return [path.name for path in rig.simulator.incoming.iterdir()]


def is_absent(plugin: ExecutionPlugin, request: OrderRequest) -> bool:
    """False also while the agent cannot say."""
    try:
        return plugin.fetch_order(ref(request)) is None
    except QueryFailedError:
        return False


@pytest.mark.parametrize(("request_", "middle"), EVERY_KIND)
def test_an_instruction_has_13_fields(request_: Any, middle: str) -> None:
    line = nt8_lines.place(request_, "Sim101", "ES 12-26", Decimal(2), "fksabc")
    assert line == f"PLACE;Sim101;ES 12-26;BUY;2;{middle};GTC;;fksabc;;\n"
    assert line.count(";") == 12
    assert nt8_lines.cancel("fksabc") == "CANCEL;;;;;;;;;;fksabc;;\n"


@pytest.mark.parametrize("name", ["a;b", "a\nb", "a\rb", "a\0b"])
def test_nothing_can_be_smuggled_into_a_line(name: str) -> None:
    for account, instrument, order_id in ((name, "ES", "x"), ("S", name, "x"), ("S", "ES", name)):
        with pytest.raises(NotSupportedError):
            nt8_lines.place(order(), account, instrument, Decimal(1), order_id)
    with pytest.raises(NotSupportedError):
        nt8_lines.cancel(name)


def test_no_command_for_whole_accounts_can_be_written(nt8_rig: Nt8Rig) -> None:
    with pytest.raises(NotSupportedError, match="without an order's id"):
        nt8_lines.cancel("")
    folder = Path(nt8_lines.__file__).parent
    texts = [path.read_text() for path in folder.glob("nt8*.py")]
    code = "\n".join(text.split('"""', 2)[2] for text in texts)
    assert not any(word in code for word in ("CANCELALL", "FLATTEN", "CLOSEPOSITION", "REVERSE"))
    request = limit()
    nt8_rig.plugin.execute_order(request)
    nt8_rig.plugin.cancel_order(ref(request))
    assert [line.split(";")[0] for line in nt8_rig.simulator.lines] == ["PLACE", "CANCEL"]


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("FILLED;2;6000.25", ("FILLED", Decimal(2), Decimal("6000.25"))),
        ("PARTFILLED;1;6000,25\r\n", ("PARTFILLED", Decimal(1), Decimal("6000.25"))),
        ("", None),
        ("FILLED", None),
        ("FILLED;2", None),
        ("UNHEARDOF;0;0", None),
        ("FILLED;x;1", None),
        ("FILLED;NaN;1", None),
        ("FILLED;-1;1", None),
    ],
)
def test_a_state_is_read_whole_or_not_at_all(text: str, state: Any) -> None:
    read = nt8_lines.state(text)
    assert (None if read is None else (read.word, read.filled, read.average)) == state


def test_a_file_nobody_takes_is_taken_back_and_never_executed(nt8_rig: Nt8Rig) -> None:
    nt8_rig.simulator.asleep = True
    request = order()
    result = nt8_rig.plugin.execute_order(request)
    assert (result.outcome, result.retry_after) == (Outcome.NOT_SENT, 5)
    assert waiting(nt8_rig) == []
    nt8_rig.simulator.asleep = False
    time.sleep(0.1)
    assert nt8_rig.simulator.lines == []
    assert nt8_rig.plugin.fetch_order(ref(request)) is None
    assert nt8_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert nt8_rig.placed(request) == 1


def test_an_agent_that_died_waiting_takes_its_file_back_when_it_starts(nt8_rig: Nt8Rig) -> None:
    nt8_rig.simulator.asleep = True
    request = order()
    held = threading.Thread(target=nt8_rig.plugin.execute_order, args=(request,))
    held.start()
    until(lambda: bool(waiting(nt8_rig)))
    nt8_rig.agent.kill()
    held.join()
    nt8_rig.agent.start()
    assert waiting(nt8_rig) == []
    nt8_rig.simulator.asleep = False
    plugin = nt8_rig.connect()
    until(lambda: is_absent(plugin, request))
    assert plugin.execute_order(request).outcome is Outcome.UNKNOWN
    assert nt8_rig.simulator.lines == []


def test_a_file_that_was_read_before_it_could_be_taken_back_is_an_order(nt8_rig: Nt8Rig) -> None:
    nt8_rig.simulator.lingers = True
    request = limit()
    assert nt8_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert nt8_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert nt8_rig.placed(request) == 1
    report = nt8_rig.plugin.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.OPEN


def test_an_order_acted_upon_after_it_counted_as_never_taken_is_not_sent_again(
    nt8_rig: Nt8Rig,
) -> None:
    nt8_rig.simulator.lingers = nt8_rig.simulator.stuck = True
    request = limit()
    assert nt8_rig.plugin.execute_order(request).outcome is Outcome.NOT_SENT
    nt8_rig.simulator.lingers = nt8_rig.simulator.stuck = False
    until(lambda: nt8_rig.placed(request) == 1)
    late = nt8_rig.plugin.fetch_order(ref(request))
    assert late is not None
    assert late.status is VenueStatus.OPEN
    assert list(nt8_rig.plugin.open_orders()) == [late]
    again = nt8_rig.plugin.execute_order(request)
    assert (again.outcome, "speaks of this order already" in again.detail) == (
        Outcome.UNKNOWN,
        True,
    )
    assert nt8_rig.placed(request) == 1
    report = nt8_rig.plugin.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.OPEN


def test_no_file_waits_longer_than_its_order_is_fresh(tmp_path: Path) -> None:
    sleeping = nt8.Nt8Simulator(tmp_path, asleep=True)
    folders = Folders({name: str(tmp_path / name) for name in ("incoming", "outgoing", "log")})
    journal = Journal(tmp_path / "journal.sqlite3")
    instructions = Instructions(folders, memory_of(journal, "S"), 3600, 0.1)
    request = order(send_before=datetime.now(UTC) + timedelta(seconds=0.5))
    journal.intend("S", "fksx", request)
    with pytest.raises(NotTakenError, match="taken back"):
        instructions.place(request.identity, "PLACE\n")
    assert list(sleeping.incoming.iterdir()) == []
    with pytest.raises(NotTakenError, match="ended before it could be written") as late:
        instructions.place(request.identity, "PLACE\n")
    assert late.value.code == "EXPIRED_BEFORE_SENDING"
    journal.close()


def test_a_file_taken_back_counts_as_never_taken_only_after_a_time_of_silence(
    tmp_path: Path,
) -> None:
    sleeping = nt8.Nt8Simulator(tmp_path, asleep=True)
    folders = Folders({name: str(tmp_path / name) for name in ("incoming", "outgoing", "log")})
    journal = Journal(tmp_path / "journal.sqlite3")
    entries = []
    for name in ("fksx", "fksy"):
        request = order()
        journal.intend("S", name, request)
        (sleeping.incoming / f"oif{name}a1.txt").write_text("PLACE\n")
        entries.append(journal.by_client_id("S", name))
    silent, spoken_of = entries
    assert silent is not None
    assert spoken_of is not None
    at_once = Instructions(folders, memory_of(journal, "S"), 1, 3600)
    for entry in (silent, spoken_of):
        with pytest.raises(NotShownError, match="may have been read"):
            at_once.was_never_taken(entry)
    assert list(sleeping.incoming.iterdir()) == []
    later = Instructions(folders, memory_of(journal, "S"), 1, 0)
    (sleeping.outgoing / "Sim101_fksy.txt").write_text("SUBMITTED;0;0")
    assert later.was_never_taken(silent)
    assert not later.was_never_taken(spoken_of)
    journal.close()


def test_a_cancel_that_was_read_before_it_could_be_taken_back_is_not_denied(
    nt8_rig: Nt8Rig,
) -> None:
    request = limit()
    nt8_rig.plugin.execute_order(request)
    nt8_rig.simulator.lingers = True
    assert nt8_rig.plugin.cancel_order(ref(request)).outcome is Outcome.UNKNOWN
    report = nt8_rig.plugin.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.CANCELED


def test_a_file_read_while_empty_is_unknown_and_never_proven_absent(nt8_rig: Nt8Rig) -> None:
    nt8_rig.simulator.empty_reads = 1
    request = order()
    assert nt8_rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    with pytest.raises(NotShownError, match="never said what became of it"):
        nt8_rig.plugin.fetch_order(ref(request))
    assert nt8_rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    assert nt8_rig.simulator.lines == []


def test_an_order_without_a_word_is_unknown_and_found_when_it_speaks(nt8_rig: Nt8Rig) -> None:
    nt8_rig.simulator.mute = True
    request = limit()
    assert nt8_rig.plugin.execute_order(request).outcome is Outcome.UNKNOWN
    nt8_rig.simulator.mute = False
    nt8_rig.simulator.fill(nt8_rig.plugin.client_order_id(request.identity), Decimal(2))
    report = nt8_rig.plugin.fetch_order(ref(request))
    assert report is not None
    assert (report.status, report.filled_quantity) == (VenueStatus.FILLED, Decimal("0.002"))


def test_a_refusal_in_the_log_alone_is_a_rejection(nt8_rig: Nt8Rig) -> None:
    nt8_rig.simulator.refuses_form = True
    request = order()
    result = nt8_rig.plugin.execute_order(request)
    assert (result.outcome, result.code) == (Outcome.REJECTED, "VENUE_REJECTED")
    assert "has invalid # of parameters" in result.detail
    assert nt8_rig.plugin.fetch_order(ref(request)) is None


def test_state_files_by_their_documented_name(nt8_rig: Nt8Rig) -> None:
    nt8_rig.simulator.short_names = True
    assert nt8_rig.plugin.execute_order(order()).outcome is Outcome.ACCEPTED


def test_what_was_seen_survives_the_platforms_restart(nt8_rig: Nt8Rig) -> None:
    filled, resting = order(), limit()
    for request in (filled, resting):
        nt8_rig.plugin.execute_order(request)
    nt8_rig.simulator.restart()
    report = nt8_rig.plugin.fetch_order(ref(filled))
    assert report is not None
    assert (report.status, len(report.fills)) == (VenueStatus.FILLED, 1)
    with pytest.raises(NotShownError, match="no longer tells"):
        nt8_rig.plugin.fetch_order(ref(resting))
    with pytest.raises(QueryFailedError, match="tells no position"):
        nt8_rig.plugin.positions()


def test_a_fill_nobody_asked_about_is_kept_before_a_restart_removes_it(nt8_rig: Nt8Rig) -> None:
    request = limit()
    nt8_rig.plugin.execute_order(request)
    nt8_rig.simulator.fill(nt8_rig.plugin.client_order_id(request.identity), Decimal(2))
    time.sleep(1.2)
    nt8_rig.simulator.restart()
    report = nt8_rig.plugin.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.FILLED


def test_fills_are_the_differences_of_what_was_told(nt8_rig: Nt8Rig) -> None:
    request = limit(quantity=Decimal("0.003"))
    order_id = nt8_rig.plugin.execute_order(request).broker_order_id
    nt8_rig.simulator.fill(order_id, Decimal(1))
    first = nt8_rig.plugin.fetch_order(ref(request))
    nt8_rig.simulator.orders[order_id]["limit"] = Decimal(49000)
    nt8_rig.simulator.fill(order_id, Decimal(2))
    report = nt8_rig.plugin.fetch_order(ref(request))
    assert first is not None
    assert report is not None
    assert report.fills[0] == first.fills[0]
    told = [(one.quantity, one.price.quantize(Decimal("0.01"))) for one in report.fills]
    assert told == [(Decimal("0.001"), Decimal(50000)), (Decimal("0.002"), Decimal(49000))]
    assert [one.fee for one in report.fills] == [Decimal("1.5"), Decimal(3)]


def test_positions_and_balances_are_what_the_files_and_the_operator_say(nt8_rig: Nt8Rig) -> None:
    assert nt8_rig.plugin.positions() == []
    nt8_rig.plugin.execute_order(order(side=Side.SELL))
    held = nt8_rig.plugin.positions()
    assert [(one.symbol, one.quantity) for one in held] == [("BTC/USDT", Decimal("-0.002"))]
    balances = nt8_rig.plugin.balances()
    assert [(one.currency, one.total) for one in balances] == [("USDT", Decimal(50000))]


def test_half_a_contract_and_a_time_the_connection_lacks_are_refused(nt8_rig: Nt8Rig) -> None:
    half = nt8_rig.plugin.execute_order(order(quantity=Decimal("0.0015")))
    day = nt8_rig.plugin.execute_order(order(time_in_force=TimeInForce.DAY))
    assert [half.outcome, day.outcome] == [Outcome.NOT_SENT, Outcome.NOT_SENT]
    assert nt8_rig.simulator.lines == []


def test_a_cut_connection_and_a_sleeping_reader_stop_orders(nt8_rig: Nt8Rig) -> None:
    nt8_rig.simulator.connect("DISCONNECTED")
    assert nt8_rig.plugin.execute_order(order()).outcome is Outcome.NOT_SENT
    assert not nt8_rig.plugin.health_check().ok
    nt8_rig.simulator.connect("CONNECTED")
    assert nt8_rig.plugin.health_check().ok
    nt8_rig.simulator.asleep = True
    stale = nt8_rig.simulator.incoming / "oifsomeone-elses.txt"
    stale.write_text("x\n")
    os.utime(stale, (time.time() - 60, time.time() - 60))
    request = order()
    result = nt8_rig.plugin.execute_order(request)
    assert (result.outcome, "restart it" in result.detail) == (Outcome.NOT_SENT, True)
    assert (result.code, result.retry_after) == ("VENUE_UNREACHABLE", 2), "an exit waits for it"
    assert not nt8_rig.plugin.health_check().ok
    stale.unlink()
    nt8_rig.simulator.asleep = False
    assert nt8_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED


def test_a_reader_that_may_take_its_time_is_not_asleep(tmp_path: Path) -> None:
    with nt8.running(nt8.Nt8Simulator(tmp_path)) as simulator:
        table = 'demo_accounts = ["Sim101"]\nbalance = "1"\ncurrency = "USDT"\ntake_seconds = 30\n'
        agent = nt8_agent(tmp_path, simulator, table=table)
        agent.start()
        slow = simulator.incoming / "oifanother-order.txt"
        slow.write_text("x")  # half a file: not read yet
        os.utime(slow, (time.time() - 20, time.time() - 20))
        assert agent.plugin().execute_order(order()).outcome is Outcome.ACCEPTED
        agent.kill()


def test_a_cancel_nobody_takes_is_not_sent(nt8_rig: Nt8Rig) -> None:
    request = limit()
    nt8_rig.plugin.execute_order(request)
    nt8_rig.simulator.asleep = True
    assert nt8_rig.plugin.cancel_order(ref(request)).outcome is Outcome.NOT_SENT
    assert waiting(nt8_rig) == []


def test_an_account_counts_as_real_unless_the_operator_says_demo(tmp_path: Path) -> None:
    with nt8.running(nt8.Nt8Simulator(tmp_path)) as simulator:
        table = 'demo_accounts = []\nbalance = "1"\ncurrency = "USDT"\n'
        agent = nt8_agent(tmp_path, simulator, table=table)
        agent.start()
        plugin = agent.plugin()
        result = plugin.execute_order(order())
        assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
        agent.kill()


def test_without_the_operators_word_there_is_no_price(tmp_path: Path) -> None:
    with nt8.running(nt8.Nt8Simulator(tmp_path)) as simulator:
        table = 'demo_accounts = ["Sim101"]\nbalance = "1"\ncurrency = "USDT"\n'
        agent = nt8_agent(tmp_path, simulator, table=table)
        agent.start()
        with pytest.raises(QuoteUnavailableError, match="trust_alert_prices"):
            agent.plugin().fetch_data("BTC/USDT", Decimal(60000))
        agent.kill()


def test_an_alerts_price_is_used_as_old_as_it_is(nt8_rig: Nt8Rig) -> None:
    first = nt8_rig.plugin.fetch_data("BTC/USDT", Decimal("61000.5"))
    assert (first.bid, first.ask) == (Decimal("61000.49"), Decimal("61000.51"))
    assert nt8_rig.plugin.fetch_data("BTC/USDT") == first


@pytest.mark.parametrize("missing", ["incoming", "outgoing", "log"])
def test_there_is_no_default_folder(tmp_path: Path, missing: str) -> None:
    options = dict.fromkeys(("incoming", "outgoing", "log"), str(tmp_path))
    Folders(options)
    for wrong in ({}, {missing: "relative"}, {missing: str(tmp_path / "absent")}):
        rest = {name: path for name, path in options.items() if name != missing}
        with pytest.raises(ConfigurationError, match=f"{missing} must name"):
            Folders({**rest, **wrong})


def test_moving_files_in_works_as_well(tmp_path: Path) -> None:
    simulator = nt8.Nt8Simulator(tmp_path)
    names = ("incoming", "outgoing", "log", "staging")
    options = {name: str(tmp_path / name) for name in names} | {"placing": "move"}
    with nt8.running(simulator):
        line = nt8_lines.place(order(), "S", "E", Decimal(1), "x")
        assert Folders(options).hand_over("fksx", line, 2)
        until(lambda: len(simulator.lines) == 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"balance": "1"},
        {"balance": 1, "currency": "USD"},
        {"balance": "1", "currency": "USD", "colour": "red"},
        {"balance": "1", "currency": "USD", "times_in_force": ["ioc"]},
        {"balance": "1", "currency": "USD", "take_seconds": 0},
    ],
    ids=str,
)
def test_what_the_files_do_not_tell_must_be_written_down(options: dict[str, Any]) -> None:
    with pytest.raises(BrokerError):
        terms_of("Sim101", {}, options)


def test_the_selftest_runs_with_a_price_by_hand(nt8_rig: Nt8Rig) -> None:
    arguments = (str(nt8_rig.agent.file), "--account", "Sim101", "--symbol", "BTC/USDT")
    done = nt8_rig.agent.command("selftest", *arguments, "--price", "60000")
    assert (done.returncode, done.stdout.count("ok  ")) == (0, 5), done.stdout + done.stderr
    states = [one["state"] for one in nt8_rig.simulator.orders.values()]
    assert states == ["CANCELLED"]
