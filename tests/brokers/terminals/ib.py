"""TWS with its servers, for tests: a socket that speaks its protocol, a ledger, faults.

It outlives the clients that connect to it, as the real one does. Prices stand still at 60000 until
a test moves them.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from tests.brokers.terminals import ib_wire as wire

Row = dict[str, Any]
ENDED = {"Filled", "Cancelled"}
EASTERN = ZoneInfo("US/Eastern")


def share(con_id: int = 4242, **more: Any) -> Row:
    """Contract details of a share at 60000, and its market rule."""
    return {
        "conId": con_id,
        "symbol": "BRK A",
        "secType": "STK",
        "exchange": "SMART",
        "primaryExchange": "NYSE",
        "currency": "USD",
        "localSymbol": "BRK A",
        "tradingClass": "BRK A",
        "strike": "0",
        "minTick": "0.0001",
        "validExchanges": "SMART,NYSE",
        "marketRuleIds": "26,26",
        "priceMagnifier": "1",
        "minSize": "0.0001",
        "sizeIncrement": "0.0001",
        "bid": Decimal(60000),
        "ask": Decimal(60001),
        **more,
    }


@dataclass
class Tws:
    """``faults`` are used up by placements: `before` cuts the connection unread, `swallowed` loses the
    order and says nothing, `after` cuts when the order is taken, `between` after the first of two
    messages, `answered` after both, `hang` says nothing of a taken order, a number is an error without
    an order, (`warn`, code) one with it, (`late`, seconds) a slow answer."""

    accounts: tuple[str, ...] = ("DU1234567",)
    contracts: list[Row] = field(default_factory=lambda: [share()])
    rules: dict[int, list[tuple[str, str]]] = field(
        default_factory=lambda: {26: [("0", "0.0001"), ("1", "0.01")]}
    )
    faults: deque[Any] = field(default_factory=deque)
    trouble: Callable[[], Any] | None = None
    """Makes the fault of each placement the queue says nothing about."""
    balance: Decimal = Decimal(1_000_000)
    open_gain: Decimal = Decimal(0)
    mute: set[int] = field(default_factory=set)
    """Numbers of requests that get no answer."""
    refuses: dict[int, int] = field(default_factory=dict)
    """Numbers of requests and the code of the error they get."""
    garbled: set[int] = field(default_factory=set)
    """Numbers of answers that lack a field."""
    forgets_numbers: bool = False
    """Order numbers are offered from 1 again at every connection."""
    data_type: int = 1
    silent_commissions: bool = False
    stutters: float = 0
    """Seconds of silence after the first open order of the next list."""
    untransmitted: str = "PendingSubmit"
    """How an order is shown that waits for the rest of its bracket."""
    fills_first: bool = False
    """An order is filled just before its cancel is read."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._perms = itertools.count(1_500_000_001)
        self._execs = itertools.count(1)
        self.orders: dict[int, Row] = {}
        self.executions: list[Row] = []
        self.requests: list[tuple[str, ...]] = []
        self.clients: dict[int, Client] = {}
        self.held: dict[int, list[Decimal]] = {}

    # --- a hand on the venue ---

    def placed(self, reference: str) -> int:
        with self._lock:
            return sum(row["orderRef"] == reference for row in self.orders.values())

    def fill(self, perm_id: int, shares: Decimal, price: Decimal | None = None) -> None:
        """So much of a waiting order is executed, at its price."""
        with self._lock:
            row = self.orders[perm_id]
            self._trade(row, shares, price or Decimal(row["lmtPrice"]))

    def say(self, code: int, text: str = "said by the test", number: int = -1) -> None:
        """An error to every client."""
        with self._lock:
            for client in list(self.clients.values()):
                client.error(number, code, text)

    def cut(self) -> None:
        """Every connection breaks."""
        with self._lock:
            for client in list(self.clients.values()):
                client.close()

    def forget_the_day(self) -> None:
        """It is tomorrow: what ended is shown no more."""
        with self._lock:
            self.orders = {p: r for p, r in self.orders.items() if r["status"] not in ENDED}
            self.executions.clear()

    # --- what clients ask ---

    def handle(self, client: Client, fields: list[str]) -> None:
        with self._lock:
            self.requests.append(tuple(fields))
            number = int(fields[0])
            if number in self.mute:
                return
            if number in self.refuses:
                # Requests 7, 9 and 62 carry a number of their own
                own = int(fields[2]) if number in (7, 9, 62) else -1
                client.error(own, self.refuses[number], "refused by the test")
                return
            name = HANDLERS.get(number)
            if name is None:
                client.error(-1, 320, f"Error reading request: {number}")
                return
            getattr(self, name)(client, fields)

    def start_api(self, client: Client, fields: list[str]) -> None:
        client.number = int(fields[2])
        if client.number in self.clients:
            client.error(-1, 326, "Unable to connect as the client id is already in use.")
            client.close()
            return
        self.clients[client.number] = client
        used = [r["orderId"] for r in self.orders.values() if r["clientId"] == client.number]
        following = 1 if self.forgets_numbers else max(used, default=0) + 1
        client.send(15, 1, ",".join(self.accounts))
        client.send(9, 1, following)
        client.error(-1, 2104, "Market data farm connection is OK:usfarm")

    def current_time(self, client: Client, _fields: list[str]) -> None:
        client.send(49, 1, int(time.time()))

    def own_open_orders(self, client: Client, _fields: list[str]) -> None:
        self._show_open(client, lambda row: row["clientId"] == client.number)

    def all_open_orders(self, client: Client, _fields: list[str]) -> None:
        self._show_open(client, lambda _row: True)

    def completed_orders(self, client: Client, _fields: list[str]) -> None:
        for row in self.orders.values():
            if row["status"] in ENDED:
                # neither total nor number nor client are told of what is completed
                client.show(101, wire.COMPLETED_ORDER, {**row, "totalQuantity": "0"})
        client.send(102)

    def executions_of(self, client: Client, fields: list[str]) -> None:
        wanted = fields[2]
        for row in self.executions:
            if fields[4] in ("", row["account"]):
                client.show(11, wire.EXECUTION, {**row, "reqId": wanted})
                self._commission(client, row)
        client.send(55, 1, wanted)

    def positions(self, client: Client, _fields: list[str]) -> None:
        for con_id, (quantity, cost) in self.held.items():
            contract = next(c for c in self.contracts if c["conId"] == con_id)
            told = {"account": self.accounts[0], "position": quantity, "avgCost": cost}
            client.show(61, wire.POSITION, {**contract, **told, "version": 3})
        client.send(62, 1)

    def account_summary(self, client: Client, fields: list[str]) -> None:
        client.summaries.add(fields[2])
        if len(client.summaries) > 2:
            client.error(int(fields[2]), 322, "Maximum number of account summary requests exceeded")
            return
        told = {"NetLiquidation": self.balance + self.open_gain, "AvailableFunds": self.balance}
        for tag in fields[4].split(","):
            client.send(63, 1, fields[2], self.accounts[0], tag, told[tag], "USD")
        client.send(64, 1, fields[2])

    def cancel_account_summary(self, client: Client, fields: list[str]) -> None:
        client.summaries.discard(fields[2])

    def contract_details(self, client: Client, fields: list[str]) -> None:
        wanted = {k: v for k, v in wire.named(wire.CONTRACT, fields[3:15]).items() if v}
        wanted = {k: v for k, v in wanted.items() if v not in ("0", "0.0")}
        found = [
            c for c in self.contracts if all(str(c.get(k, "")) == v for k, v in wanted.items())
        ]
        for contract in found:
            client.show(10, wire.CONTRACT_DETAILS, {**contract, "reqId": fields[2]})
        if found:
            client.send(52, 1, fields[2])
        else:
            client.error(int(fields[2]), 200, "No security definition has been found")

    def market_rule(self, client: Client, fields: list[str]) -> None:
        steps = self.rules[int(fields[1])]
        client.send(93, fields[1], len(steps), *itertools.chain(*steps))

    def market_data(self, client: Client, fields: list[str]) -> None:
        number = fields[2]
        contract = next(c for c in self.contracts if str(c["conId"]) == fields[3])
        if "no_price" in contract:
            client.error(
                int(number), contract["no_price"], "Requested market data is not subscribed"
            )
            return
        client.send(58, 1, number, self.data_type)
        for kind, name in ((1, "bid"), (2, "ask")):
            client.send(1, 6, number, kind, contract[name], 100, 0)

    def cancel_market_data(self, _client: Client, _fields: list[str]) -> None:
        return

    def place_order(self, client: Client, fields: list[str]) -> None:
        told = wire.named(wire.PLACE_ORDER, fields)
        if told["whatIf"] == "1":
            self._what_if(client, told)
            return
        fault = self.faults.popleft() if self.faults else self.trouble and self.trouble()
        number = int(told["orderId"])
        if fault == "before":
            client.close()
            return
        if fault == "swallowed":
            return
        same = [r for r in self.orders.values() if r["orderId"] == number]
        same = [r for r in same if r["clientId"] == client.number]
        if same and same[0]["status"] not in ENDED:
            # a change of the order that has this number, whatever the sender meant
            same[0].update({k: told[k] for k in ("orderRef", "totalQuantity", "lmtPrice")})
            client.show(5, wire.OPEN_ORDER, same[0])
            return
        if same:
            client.error(number, 103, "Duplicate order id")
            return
        code = fault if isinstance(fault, int) else self._verdict(told)
        if code:
            client.error(number, code, "Order rejected - reason: see the test")
            return
        row = self._taken(client, told)
        self._answer(client, row, fault)
        if row["parent"] is not None and told["transmit"] == "1":
            self._transmit(row["parent"])

    def _answer(self, client: Client, row: Row, fault: Any) -> None:
        if fault == "hang":
            client.quiet = True
        if fault == "after":
            client.close()
        if isinstance(fault, tuple) and fault[0] == "late":
            time.sleep(fault[1])
        client.show(5, wire.OPEN_ORDER, row)
        if fault == "between":
            client.close()
        if isinstance(fault, tuple) and fault[0] == "warn":
            client.error(row["orderId"], fault[1], "Order Message: a warning of the test")
        self._status(row)
        self._match(row)
        client.quiet = False
        if fault == "answered":
            client.close()

    def cancel_order(self, client: Client, fields: list[str]) -> None:
        number = int(fields[2])
        rows = [r for r in self.orders.values() if r["orderId"] == number]
        rows = [r for r in rows if r["clientId"] == client.number]
        if rows and self.fills_first:
            self.fill(rows[0]["permId"], Decimal(rows[0]["totalQuantity"]))
        if not rows:
            client.error(
                number, 10147, f"OrderId {number} that needs to be cancelled is not found."
            )
        elif rows[0]["status"] in ENDED:
            client.error(number, 10148, "OrderId that needs to be cancelled can not be cancelled")
        else:
            self._end(rows[0], "Cancelled")
            client.error(number, 202, "Order Canceled - reason:")

    # --- the servers ---

    def _what_if(self, client: Client, told: dict[str, str]) -> None:
        code = self._verdict(told)
        if code:
            client.error(int(told["orderId"]), code, "Order rejected - reason: no funds")
            return
        margins = {"initMarginChange": "100", "status": "PreSubmitted", "clientId": client.number}
        client.show(5, wire.OPEN_ORDER, {**told, **margins, "permId": 0})

    def _verdict(self, told: dict[str, str]) -> int:
        if told["account"] not in self.accounts:
            return 321
        if told["parentId"] not in ("", "0") and self._parent_of(told) is None:
            return 135
        price = Decimal(told["lmtPrice"] or told["auxPrice"] or "60000")
        value = Decimal(told["totalQuantity"]) * price
        return 201 if value > self.balance * 20 else 0

    def _taken(self, client: Client, told: dict[str, str]) -> Row:
        contract = next(c for c in self.contracts if str(c["conId"]) == told["conId"])
        parent = self._parent_of(told)
        row: Row = {
            **told,
            "orderId": int(told["orderId"]),
            "clientId": client.number,
            "permId": next(self._perms),
            "contract": contract,
            "filled": Decimal(0),
            "spent": Decimal(0),
            "filledQuantity": "0",
            "parent": parent,
            "whyHeld": "child" if parent is not None else "",
        }
        row["status"] = _sent(row) if told["transmit"] == "1" else self.untransmitted
        self.orders[row["permId"]] = row
        return row

    def _parent_of(self, told: dict[str, str]) -> Row | None:
        """The order this one hangs on, as long as it is not over."""
        number = int(told["parentId"] or 0)
        rows = [r for r in self.orders.values() if r["orderId"] == number]
        return next((r for r in rows if r["status"] not in ENDED), None)

    def _transmit(self, parent: Row) -> None:
        """The last order of a bracket has come: now the first one works."""
        parent["status"] = _sent(parent)
        self._status(parent)
        self._match(parent)

    def _release(self, parent: Row) -> None:
        """What hangs on an order wakes with what it traded, or ends with it."""
        for row in self.orders.values():
            if row["parent"] is parent and row["status"] not in ENDED:
                row["totalQuantity"], row["whyHeld"] = str(parent["filled"]), "trigger"
                self._end(row, "Cancelled") if not parent["filled"] else self._status(row)

    def _match(self, row: Row) -> None:
        if row["status"] != "Submitted":
            return
        bid, ask = row["contract"]["bid"], row["contract"]["ask"]
        buys = row["action"] == "BUY"
        price = ask if buys else bid
        limit = Decimal(row["lmtPrice"] or price)
        if (limit >= price) if buys else (limit <= price):
            self._trade(row, Decimal(row["totalQuantity"]), price)
        elif row["tif"] in ("IOC", "FOK"):
            self._end(row, "Cancelled")

    def _trade(self, row: Row, shares: Decimal, price: Decimal) -> None:
        row["filled"] += shares
        row["spent"] += shares * price
        row["filledQuantity"] = str(row["filled"])
        execution = {
            **row,
            "reqId": -1,
            "execId": f"0000e0d5.{next(self._execs):08x}.01.01",
            "time": datetime.now(UTC).astimezone(EASTERN).strftime("%Y%m%d %H:%M:%S US/Eastern"),
            "venue": "NYSE",
            "side": "BOT" if row["action"] == "BUY" else "SLD",
            "shares": shares,
            "price": price,
            "cumQty": row["filled"],
            "avgPrice": row["spent"] / row["filled"],
        }
        self.executions.append(execution)
        self._book(row, shares, price)
        if row["filled"] == Decimal(row["totalQuantity"]):
            row["status"] = "Filled"
        client = self.clients.get(row["clientId"])
        if client is not None:
            client.show(11, wire.EXECUTION, execution)
        self._status(row)
        if client is not None:
            self._commission(client, execution)
        if row["status"] == "Filled":
            self._release(row)

    def _book(self, row: Row, shares: Decimal, price: Decimal) -> None:
        con_id = row["contract"]["conId"]
        before, cost = self.held.get(con_id, [Decimal(0), Decimal(0)])
        after = before + (shares if row["action"] == "BUY" else -shares)
        multiplier = Decimal(row["contract"].get("multiplier") or 1)
        if abs(after) > abs(before):
            cost = price * multiplier
        self.held[con_id] = [after, cost]

    def _commission(self, client: Client, execution: Row) -> None:
        if not self.silent_commissions:
            fee = execution["shares"] * execution["price"] / 10000
            client.send(59, 1, execution["execId"], fee, "USD", "", "", "")

    def _end(self, row: Row, status: str) -> None:
        row["status"] = status
        self._status(row)
        self._release(row)

    def _status(self, row: Row) -> None:
        client = self.clients.get(row["clientId"])
        if client is not None:
            self._show_status(client, row)

    def _show_status(self, client: Client, row: Row) -> None:
        left = Decimal(row["totalQuantity"]) - row["filled"]
        average = row["spent"] / row["filled"] if row["filled"] else 0
        perm, owner = row["permId"], row["clientId"]
        held = row["whyHeld"]
        rest = (row["filled"], left, average, perm, 0, average, owner, held, 0)
        client.send(3, row["orderId"], row["status"], *rest)

    def _show_open(self, client: Client, is_wanted: Callable[[Row], bool]) -> None:
        silence, self.stutters = self.stutters, 0
        for row in self.orders.values():
            if row["status"] not in ENDED and is_wanted(row):
                client.show(5, wire.OPEN_ORDER, row)
                self._show_status(client, row)
                time.sleep(silence)
                silence = 0
        client.send(53, 1)


def _sent(row: Row) -> str:
    return (
        "PreSubmitted" if row["parent"] or row["orderType"] not in ("MKT", "LMT") else "Submitted"
    )


HANDLERS = {
    1: "market_data",
    2: "cancel_market_data",
    3: "place_order",
    4: "cancel_order",
    5: "own_open_orders",
    7: "executions_of",
    9: "contract_details",
    16: "all_open_orders",
    49: "current_time",
    61: "positions",
    62: "account_summary",
    63: "cancel_account_summary",
    71: "start_api",
    91: "market_rule",
    99: "completed_orders",
}


class Client:
    """One connection of one client."""

    def __init__(self, tws: Tws, connection: socket.socket) -> None:
        self.tws, self.connection = tws, connection
        self.number = -1
        self.quiet = False
        self.summaries: set[str] = set()

    def serve(self) -> None:
        with suppress(OSError, EOFError):
            self._greet()
            while True:
                self.tws.handle(self, self._message().decode().split("\0")[:-1])
        self.close()

    def send(self, *fields: object) -> None:
        if not self.quiet:
            with suppress(OSError):
                self.connection.sendall(wire.framed(*fields))

    def show(self, number: int, names: str, values: Row) -> None:
        told = wire.laid_out(names, values)
        if number in self.tws.garbled:
            told.pop()
        self.send(number, *told)

    def error(self, number: int, code: int, text: str) -> None:
        self.send(4, 2, number, code, text, "")

    def close(self) -> None:
        with self.tws._lock:
            if self.tws.clients.get(self.number) is self:
                del self.tws.clients[self.number]
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def _greet(self) -> None:
        if self._read(4) != b"API\0":
            raise EOFError
        lowest, _, highest = self._message().decode().removeprefix("v").partition("..")
        if not int(lowest) <= wire.SERVER_VERSION <= int(highest):
            raise EOFError
        self.send(wire.SERVER_VERSION, datetime.now(UTC).strftime("%Y%m%d %H:%M:%S GMT"))

    def _message(self) -> bytes:
        return self._read(struct.unpack(">I", self._read(4))[0])

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.connection.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data


@contextmanager
def running(tws: Tws) -> Iterator[int]:
    """TWS on a socket of its own; yields its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=Client(tws, connection).serve, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()
        tws.cut()
