"""The MetaTrader 5 driver over a real agent process and an imitation of the terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brokers.bridge.drivers import mt5_terms
from brokers.bridge.drivers.mt5_clock import ServerClock
from brokers.capabilities import Balances
from brokers.errors import NotShownError, QuoteUnavailableError
from brokers.types import BookLevel, OrderType, Outcome, Side, VenueStatus
from tests.brokers.contract import limit, order, ref
from tests.brokers.terminals import mt5, mt5_surface
from tests.brokers.terminals.mt5 import C
from tests.brokers.terminals.rigs import BTC, Mt5Rig, mt5_agent

EURUSD = '[instruments."EUR/USD"]\nsymbol = "EURUSD.m"\nmax_quantity = "1000000"\n'


@pytest.fixture
def hedging(tmp_path: Path) -> Iterator[Mt5Rig]:
    terminal = mt5.Mt5Terminal(margin_mode=2)
    terminal.symbols["EURUSD.m"] = mt5.Symbol(
        "EURUSD.m", 1.08, 0.0001, 100000.0, 0.01, 5, "USD", exemode=1, filling=0, selected=False
    )
    with mt5.running(terminal) as address:
        agent = mt5_agent(tmp_path, terminal, address, instruments=BTC + EURUSD)
        agent.start()
        yield Mt5Rig(terminal, agent)
        agent.kill()


def close(quantity: str = "0.002", **changes: Any) -> Any:
    told = {"side": Side.SELL, "reduce_only": True, "quantity": Decimal(quantity)} | changes
    return order(**told)


def stop(price: int = 55000, **changes: Any) -> Any:
    return close(type=OrderType.STOP, stop_price=Decimal(price), **changes)


def test_what_an_account_is_worth_has_its_open_gains_in_it(mt5_rig: Mt5Rig) -> None:
    told = {"balance": 1000.0, "profit": 50.0, "equity": 1050.0, "margin_free": 900.0}
    mt5_rig.terminal.flags["account"] = told
    [shown] = mt5_rig.plugin.balances()
    assert (shown.total, shown.free) == (1050, 900)
    assert mt5_rig.plugin.capabilities.balances is Balances.WORTH


def test_units_become_lots_and_come_back_as_units(hedging: Mt5Rig) -> None:
    rules = hedging.plugin.instrument("EUR/USD")
    assert (rules.quantity_step, rules.price_tick) == (Decimal(1000), Decimal("0.00001"))
    assert (rules.base, rules.quote) == ("EUR", "USD")
    request = order(symbol="EUR/USD", quantity=Decimal(3000), reference_price=None)
    result = hedging.plugin.execute_order(request)
    sent = hedging.terminal.sent[0]
    assert (sent["volume"], sent["price"], sent["type_filling"]) == (0.03, 1.0801, mt5_terms.FOK)
    assert (sent["symbol"], len(sent["comment"])) == ("EURUSD.m", 29)
    report = hedging.plugin.fetch_order(ref(request, result.broker_order_id))
    assert report is not None
    assert report.quantity == report.filled_quantity == Decimal(3000)
    assert [p.quantity for p in hedging.plugin.positions()] == [Decimal(3000)]


def test_a_ticket_larger_than_the_agents_largest_order_has_a_stop_of_its_size(
    hedging: Mt5Rig,
) -> None:
    """A level is no order: only what leaves is bounded."""
    hedging.plugin.execute_order(order(quantity=Decimal("0.004")))
    hedging.agent.kill()
    hedging.agent.instruments = BTC.replace('"1000"', '"0.002"')
    hedging.agent.write()
    hedging.agent.start()
    assert hedging.plugin.execute_order(stop(quantity="0.004")).outcome is Outcome.ACCEPTED
    assert [ticket["sl"] for ticket in hedging.terminal.held.values()] == [55000.0]
    refused = hedging.plugin.execute_order(close("0.004"))
    assert (refused.outcome, refused.code) == (Outcome.NOT_SENT, "NOT_SUPPORTED")
    assert hedging.plugin.execute_order(close("0.002")).outcome is Outcome.ACCEPTED


def test_a_hedging_account_keeps_one_ticket_per_symbol(hedging: Mt5Rig) -> None:
    assert hedging.plugin.capabilities.reduce_only
    assert hedging.plugin.execute_order(order()).outcome is Outcome.ACCEPTED
    second = hedging.plugin.execute_order(order())
    assert (second.outcome, second.code) == (Outcome.NOT_SENT, "NOT_SUPPORTED")
    assert "one ticket per symbol" in second.detail


def test_a_known_ticket_is_found_without_the_whole_history(mt5_rig: Mt5Rig) -> None:
    filled, resting = order(), limit()
    results = [mt5_rig.plugin.execute_order(request) for request in (filled, resting)]
    for known in (True, False):
        tickets = [one.broker_order_id if known else "" for one in results]
        reports = [
            mt5_rig.plugin.fetch_order(ref(request, ticket))
            for request, ticket in zip((filled, resting), tickets, strict=True)
        ]
        assert [one and one.status for one in reports] == [VenueStatus.FILLED, VenueStatus.OPEN]
        assert reports[0] is not None
        assert [fill.quantity for fill in reports[0].fills] == [filled.quantity]
    assert [one.broker_order_id for one in mt5_rig.plugin.open_orders()] == [
        results[1].broker_order_id
    ]
    assert mt5_rig.terminal.scans == 0


def test_trades_that_the_ticket_does_not_show_are_looked_for_among_all(mt5_rig: Mt5Rig) -> None:
    mt5_rig.terminal.deal_tickets = True
    request = order()
    result = mt5_rig.plugin.execute_order(request)
    report = mt5_rig.plugin.fetch_order(ref(request, result.broker_order_id))
    assert report is not None
    assert [fill.quantity for fill in report.fills] == [request.quantity]


def test_an_order_that_waited_too_long_for_the_terminal_does_not_leave(mt5_rig: Mt5Rig) -> None:
    """The deadline is looked at again when the package is this thread's own."""
    ends = datetime.now(UTC) + timedelta(seconds=2)

    def hold_up() -> None:
        time.sleep(max(0, (ends - datetime.now(UTC)).total_seconds()))

    mt5_rig.terminal.checking = hold_up
    result = mt5_rig.plugin.execute_order(order(send_before=ends))
    late = (Outcome.NOT_SENT, "EXPIRED_BEFORE_SENDING", 1)
    assert (result.outcome, result.code, result.retry_after) == late
    assert mt5_rig.terminal.sent == []


def test_an_exit_of_a_hedging_account_names_its_ticket(hedging: Mt5Rig) -> None:
    entry = hedging.plugin.execute_order(order())
    too_much = hedging.plugin.execute_order(close("0.003"))
    assert too_much.outcome is Outcome.NOT_SENT
    request = close("0.001")
    assert hedging.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert hedging.terminal.sent[-1]["position"] == int(entry.broker_order_id)
    assert [p.quantity for p in hedging.plugin.positions()] == [Decimal("0.001")]
    found = hedging.plugin.fetch_order(ref(request))
    assert found is not None
    assert (found.status, found.side) == (VenueStatus.FILLED, Side.SELL)


def test_a_stop_is_attached_to_the_ticket_and_cancelled_there(hedging: Mt5Rig) -> None:
    ticket = int(hedging.plugin.execute_order(order()).broker_order_id)
    request = stop()
    result = hedging.plugin.execute_order(request)
    named = f"{ticket}-sl-{hedging.plugin.client_order_id(request.identity)}"
    assert (result.outcome, result.broker_order_id) == (Outcome.ACCEPTED, named)
    assert hedging.terminal.held[ticket]["sl"] == 55000.0
    named = ref(request, result.broker_order_id)
    assert [o.client_order_id for o in hedging.plugin.open_orders()] == [
        hedging.plugin.client_order_id(request.identity)
    ]
    assert hedging.plugin.cancel_order(named).outcome is Outcome.ACCEPTED
    assert hedging.plugin.cancel_order(named).outcome is Outcome.REJECTED
    assert hedging.terminal.held[ticket]["sl"] == 0.0
    report = hedging.plugin.fetch_order(named)
    assert report is not None
    assert report.status is VenueStatus.CANCELED


def test_an_attached_stop_and_target_live_side_by_side_and_one_fills(hedging: Mt5Rig) -> None:
    ticket = int(hedging.plugin.execute_order(order()).broker_order_id)
    guard, target = stop(), close(type=OrderType.LIMIT, price=Decimal(70000))
    for request in (guard, target):
        assert hedging.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    held = hedging.terminal.held[ticket]
    assert (held["sl"], held["tp"]) == (55000.0, 70000.0)
    hedging.terminal.stop_out(ticket)
    filled, gone = (hedging.plugin.fetch_order(ref(one)) for one in (guard, target))
    assert filled is not None
    assert gone is not None
    assert (filled.status, filled.filled_quantity) == (VenueStatus.FILLED, Decimal("0.002"))
    assert filled.average_price == Decimal(55000)
    assert (gone.status, gone.filled_quantity) == (VenueStatus.CANCELED, Decimal(0))
    assert hedging.plugin.positions() == []


def test_an_attached_stop_whose_answer_was_lost_is_read_back(hedging: Mt5Rig) -> None:
    ticket = int(hedging.plugin.execute_order(order()).broker_order_id)
    hedging.terminal.faults.append("after")
    result = hedging.plugin.execute_order(stop())
    assert (result.outcome, hedging.terminal.held[ticket]["sl"]) == (Outcome.ACCEPTED, 55000.0)


def test_a_stop_takes_the_place_of_the_one_before_it_at_once(hedging: Mt5Rig) -> None:
    ticket = int(hedging.plugin.execute_order(order()).broker_order_id)
    requests = [stop(55000), stop(56000), stop(55000)]
    results = [hedging.plugin.execute_order(request) for request in requests]
    assert [one.outcome for one in results] == [Outcome.ACCEPTED] * 3
    *replaced, last = requests
    held = hedging.terminal.held[ticket]
    assert held["sl"] == 55000.0
    for request in replaced:
        found = hedging.plugin.fetch_order(ref(request))
        assert found is not None
        assert (found.status, found.filled_quantity) == (VenueStatus.CANCELED, Decimal(0))
        assert hedging.plugin.cancel_order(ref(request)).outcome is Outcome.REJECTED
    assert held["sl"] == 55000.0
    assert [(one.broker_order_id, one.client_order_id) for one in hedging.plugin.open_orders()] == [
        (results[-1].broker_order_id, hedging.plugin.client_order_id(last.identity))
    ]
    assert len({one.broker_order_id for one in results}) == 3
    hedging.terminal.stop_out(ticket)
    reports = [hedging.plugin.fetch_order(ref(one)) for one in requests]
    assert [one and (one.status, one.filled_quantity) for one in reports] == [
        (VenueStatus.CANCELED, Decimal(0)),
        (VenueStatus.CANCELED, Decimal(0)),
        (VenueStatus.FILLED, Decimal("0.002")),
    ]


def test_a_stop_of_the_size_the_ticket_has_grown_to_is_there_already(hedging: Mt5Rig) -> None:
    """Nothing is asked of the server: it may refuse any change this close to the market."""
    assert hedging.plugin.capabilities.whole_stop
    ticket = int(hedging.plugin.execute_order(limit()).broker_order_id)
    hedging.terminal.fill(ticket, 0.001)
    part, whole = stop(quantity=Decimal("0.001")), stop()
    assert hedging.plugin.execute_order(part).outcome is Outcome.ACCEPTED
    hedging.terminal.fill(ticket, 0.001)
    asked = len(hedging.terminal.sent)
    result = hedging.plugin.execute_order(whole)
    assert (result.outcome, len(hedging.terminal.sent)) == (Outcome.ACCEPTED, asked)
    assert [one.broker_order_id for one in hedging.plugin.open_orders()] == [result.broker_order_id]
    assert hedging.plugin.cancel_order(ref(part)).outcome is Outcome.REJECTED
    assert hedging.terminal.held[ticket]["sl"] == 55000.0
    hedging.terminal.stop_out(ticket)
    reports = [hedging.plugin.fetch_order(ref(one)) for one in (part, whole)]
    assert [one and (one.status, one.filled_quantity) for one in reports] == [
        (VenueStatus.CANCELED, Decimal(0)),
        (VenueStatus.FILLED, Decimal("0.002")),
    ]


def test_a_stop_larger_than_what_was_left_of_its_ticket_has_ended_with_it(hedging: Mt5Rig) -> None:
    ticket = int(hedging.plugin.execute_order(order()).broker_order_id)
    guard = stop()
    hedging.plugin.execute_order(guard)
    hedging.plugin.execute_order(close("0.001"))
    hedging.terminal.stop_out(ticket)
    found = hedging.plugin.fetch_order(ref(guard))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.CANCELED, Decimal("0.001"))


def test_a_stop_whose_answer_was_lost_and_that_was_never_set_takes_no_fill(hedging: Mt5Rig) -> None:
    ticket = int(hedging.plugin.execute_order(order()).broker_order_id)
    set_one, lost = stop(55000), stop(56000)
    assert hedging.plugin.execute_order(set_one).outcome is Outcome.ACCEPTED
    hedging.terminal.faults.append("before")
    assert hedging.plugin.execute_order(lost).outcome is Outcome.UNKNOWN
    assert hedging.plugin.fetch_order(ref(lost)) is None
    hedging.terminal.stop_out(ticket)
    filled, absent = (hedging.plugin.fetch_order(ref(one)) for one in (set_one, lost))
    assert filled is not None
    assert (filled.status, filled.filled_quantity) == (VenueStatus.FILLED, Decimal("0.002"))
    assert absent is None


def test_a_stop_of_somebody_else_is_not_overwritten(hedging: Mt5Rig) -> None:
    ticket = int(hedging.plugin.execute_order(order()).broker_order_id)
    hedging.terminal.held[ticket]["sl"] = 57000.0
    refused = hedging.plugin.execute_order(stop())
    assert (refused.outcome, refused.code) == (Outcome.NOT_SENT, "NOT_SUPPORTED")
    assert hedging.terminal.held[ticket]["sl"] == 57000.0


def test_a_target_waits_until_the_one_before_it_is_cancelled(hedging: Mt5Rig) -> None:
    hedging.plugin.execute_order(order())
    first, refused, second = (
        close(type=OrderType.LIMIT, price=Decimal(price)) for price in (70000, 71000, 71000)
    )
    assert hedging.plugin.execute_order(first).outcome is Outcome.ACCEPTED
    assert hedging.plugin.execute_order(refused).outcome is Outcome.NOT_SENT
    assert hedging.plugin.cancel_order(ref(first)).outcome is Outcome.ACCEPTED
    assert hedging.plugin.execute_order(second).outcome is Outcome.ACCEPTED


def test_a_stop_whose_ticket_is_gone_has_not_ended_before_its_deal_is_told(
    hedging: Mt5Rig,
) -> None:
    ticket = int(hedging.plugin.execute_order(order()).broker_order_id)
    guard = stop()
    hedging.plugin.execute_order(guard)
    hedging.terminal.untold = 1
    hedging.terminal.stop_out(ticket)
    with pytest.raises(NotShownError, match="not shown yet"):
        hedging.plugin.fetch_order(ref(guard))
    hedging.terminal.untold = 0
    found = hedging.plugin.fetch_order(ref(guard))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.FILLED, Decimal("0.002"))


def test_a_deal_that_closed_only_a_part_does_not_explain_the_end_of_a_ticket(
    hedging: Mt5Rig,
) -> None:
    ticket = int(hedging.plugin.execute_order(order()).broker_order_id)
    guard = stop()
    hedging.plugin.execute_order(guard)
    hedging.plugin.execute_order(close("0.001"))
    hedging.terminal.untold = 1
    hedging.terminal.stop_out(ticket)
    with pytest.raises(NotShownError, match="not shown yet"):
        hedging.plugin.fetch_order(ref(guard))


def test_a_stop_ends_with_the_ticket_that_something_else_closed(hedging: Mt5Rig) -> None:
    hedging.plugin.execute_order(order())
    guard = stop()
    hedging.plugin.execute_order(guard)
    assert hedging.plugin.execute_order(close()).outcome is Outcome.ACCEPTED
    found = hedging.plugin.fetch_order(ref(guard))
    assert found is not None
    assert (found.status, found.filled_quantity) == (VenueStatus.CANCELED, Decimal(0))


def test_levels_set_at_the_same_time_leave_each_other_in_place(hedging: Mt5Rig) -> None:
    """Each request names both levels, as the ticket showed them."""
    ticket = int(hedging.plugin.execute_order(order()).broker_order_id)
    target = close(type=OrderType.LIMIT, price=Decimal(70000))
    hedging.terminal.reading = lambda: time.sleep(0.1)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(hedging.plugin.execute_order, (stop(), target)))
    assert [one.outcome for one in results] == [Outcome.ACCEPTED] * 2
    held = hedging.terminal.held[ticket]
    assert (held["sl"], held["tp"]) == (55000.0, 70000.0)


def test_a_comment_the_server_shortens_still_finds_the_order(mt5_rig: Mt5Rig) -> None:
    mt5_rig.terminal.comment_length = 16
    request = limit()
    mt5_rig.plugin.execute_order(request)
    assert mt5_rig.plugin.fetch_order(ref(request)) is not None
    assert mt5_rig.plugin.fetch_order(ref(limit())) is None


def test_orders_of_one_millisecond_have_magics_of_their_own() -> None:
    one, other = ("0199a1b2c3d47" + tail * 19 for tail in "ab")
    assert mt5_terms.magic_of(one) != mt5_terms.magic_of(other)
    assert mt5_terms.magic_of("f" * 32) < 2**53


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (10004, Outcome.REJECTED),
        (10018, Outcome.REJECTED),
        (10030, Outcome.REJECTED),
        (10045, Outcome.REJECTED),
        (10011, Outcome.UNKNOWN),
        (10012, Outcome.UNKNOWN),
        (10023, Outcome.UNKNOWN),
        (10028, Outcome.UNKNOWN),
        (10031, Outcome.UNKNOWN),
        (10036, Outcome.UNKNOWN),
        (10009, Outcome.UNKNOWN),
        (12345, Outcome.UNKNOWN),
        ((-2, "Invalid argument"), Outcome.NOT_SENT),
        ((-8, "Auto trading disabled"), Outcome.NOT_SENT),
        ((-10004, "No IPC"), Outcome.NOT_SENT),
        ((-10001, "IPC send failed"), Outcome.UNKNOWN),
        ((-10002, "IPC recv failed"), Outcome.UNKNOWN),
        ((-10005, "IPC timeout"), Outcome.UNKNOWN),
        ((-1, "Fail"), Outcome.UNKNOWN),
    ],
)
def test_answers_by_consequence(mt5_rig: Mt5Rig, fault: Any, outcome: Outcome) -> None:
    """10009 without a ticket proves nothing."""
    mt5_rig.terminal.faults.append(fault)
    assert mt5_rig.plugin.execute_order(limit()).outcome is outcome


def test_every_return_code_of_the_package_is_judged_on_purpose() -> None:
    known = {value for name, value in C.items() if name.startswith("TRADE_RETCODE_")}
    open_fate = {10011, 10012, 10023, 10028, 10031, 10036, 10039}
    judged = mt5_terms.ACCEPTED | mt5_terms.REJECTED | open_fate
    assert known <= judged
    assert not mt5_terms.ACCEPTED & mt5_terms.REJECTED
    assert not mt5_terms.REJECTED & open_fate


@pytest.mark.parametrize(
    ("exemode", "flags", "filling"),
    [(0, 0, 0), (1, 0, 0), (2, 1, 0), (2, 2, 1), (2, 3, 0), (3, 0, 2), (3, 2, 1), (2, 0, None)],
)
def test_filling_follows_the_symbol(
    mt5_rig: Mt5Rig, exemode: int, flags: int, filling: int | None
) -> None:
    symbol = mt5_rig.terminal.symbols["BTCUSDT"]
    symbol.exemode, symbol.filling = exemode, flags
    result = mt5_rig.plugin.execute_order(order())
    if filling is None:
        assert (result.outcome, result.code) == (Outcome.NOT_SENT, "NOT_SUPPORTED")
    else:
        assert result.outcome is Outcome.ACCEPTED
        assert mt5_rig.terminal.sent[0]["type_filling"] == filling


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"connected": False}, "not connected"),
        ({"trade_allowed": False}, "algorithmic trading is switched off"),
        ({"tradeapi_disabled": True}, "through the package is switched off"),
        ({"account": {"trade_allowed": False}}, "may not trade"),
        ({"account": {"trade_expert": False}}, "by programs"),
    ],
)
def test_a_terminal_that_may_not_trade_gets_no_order(
    mt5_rig: Mt5Rig, flags: dict[str, Any], sentence: str
) -> None:
    mt5_rig.terminal.flags = flags
    result = mt5_rig.plugin.execute_order(limit())
    assert (result.outcome, mt5_rig.terminal.sent) == (Outcome.NOT_SENT, [])
    assert sentence in result.detail


def test_a_position_of_an_order_no_list_shows_leaves_the_question_open(mt5_rig: Mt5Rig) -> None:
    request = order()
    mt5_rig.plugin.execute_order(request)
    mt5_rig.terminal.past.clear()
    assert not mt5_rig.plugin.capabilities.post_only
    with pytest.raises(Exception, match="but not the order"):
        mt5_rig.plugin.fetch_order(ref(request))


def test_server_times_become_utc(mt5_rig: Mt5Rig) -> None:
    quote = mt5_rig.plugin.fetch_data("BTC/USDT")
    assert abs(quote.at - datetime.now(UTC)) < timedelta(seconds=5)
    request = order()
    mt5_rig.plugin.execute_order(request)
    report = mt5_rig.plugin.fetch_order(ref(request))
    assert report is not None
    assert abs(report.fills[0].at - datetime.now(UTC)) < timedelta(seconds=5)


def test_the_depth_of_market_comes_in_units(hedging: Mt5Rig) -> None:
    hedging.terminal.depth["EURUSD.m"] = [
        ("sell", 1.0802, 4.0),
        ("sell", 1.0801, 0.5),
        ("buy", 1.08, 3.0),
        ("buy", 1.0799, 10.25),
    ]
    book = hedging.plugin.order_book("EUR/USD")
    told = [(str(one.price), str(one.quantity)) for one in book.bids + book.asks]
    assert told == [
        ("1.08", "300000"),
        ("1.0799", "1025000"),
        ("1.0801", "50000"),
        ("1.0802", "400000"),
    ]


def test_without_depth_the_price_is_for_the_largest_order(hedging: Mt5Rig) -> None:
    book = hedging.plugin.order_book("EUR/USD")
    assert book.bids == (BookLevel(Decimal("1.08"), Decimal(100_000_000)),)
    assert book.asks == (BookLevel(Decimal("1.0801"), Decimal(100_000_000)),)


def test_a_price_that_does_not_move_is_no_price(mt5_rig: Mt5Rig) -> None:
    mt5_rig.terminal.frozen = True
    with pytest.raises(QuoteUnavailableError, match="does not move"):
        mt5_rig.plugin.fetch_data("BTC/USDT")


@pytest.mark.parametrize(("minutes", "learned"), [(180, 180), (-300, -300), (345, 345), (7, None)])
def test_the_clock_learns_whole_quarters_only(minutes: int, learned: int | None) -> None:
    clock, now = ServerClock(), datetime(2026, 11, 20, 12, tzinfo=UTC)
    there = now + timedelta(minutes=minutes, seconds=2)
    clock.learn(int(there.timestamp() * 1000), now)
    assert clock.offset == (None if learned is None else timedelta(minutes=learned))


def test_numbers_that_are_no_floats_are_refused() -> None:
    with pytest.raises(Exception, match="exactly"):
        mt5_terms.number(Decimal("0.1234567890123456789"))


def test_the_imitation_has_the_wheels_surface() -> None:
    """For who has the vendor's wheel: `FKS_MT5_WHEEL=metatrader5-….whl`."""
    wheel = os.environ.get("FKS_MT5_WHEEL")
    if not wheel:
        pytest.skip("FKS_MT5_WHEEL names no wheel of the vendor")
    surface, words = mt5_surface.load(), mt5_surface.words(Path(wheel))
    assert surface["constants"] == mt5_surface.constants(Path(wheel))
    missing = {name for row in surface["rows"].values() for name in row} - words
    assert missing == set()
    asked = {"initialize", "shutdown", "last_error", "order_check", "order_send", "symbol_select"}
    assert asked <= words
