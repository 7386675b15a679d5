"""A MetaTrader 5 terminal with its trade server, for tests: a book, a clock three hours ahead, faults.

It outlives the agents that connect to it, as the real one does.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from typing import Any

from tests.brokers.terminals.mt5_surface import load

SURFACE = load()
C: dict[str, int] = SURFACE["constants"]
OK = (1, "Success")
TIMEOUT = (-10005, "IPC timeout")
AHEAD = 3 * 3600
"""The server's clock against UTC, seconds."""
BUYS = {0, 2, 4, 6}
Row = dict[str, Any]


@dataclass
class Symbol:
    name: str
    bid: float
    spread: float
    contract: float
    step: float
    digits: int
    profit: str
    exemode: int = 2
    filling: int = 1
    selected: bool = True


def btc() -> Symbol:
    return Symbol("BTCUSDT", 60000.0, 1.0, 1.0, 0.001, 2, "USDT")


OLD: Row = {
    "symbol": "BTCUSDT",
    "volume": 0.001,
    "price": 60000.0,
    "type_time": 0,
    "type_filling": 0,
    "comment": "of before",
}


@dataclass
class Mt5Terminal:
    """``faults`` are used up by order_send: `before` and `after` lose request or answer, `hang`
    never answers, `cut` takes the order and cuts the terminal off before it has heard of that, a
    number is the server's return code, a tuple the package's error."""

    login: int = 5012345
    trade_mode: int = 0
    margin_mode: int = 0
    symbols: dict[str, Symbol] = field(default_factory=lambda: {"BTCUSDT": btc()})
    faults: deque[Any] = field(default_factory=deque)
    flags: Row = field(default_factory=dict)
    """Fields of terminal_info and account_info that are unlike the usual."""
    comment_length: int = 31
    balance: float = 1_000_000.0
    depth: dict[str, list[tuple[str, float, float]]] = field(default_factory=dict)
    """Side, price and lots of the depth of market, where the broker shows one."""
    deal_tickets: bool = False
    """Deals are picked by their own tickets, not by those of their orders."""
    untold: int = 0
    """How many of the newest deals the history does not show yet."""
    scans: int = 0
    """How often the history was asked for as a whole."""
    fills_first: bool = False
    """An order is filled just before its removal is read."""
    frozen: bool = False
    """No price moves."""
    trouble: Callable[[], Any] | None = None
    """Makes the fault of each order_send the queue says nothing about."""
    checking: Callable[[], Any] = bool
    """What order_check does before it answers."""

    reading: Callable[[], Any] = bool
    """What positions_get does before it answers."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._tickets = itertools.count(1001)
        self.orders: dict[int, Row] = {}
        self.past: dict[int, Row] = {}
        self.deals: list[Row] = []
        self.held: dict[int, Row] = {}
        self.sent: list[Row] = []
        self._last_known: dict[str, Any] = {}
        self._stopped_at = self._now_ms()

    # --- a hand on the venue ---

    def placed(self, magic: int) -> int:
        with self._lock:
            rows = [*self.orders.values(), *self.past.values()]
            return sum(row["magic"] == magic for row in rows)

    def look_back_on(self, orders: int) -> None:
        """So many orders of other magic numbers were filled today."""
        with self._lock:
            for number in range(1, orders + 1):
                told = {"action": C["TRADE_ACTION_DEAL"], "type": number % 2, "magic": number}
                self._taken({**told, **OLD})

    def fill(self, ticket: int, volume: float) -> None:
        """So much of a waiting order is executed at its price."""
        with self._lock:
            order = self.orders[ticket]
            order["volume_current"] = round(order["volume_current"] - volume, 8)
            self._trade(order, volume, order["price_open"])
            order["state"] = C["ORDER_STATE_PARTIAL"]
            if order["volume_current"] == 0:
                self._end(order, C["ORDER_STATE_FILLED"])

    def stop_out(self, ticket: int) -> None:
        """The price meets a position's SL."""
        with self._lock:
            held = self.held[ticket]
            self._close(held, held["sl"], reason=C["DEAL_REASON_SL"])

    def cut_off(self) -> None:
        """The trade server is out of reach: from now on the terminal shows what it last knew."""
        with self._lock:
            self.flags = {**self.flags, "connected": False}
            books = ("orders", "past", "deals", "held", "balance")
            self._last_known = deepcopy({name: getattr(self, name) for name in books})

    def reconnect(self) -> None:
        with self._lock:
            self.flags = {**self.flags, "connected": True}
            self._last_known = {}

    def _shown(self, book: str) -> Any:
        return self._last_known.get(book, getattr(self, book))

    # --- what the package asks ---

    def terminal_info(self) -> Any:
        row = _blank("TerminalInfo", connected=True, trade_allowed=True, build=5430, name="Test")
        return "TerminalInfo", {**row, **{k: v for k, v in self.flags.items() if k in row}}

    def account_info(self) -> Any:
        row = _blank(
            "AccountInfo",
            login=self.login,
            trade_mode=self.trade_mode,
            margin_mode=self.margin_mode,
            trade_allowed=True,
            trade_expert=True,
            balance=self._shown("balance"),
            equity=self._shown("balance"),
            margin_free=self._shown("balance"),
            currency="USDT",
        )
        return "AccountInfo", {**row, **self.flags.get("account", {})}

    def symbol_info(self, name: str) -> Any:
        found = self.symbols.get(name)
        if found is None:
            return None
        return "SymbolInfo", _blank(
            "SymbolInfo",
            name=name,
            visible=found.selected,
            digits=found.digits,
            point=10.0**-found.digits,
            trade_tick_size=10.0**-found.digits,
            trade_contract_size=found.contract,
            volume_min=found.step,
            volume_max=1000.0,
            volume_step=found.step,
            currency_profit=found.profit,
            currency_base=name[:3],
            trade_exemode=found.exemode,
            filling_mode=found.filling,
            bid=found.bid,
            ask=found.bid + found.spread,
        )

    def symbol_info_tick(self, name: str) -> Any:
        found = self.symbols[name]
        now = self._stopped_at if self.frozen else self._now_ms()
        return "Tick", _blank(
            "Tick",
            time=now // 1000,
            time_msc=now,
            bid=found.bid,
            ask=round(found.bid + found.spread, found.digits),
        )

    def market_book_add(self, name: str) -> bool:
        return name in self.depth

    def market_book_get(self, name: str) -> Any:
        """Sellers first, the highest price first, as the package lists them."""
        kinds = {"sell": C["BOOK_TYPE_SELL"], "buy": C["BOOK_TYPE_BUY"]}
        return [
            ("BookInfo", _blank("BookInfo", type=kinds[side], price=price, volume_dbl=volume))
            for side, price, volume in sorted(
                self.depth[name], key=lambda one: (one[0] == "buy", -one[1])
            )
        ]

    def symbol_select(self, name: str, enable: bool) -> bool:
        if name not in self.symbols:
            return False
        self.symbols[name].selected = enable
        return True

    def orders_get(self, **named: Any) -> Any:
        rows = _picked(self._shown("orders").values(), named)
        return [("TradeOrder", dict(row)) for row in rows]

    def positions_get(self, **named: Any) -> Any:
        self.reading()
        rows = _picked(self._shown("held").values(), named)
        return [("TradePosition", dict(row)) for row in rows]

    def history_orders_get(self, *dates: float, **named: Any) -> Any:
        self.scans += not named
        rows = _picked(self._shown("past").values(), named)
        return [("TradeOrder", dict(row)) for row in rows if _within(row["time_setup"], dates)]

    def history_deals_get(self, *dates: float, **named: Any) -> Any:
        """``ticket`` is an order's (mql5.com, "history_deals_get"), unless ``deal_tickets``."""
        if "ticket" in named and not self.deal_tickets:
            named = {"order": named.pop("ticket"), **named}
        if "position" in named:
            named = {"position_id": named.pop("position"), **named}
        self.scans += not named
        deals = self._shown("deals")
        return [
            ("TradeDeal", dict(row))
            for row in _picked(deals[: len(deals) - self.untold], named)
            if _within(row["time"], dates)
        ]

    def order_check(self, request: Row) -> Any:
        self.checking()
        code = self._verdict(request)
        comment = "Done" if code == 0 else "No money"
        row = _blank("OrderCheckResult", retcode=code, comment=comment, request=request)
        return "OrderCheckResult", row

    def order_send(self, request: Row) -> Any:
        fault = self.faults.popleft() if self.faults else self.trouble and self.trouble()
        if fault == "before":
            raise _IpcError(TIMEOUT)
        if isinstance(fault, tuple):
            raise _IpcError(fault)
        if isinstance(fault, int):
            return self._answer(request, fault)
        self.sent.append(request)
        if fault == "cut":
            self.cut_off()
        answer = self._acted(request)
        if fault == "hang":
            raise _SilenceError
        if fault == "after":
            raise _IpcError(TIMEOUT)
        if fault == "cut":
            return self._answer(request, C["TRADE_RETCODE_TIMEOUT"])
        return answer

    def _acted(self, request: Row) -> Any:
        action = request["action"]
        if action == C["TRADE_ACTION_REMOVE"]:
            order = self.orders.get(request["order"])
            if order is not None and self.fills_first:
                self.fill(order["ticket"], order["volume_current"])
                order = None
            if order is None:
                return self._answer(request, C["TRADE_RETCODE_INVALID"])
            self._end(order, C["ORDER_STATE_CANCELED"])
            return self._answer(request, C["TRADE_RETCODE_DONE"], order["ticket"])
        if action == C["TRADE_ACTION_SLTP"]:
            held = self.held.get(request["position"])
            if held is None:
                return self._answer(request, C["TRADE_RETCODE_POSITION_CLOSED"])
            levels = request.get("sl", 0.0), request.get("tp", 0.0)
            if levels == (held["sl"], held["tp"]):
                return self._answer(request, C["TRADE_RETCODE_NO_CHANGES"])
            held["sl"], held["tp"] = levels
            return self._answer(request, C["TRADE_RETCODE_DONE"])
        code = self._verdict(request)
        if code:
            return self._answer(request, code)
        return self._taken(request)

    def _taken(self, request: Row) -> Any:
        now = self._now_ms()
        order = _blank(
            "TradeOrder",
            ticket=next(self._tickets),
            time_setup=now // 1000,
            time_setup_msc=now,
            type=request["type"],
            type_time=request["type_time"],
            type_filling=request["type_filling"],
            state=C["ORDER_STATE_PLACED"],
            magic=request.get("magic", 0),
            volume_initial=request["volume"],
            volume_current=request["volume"],
            price_open=request["price"],
            price_stoplimit=request.get("stoplimit", 0.0),
            symbol=request["symbol"],
            comment=request.get("comment", "")[: self.comment_length],
        )
        self.orders[order["ticket"]] = order
        if request["action"] == C["TRADE_ACTION_PENDING"]:
            return self._answer(request, C["TRADE_RETCODE_DONE"], order["ticket"])
        symbol = self.symbols[request["symbol"]]
        price = symbol.bid + (symbol.spread if order["type"] in BUYS else 0.0)
        order["volume_current"] = 0.0
        if "position" in request:
            self._close(self.held[request["position"]], price, order=order)
        else:
            self._trade(order, request["volume"], price)
        self._end(order, C["ORDER_STATE_FILLED"])
        deal = self.deals[-1]["ticket"]
        return self._answer(request, C["TRADE_RETCODE_DONE"], order["ticket"], deal)

    def _verdict(self, request: Row) -> int:
        if request["action"] not in (C["TRADE_ACTION_DEAL"], C["TRADE_ACTION_PENDING"]):
            return 0
        symbol = self.symbols[request["symbol"]]
        is_market = request["action"] == C["TRADE_ACTION_DEAL"]
        allowed = {0: symbol.filling & 1, 1: symbol.filling & 2, 2: symbol.exemode == 3}
        if is_market and symbol.exemode in (0, 1):
            allowed = {0: 1}
        if is_market and not allowed.get(request["type_filling"]):
            return C["TRADE_RETCODE_INVALID_FILL"]
        value = request["volume"] * symbol.contract * request["price"]
        return C["TRADE_RETCODE_NO_MONEY"] if value > self.balance * 20 else 0

    def _trade(self, order: Row, volume: float, price: float) -> None:
        buys = order["type"] in BUYS
        held = self.held.get(order["ticket"])
        if self.margin_mode != 2:
            rows = (row for row in self.held.values() if row["symbol"] == order["symbol"])
            held = next(rows, None)
        if held is None:
            held = self._opened(order, volume, price)
        else:
            sign = 1 if held["type"] == 0 else -1
            after = round(sign * held["volume"] + (volume if buys else -volume), 8)
            held["volume"], held["type"] = abs(after), 0 if after > 0 else 1
            if not after:
                del self.held[held["ticket"]]
        self._deal(order, held, volume, price, 0)

    def _opened(self, order: Row, volume: float, price: float) -> Row:
        now = self._now_ms()
        held = _blank(
            "TradePosition",
            ticket=order["ticket"],
            identifier=order["ticket"],
            time=now // 1000,
            time_msc=now,
            type=0 if order["type"] in BUYS else 1,
            magic=order["magic"],
            comment=order["comment"],
            symbol=order["symbol"],
            volume=volume,
            price_open=price,
        )
        self.held[held["ticket"]] = held
        return held

    def _close(self, held: Row, price: float, order: Row | None = None, reason: int = 3) -> None:
        side = 1 if held["type"] == 0 else 0
        volume = held["volume"] if order is None else order["volume_initial"]
        closing = order or _blank("TradeOrder", ticket=next(self._tickets), type=side)
        closed = {**closing, "symbol": held["symbol"]}
        self._deal(closed, held, volume, price, reason, entry=C["DEAL_ENTRY_OUT"])
        held["volume"] = round(held["volume"] - volume, 8)
        if held["volume"] == 0:
            del self.held[held["ticket"]]

    def _deal(
        self, order: Row, held: Row, volume: float, price: float, reason: int, entry: int = 0
    ) -> None:
        now = self._now_ms()
        self.deals.append(
            _blank(
                "TradeDeal",
                ticket=next(self._tickets),
                order=order["ticket"],
                time=now // 1000,
                time_msc=now,
                type=0 if order["type"] in BUYS else 1,
                magic=held["magic"],
                position_id=held["identifier"],
                reason=reason,
                entry=entry,
                volume=volume,
                price=price,
                commission=-round(volume * price * 0.0004, 4),
                symbol=order["symbol"],
                comment=order["comment"],
            )
        )

    def _end(self, order: Row, state: int) -> None:
        order["state"], order["time_done_msc"] = state, self._now_ms()
        del self.orders[order["ticket"]]
        self.past[order["ticket"]] = order

    def _answer(self, request: Row, code: int, order: int = 0, deal: int = 0) -> Any:
        return "OrderSendResult", _blank(
            "OrderSendResult",
            retcode=code,
            order=order,
            deal=deal,
            comment="Request executed" if order else "",
            request=request,
        )

    @staticmethod
    def _now_ms() -> int:
        return int((time.time() + AHEAD) * 1000)

    # --- the pipe ---

    def serve(self, connection: Connection) -> None:
        while True:
            try:
                name, arguments, named = connection.recv()
                with self._lock:
                    try:
                        answer = getattr(self, name)(*arguments, **named)
                        said = (answer, OK)
                    except _IpcError as error:
                        said = (None, error.args[0])
                connection.send(said)
            except _SilenceError:
                continue
            except (EOFError, OSError):
                return


class _IpcError(Exception):
    pass


class _SilenceError(Exception):
    """The order is taken and nothing is ever said of it."""


def _blank(kind: str, /, **values: Any) -> Row:
    texts = {"comment", "symbol", "external_id", "name", "currency", "server", "company", "path"}
    row: Row = {key: "" if key in texts else 0 for key in SURFACE["rows"][kind]}
    return {**row, **values}


def _picked(rows: Any, named: Row) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in named.items())]


def _within(at: float, dates: tuple[float, ...]) -> bool:
    return not dates or dates[0] <= at <= dates[1]


@contextmanager
def running(terminal: Mt5Terminal) -> Iterator[str]:
    """The terminal on a pipe of its own; yields its address."""
    listener = Listener(("127.0.0.1", 0), authkey=b"terminal")
    stopped = threading.Event()

    def accept() -> None:
        while not stopped.is_set():
            try:
                connection = listener.accept()
            except (OSError, EOFError, AuthenticationError):
                continue
            threading.Thread(target=terminal.serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    host, port = listener.address
    try:
        yield f"{host}:{port}"
    finally:
        stopped.set()
        listener.close()
