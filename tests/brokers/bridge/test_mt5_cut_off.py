"""A MetaTrader 5 terminal that is away, cut off, on another account, or has nothing to tell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from brokers.base import ExecutionPlugin
from brokers.bridge.drivers.mt5_terminal import Terminal
from brokers.errors import QueryFailedError, UnknownSymbolError
from brokers.plugins import bridge
from brokers.types import (
    CancelResult,
    ExecutionResult,
    OrderRequest,
    OrderType,
    Outcome,
    Side,
    VenueStatus,
)
from tests.brokers.contract import limit, order, ref
from tests.brokers.terminals import mt5
from tests.brokers.terminals.rigs import Mt5Rig


@pytest.mark.parametrize(
    "question", ["account_info", "symbol_info", "symbol_select", "order_check", "connected"]
)
def test_an_order_waits_for_a_terminal_that_comes_back(
    mt5_rig: Mt5Rig, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """Nothing has left, so that it may leave later: an exit does not end for a moment's silence."""

    def silent(*_: object) -> Any:
        raise mt5._IpcError((-10004, "No IPC"))

    request = limit()
    mt5_rig.terminal.symbols["BTCUSDT"].selected = question != "symbol_select"
    with monkeypatch.context() as cut:
        if question == "connected":
            cut.setattr(mt5_rig.terminal, "flags", {"connected": False})
        else:
            cut.setattr(mt5_rig.terminal, question, silent)
        result = mt5_rig.plugin.execute_order(request)
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "VENUE_UNREACHABLE")
    assert result.retry_after in {1, 2}  # told by the driver, or by the plugin of what was refused
    assert mt5_rig.terminal.sent == []
    later = monotonic() + result.retry_after
    monkeypatch.setattr(bridge, "monotonic", lambda: later)
    assert mt5_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("code", range(-10005, -9999))
def test_a_symbol_nobody_could_ask_for_is_not_unknown(
    mt5_rig: Mt5Rig, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def lost(*_: object) -> Any:
        raise mt5._IpcError((code, "IPC"))

    monkeypatch.setattr(mt5_rig.terminal, "symbol_info", lost)
    with pytest.raises(QueryFailedError, match=str(code)):
        mt5_rig.plugin.instrument("BTC/USDT")


@pytest.mark.parametrize("said", [None, (-4, "Terminal: Not found"), (-1, "Terminal: Call failed")])
def test_a_symbol_the_terminal_does_not_list_is_unknown(
    mt5_rig: Mt5Rig, monkeypatch: pytest.MonkeyPatch, said: tuple[int, str] | None
) -> None:
    def unlisted(*_: object) -> Any:
        if said is not None:
            raise mt5._IpcError(said)

    monkeypatch.setattr(mt5_rig.terminal, "symbol_info", unlisted)
    with pytest.raises(UnknownSymbolError):
        mt5_rig.plugin.instrument("BTC/USDT")
    result = mt5_rig.plugin.execute_order(limit())
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "UNKNOWN_SYMBOL")


@pytest.mark.parametrize("code", [10011, 10012, 10028, 10031])
def test_an_order_waits_for_a_server_that_could_not_be_asked(
    mt5_rig: Mt5Rig, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    request = limit()
    with monkeypatch.context() as away:
        away.setattr(mt5_rig.terminal, "_verdict", lambda _: code)
        result = mt5_rig.plugin.execute_order(request)
    waits = (Outcome.NOT_SENT, "VENUE_UNREACHABLE", 1)
    assert (result.outcome, result.code, result.retry_after) == waits
    assert mt5_rig.terminal.sent == []
    assert mt5_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("code", [-10003, -10004])
def test_an_order_waits_for_a_terminal_that_was_gone_as_it_left(mt5_rig: Mt5Rig, code: int) -> None:
    mt5_rig.terminal.faults.append((code, "No IPC"))
    request = limit()
    result = mt5_rig.plugin.execute_order(request)
    waits = (Outcome.NOT_SENT, "VENUE_UNREACHABLE", 1)
    assert (result.outcome, result.code, result.retry_after) == waits
    assert mt5_rig.terminal.sent == []
    assert mt5_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED


LEVEL = order(side=Side.SELL, reduce_only=True, type=OrderType.STOP, stop_price=Decimal(55000))


@pytest.mark.parametrize(
    ("before", "at", "act"),
    [
        ([], "order_check", lambda plugin, _: plugin.execute_order(order())),
        ([limit()], "orders_get", lambda plugin, known: plugin.cancel_order(ref(known))),
        ([order()], "positions_get", lambda plugin, _: plugin.execute_order(LEVEL)),
        ([order(), LEVEL], "positions_get", lambda plugin, known: plugin.cancel_order(ref(known))),
    ],
    ids=["order", "cancel", "level", "cancel of a level"],
)
def test_a_terminal_that_is_on_another_account_by_now_gets_nothing(
    mt5_rig: Mt5Rig,
    monkeypatch: pytest.MonkeyPatch,
    before: list[OrderRequest],
    at: str,
    act: Callable[[ExecutionPlugin, OrderRequest | None], ExecutionResult | CancelResult],
) -> None:
    """Somebody logs it in elsewhere while an order has its turn: that account may be real money."""
    terminal, ask = mt5_rig.terminal, getattr(mt5_rig.terminal, at)
    terminal.margin_mode = mt5.C["ACCOUNT_MARGIN_MODE_RETAIL_HEDGING"]
    for request in before:
        assert mt5_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    sent = list(terminal.sent)

    def logs_in(*arguments: Any, **named: Any) -> Any:
        terminal.login = 1
        return ask(*arguments, **named)

    monkeypatch.setattr(terminal, at, logs_in)
    result = act(mt5_rig.plugin, before[-1] if before else None)
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "ACCOUNT_MISCONFIGURED")
    assert "on account 1, not on 5012345" in result.detail
    assert terminal.sent == sent


@pytest.mark.parametrize(
    ("at", "ask"),
    [
        ("positions_get", lambda plugin: plugin.positions()),
        ("orders_get", lambda plugin: plugin.open_orders()),
        ("orders_get", lambda plugin: plugin.fetch_order(ref(order()))),
        ("history_deals_get", lambda plugin: plugin.trades_since("BTC/USDT", datetime.now(UTC))),
    ],
    ids=["positions", "open orders", "order", "trades"],
)
def test_what_a_terminal_tells_of_another_account_is_no_answer(
    mt5_rig: Mt5Rig,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    ask: Callable[[ExecutionPlugin], object],
) -> None:
    """It is logged in elsewhere while the question has its turn: nothing is flat, nothing absent."""
    terminal, tell = mt5_rig.terminal, getattr(mt5_rig.terminal, at)

    def logged_in(*arguments: Any, **named: Any) -> Any:
        terminal.login = 1
        return tell(*arguments, **named)

    monkeypatch.setattr(terminal, at, logged_in)
    with pytest.raises(QueryFailedError, match="on account 1, not on 5012345"):
        ask(mt5_rig.plugin)


@pytest.mark.parametrize("at_first", [True, False], ids=["before", "meanwhile"])
@pytest.mark.parametrize(
    ("at", "ask"),
    [
        ("symbol_info", lambda plugin: plugin.instrument("BTC/USDT")),
        ("symbol_info_tick", lambda plugin: plugin.fetch_data("BTC/USDT")),
        ("market_book_get", lambda plugin: plugin.order_book("BTC/USDT")),
    ],
    ids=["rules", "price", "order book"],
)
def test_what_another_server_says_of_a_symbol_is_no_answer(
    mt5_rig: Mt5Rig,
    monkeypatch: pytest.MonkeyPatch,
    at_first: bool,
    at: str,
    ask: Callable[[ExecutionPlugin], object],
) -> None:
    """Its lots and prices are its own. Older ones do for an exit, where nobody has answered."""
    terminal, tell = mt5_rig.terminal, getattr(mt5_rig.terminal, at)
    terminal.depth["BTCUSDT"] = [("sell", 60001.0, 4.0), ("buy", 60000.0, 3.0)]
    assert ask(mt5_rig.plugin)

    def logged_in(*arguments: Any, **named: Any) -> Any:
        terminal.login = 1
        terminal.symbols["BTCUSDT"].contract = 10.0
        return tell(*arguments, **named)

    monkeypatch.setattr(terminal, at, logged_in)
    terminal.login = 1 if at_first else terminal.login
    with pytest.raises(QueryFailedError, match="on account 1, not on 5012345"):
        ask(mt5_rig.plugin)


def test_a_symbol_another_server_does_not_list_is_not_unknown(
    mt5_rig: Mt5Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order waits: an unknown symbol would end it, exits too."""

    def unlisted(*_: object) -> None:
        mt5_rig.terminal.login = 1

    request, own = limit(), mt5_rig.terminal.login
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(mt5_rig.terminal, "symbol_info", unlisted)
        with pytest.raises(QueryFailedError, match="on account 1, not on 5012345"):
            mt5_rig.plugin.instrument("BTC/USDT")
        mt5_rig.terminal.login = own
        result = mt5_rig.plugin.execute_order(request)
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "VENUE_UNREACHABLE")
    assert result.retry_after is not None
    mt5_rig.terminal.login = own
    later = monotonic() + result.retry_after
    monkeypatch.setattr(bridge, "monotonic", lambda: later)
    assert mt5_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED


def test_the_clock_of_another_server_is_not_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = SimpleNamespace(connected=True)
    account, ahead = SimpleNamespace(login=5012345), timedelta(hours=3)

    def tick(_: str) -> Any:
        now = datetime.now(UTC) + ahead
        return SimpleNamespace(time_msc=int(now.timestamp() * 1000), bid=60000.0, ask=60001.0)

    package = SimpleNamespace(
        terminal_info=lambda: connection, account_info=lambda: account, symbol_info_tick=tick
    )
    monkeypatch.setitem(sys.modules, "MetaTrader5", package)
    terminal = Terminal(None, "5012345")
    terminal.tick("BTCUSDT")
    assert terminal.clock.offset == timedelta(hours=3)
    account.login, ahead = 1, timedelta(hours=-5)
    with pytest.raises(QueryFailedError, match="on account 1"):
        terminal.price("BTCUSDT")
    assert terminal.clock.offset == timedelta(hours=3)


def test_an_order_that_was_taken_is_accepted_whatever_becomes_of_the_login(
    mt5_rig: Mt5Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, send = mt5_rig.terminal, mt5_rig.terminal.order_send

    def taken(request: dict[str, Any]) -> Any:
        answer = send(request)
        terminal.login = 1
        return answer

    monkeypatch.setattr(terminal, "order_send", taken)
    assert mt5_rig.plugin.execute_order(limit()).outcome is Outcome.ACCEPTED


def test_a_terminal_cut_off_from_its_server_proves_nothing(mt5_rig: Mt5Rig) -> None:
    """What it shows then is its own copy, which knows nothing of what happened since."""
    request, plugin, began = order(), mt5_rig.plugin, datetime.now(UTC)
    mt5_rig.terminal.faults.append("cut")
    assert plugin.execute_order(request).outcome is Outcome.UNKNOWN
    questions: list[Callable[[], Any]] = [
        lambda: plugin.fetch_order(ref(request)),
        plugin.open_orders,
        lambda: plugin.trades_since("BTC/USDT", began),
        plugin.positions,
        plugin.balances,
    ]
    for question in questions:
        with pytest.raises(QueryFailedError, match="not connected"):
            question()
    canceled = plugin.cancel_order(ref(request))
    assert (canceled.outcome, canceled.code) == (Outcome.NOT_SENT, "VENUE_UNREACHABLE")
    mt5_rig.terminal.reconnect()
    report = plugin.fetch_order(ref(request))
    assert report is not None
    assert report.status is VenueStatus.FILLED
    assert [p.quantity for p in plugin.positions()] == [request.quantity]


@pytest.mark.parametrize("asked", ["rows", "account"])
@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
def test_an_answer_counts_between_two_looks_at_the_connection(
    monkeypatch: pytest.MonkeyPatch, asked: str, before: bool, after: bool
) -> None:
    connection = SimpleNamespace(connected=before)

    def answer() -> Any:
        connection.connected = after
        return ()

    package = SimpleNamespace(
        terminal_info=lambda: connection,
        orders_get=answer,
        account_info=lambda: answer() or SimpleNamespace(login=5012345),
    )
    monkeypatch.setitem(sys.modules, "MetaTrader5", package)
    terminal = Terminal(None, "5012345")
    questions = {"rows": lambda: terminal.rows("orders_get"), "account": terminal.account}
    with pytest.raises(QueryFailedError, match="not connected"):
        questions[asked]()


def test_an_exit_leaves_while_no_price_moves(mt5_rig: Mt5Rig) -> None:
    """An agent that has just been started knows no age of a price; an order at the market asks none."""
    mt5_rig.terminal.frozen = True
    request = order(side=Side.SELL)
    assert mt5_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert mt5_rig.terminal.sent[0]["price"] == 60000.0
    report = mt5_rig.plugin.fetch_order(ref(request))
    assert report is not None
    assert abs(report.fills[0].at - datetime.now(UTC)) < timedelta(minutes=1)


def test_an_exit_waits_for_a_price(mt5_rig: Mt5Rig) -> None:
    symbol = mt5_rig.terminal.symbols["BTCUSDT"]
    symbol.bid = 0.0
    request = order(side=Side.SELL)
    result = mt5_rig.plugin.execute_order(request)
    waits = (Outcome.NOT_SENT, "REFERENCE_UNAVAILABLE", 1)
    assert (result.outcome, result.code, result.retry_after) == waits
    symbol.bid = 60000.0
    assert mt5_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
