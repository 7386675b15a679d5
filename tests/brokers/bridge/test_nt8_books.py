"""What the NinjaTrader driver says is held, over contract rolls, closes by hand and lost files."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brokers.bridge.driver import Listed
from brokers.bridge.drivers import memory_of, nt8_states
from brokers.bridge.drivers.nt8 import Nt8Driver
from brokers.bridge.drivers.nt8_positions import position
from brokers.bridge.journal import Journal
from brokers.client_ids import letters_and_digits
from brokers.errors import QueryFailedError
from brokers.types import OrderRequest, Outcome, Side
from tests.brokers.contract import order, ref
from tests.brokers.terminals import nt8

ACCOUNT = "Sim101"
DECEMBER, MARCH = "ES 12-26", "ES 03-27"
OPTIONS = {
    "demo_accounts": [ACCOUNT],
    "balance": "50000",
    "currency": "USD",
    "take_seconds": 1,
    "settle_seconds": 1,
    "answer_seconds": 2,
}


def listed(*names: str, multiplier: str = "50") -> dict[str, Listed]:
    terms = {"tick": "0.25", "multiplier": multiplier}
    return {name: Listed(name, name, Decimal(1000), terms) for name in names}


def of(symbol: str, side: Side = Side.BUY) -> OrderRequest:
    return replace(order(), symbol=symbol, side=side, quantity=Decimal(100))


@dataclass
class Desk:
    """An agent's driver, which can be started anew with another file."""

    simulator: nt8.Nt8Simulator
    journal: Journal
    drivers: list[Nt8Driver] = field(default_factory=list)

    @property
    def driver(self) -> Nt8Driver:
        return self.drivers[-1]

    def start(self, instruments: Mapping[str, Listed]) -> None:
        folders = {
            name: str(self.simulator.root / name) for name in ("incoming", "outgoing", "log")
        }
        options: dict[str, Any] = OPTIONS | folders
        memory = memory_of(self.journal, ACCOUNT)
        self.stop()
        self.drivers.append(Nt8Driver(ACCOUNT, instruments, options, memory))

    def stop(self) -> None:
        for driver in self.drivers:
            driver.stop()
            driver._states._following.join(5)

    def send(self, request: OrderRequest) -> OrderRequest:
        client_id = letters_and_digits(request.identity)
        self.journal.intend(ACCOUNT, client_id, request)
        assert self.driver.execute_order(request, client_id).outcome is Outcome.ACCEPTED
        return request

    def held(self) -> list[tuple[str, Decimal]]:
        return [(one.symbol, one.quantity) for one in self.driver.positions()]

    def call_flat(self, symbol: str) -> None:
        """A person closed it in a chart."""
        file = self.simulator.outgoing / f"{symbol} Globex_{ACCOUNT}_Position.txt"
        file.write_text("FLAT;0;0")


@contextmanager
def opened(folder: Path) -> Iterator[Desk]:
    with nt8.running(nt8.Nt8Simulator(folder)) as simulator:
        journal = Journal(folder / "journal.sqlite3")
        made = Desk(simulator, journal)
        made.start(listed(DECEMBER))
        yield made
        made.stop()
        journal.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path) as made:
        yield made


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_contract_that_is_listed_no_more_hides_no_position(desk: Desk) -> None:
    old = desk.send(of(DECEMBER))
    desk.send(of(DECEMBER, Side.SELL))
    desk.start(listed(MARCH, multiplier="5"))
    assert desk.held() == []
    desk.send(of(MARCH))
    assert desk.held() == [(MARCH, Decimal(100))]
    report = desk.driver.fetch_order(ref(old), desk.journal.find(ACCOUNT, old.identity))
    assert report is not None
    assert (report.filled_quantity, report.fills[0].quantity) == (Decimal(100), Decimal(100))


def test_an_order_keeps_the_units_it_was_sent_in(desk: Desk) -> None:
    sent = desk.send(of(DECEMBER))
    desk.start(listed(DECEMBER, multiplier="5"))
    report = desk.driver.fetch_order(ref(sent), desk.journal.find(ACCOUNT, sent.identity))
    assert report is not None
    assert report.filled_quantity == Decimal(100)


def test_what_a_person_closed_is_not_missed_after_a_restart_of_the_platform(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nt8_states, "SETTLED", timedelta(0))
    desk.send(of(DECEMBER))
    assert desk.held() == [(DECEMBER, Decimal(100))]
    desk.call_flat(DECEMBER)
    assert desk.held() == []
    desk.simulator.restart()
    assert desk.held() == [], "nothing is held, and nothing has been missed"
    desk.send(of(DECEMBER))
    desk.simulator.restart()
    with pytest.raises(QueryFailedError, match="tells no position"):
        desk.driver.positions()


def test_a_fill_of_this_moment_may_not_be_in_the_position_file_yet(desk: Desk) -> None:
    desk.send(of(DECEMBER))
    desk.call_flat(DECEMBER)
    assert desk.held() == []
    desk.simulator.restart()
    with pytest.raises(QueryFailedError, match="tells no position"):
        desk.driver.positions()


def test_half_a_trade_that_is_forgotten_is_no_position(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bought longer ago than the journal is read, and sold since."""
    monkeypatch.setattr(nt8_states, "SETTLED", timedelta(0))
    bought = desk.send(of(DECEMBER))
    desk.send(of(DECEMBER, Side.SELL))
    assert desk.held() == []
    long_ago = datetime.now(UTC) - nt8_states.MEMORY - timedelta(days=1)
    with desk.journal._transaction():
        desk.journal._db.execute(
            "UPDATE orders SET sent_at = ? WHERE identity = ?",
            (long_ago.isoformat(), bought.identity),
        )
    desk.simulator.restart()
    assert desk.held() == []


def test_what_stops_the_copying_for_a_moment_ends_it_not(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(nt8_states.States, "_copy", full)
        until(lambda: not desk.driver.health().ok)
        health = desk.driver.health()
    assert health.detail == (
        "the states of orders are not copied: OperationalError('database or disk is full')"
    )
    until(lambda: desk.driver.health().ok)
    sent = desk.send(of(DECEMBER))
    entry = desk.journal.find(ACCOUNT, sent.identity)
    assert entry is not None
    assert entry.notes["state"].startswith("FILLED")


def test_a_thread_that_has_ended_is_told(desk: Desk) -> None:
    desk.stop()
    assert desk.driver.health().detail.endswith("nobody follows them")


def test_a_state_that_could_not_be_read_is_read_again(desk: Desk) -> None:
    """It was half written when its time was noted, and the whole text has the same time."""
    request = of(DECEMBER)
    client_id = letters_and_digits(request.identity)
    desk.journal.intend(ACCOUNT, client_id, request)
    file = desk.simulator.outgoing / f"{ACCOUNT}_{client_id}.txt"
    file.write_text("FILLED;2")
    desk.driver._states._copy()
    assert client_id not in desk.driver._states._seen
    file.write_text("FILLED;2;6000")
    desk.driver._states._copy()
    assert client_id in desk.driver._states._seen


@pytest.mark.parametrize(
    ("file", "is_ours"),
    [
        ("ES 12-26 Globex_101_Position.txt", True),
        ("es 12-26_101_position.txt", True),
        ("ES 12-26 Globex_Sim_101_Position.txt", False),
        ("ES 12-26_Sim_101_Position.txt", False),
        ("ES 12-26 Globex My_101_Position.txt", False),
        ("ES 12-2600 Globex_101_Position.txt", False),
    ],
)
def test_a_position_file_of_another_account_is_not_ours(
    tmp_path: Path, file: str, *, is_ours: bool
) -> None:
    (tmp_path / file).write_text("LONG;2;6000")
    told = position(tmp_path, "101", "", listed(DECEMBER)[DECEMBER])
    assert told == ((Decimal(2), Decimal(6000)) if is_ours else None)
