"""Start a venue process for a test and steer it: prices, fills, faults, the ledger."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.venues.credentials import MAIN_ACCOUNT
from tests.venues.faults import Fault
from tests.venues.journal import Entry

ROOT = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S = 5
Amount = Decimal | str | int


class ControlError(Exception):
    """The control side refused; the message says why."""


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An accepted order as the venue's ledger has it. `created_at` in milliseconds."""

    sequence: int
    id: str
    account: str
    client_id: str
    symbol: str
    side: str
    type: str
    quantity: Decimal
    price: Decimal | None
    trigger_price: Decimal | None
    status: str
    filled: Decimal
    cost: Decimal
    created_at: int


@dataclass(frozen=True, slots=True)
class TradeRow:
    """A trade as the venue's ledger has it. `time` in milliseconds."""

    sequence: int
    id: str
    order_id: str
    client_id: str
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    maker: bool
    time: int


@dataclass(frozen=True, slots=True)
class LedgerView:
    """Every accepted order and trade, the balances (account, asset) and the request counts."""

    orders: list[OrderRow]
    trades: list[TradeRow]
    free: dict[tuple[str, str], Decimal]
    locked: dict[tuple[str, str], Decimal]
    counts: dict[str, int]

    def by_client_id(self, client_id: str) -> list[OrderRow]:
        return [order for order in self.orders if order.client_id == client_id]


def _amounts(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return dict(row) | {n: None if row[n] is None else Decimal(row[n]) for n in names}


def _order(row: Mapping[str, Any]) -> OrderRow:
    return OrderRow(**_amounts(row, "quantity", "price", "trigger_price", "filled", "cost"))


def _trade(row: Mapping[str, Any]) -> TradeRow:
    return TradeRow(**_amounts(row, "price", "quantity", "fee"))


class VenueControl:
    """Typed access to the control side of a running venue. Methods raise ControlError."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def set_price(
        self, venue: str, symbol: str, last: Amount, spread: Amount | None = None
    ) -> None:
        """Quote an inexhaustible market; triggers and fills the orders the price reaches."""
        text = None if spread is None else str(spread)
        self._post("price", venue=venue, symbol=symbol, last=str(last), spread=text)

    def set_depth(
        self,
        venue: str,
        symbol: str,
        bids: Sequence[tuple[Amount, Amount]] | None = None,
        asks: Sequence[tuple[Amount, Amount]] | None = None,
    ) -> None:
        """Replace a side of the book by (price, quantity) levels that orders use up."""
        sides = {"bids": bids, "asks": asks}
        given = {side: levels for side, levels in sides.items() if levels is not None}
        rows = {side: [[str(p), str(q)] for p, q in given[side]] for side in given}
        self._post("depth", venue=venue, symbol=symbol, **rows)

    def fill(
        self,
        venue: str,
        order_id: str,
        quantity: Amount,
        price: Amount | None = None,
        account: str = MAIN_ACCOUNT,
    ) -> TradeRow:
        """Execute part of a resting limit order, at its limit unless a better price is given."""
        text = None if price is None else str(price)
        terms = {"order_id": order_id, "quantity": str(quantity), "price": text}
        return _trade(self._post("fill", venue=venue, account=account, **terms))

    def queue_faults(self, *faults: Fault) -> None:
        """Each fault strikes the next `count` requests of its kind, in the order given."""
        self._post("faults", queue=[fault.as_json() for fault in faults])

    def set_fault_rates(self, *faults: Fault) -> None:
        """Replace all faults: each request of a kind meets one with its `probability`."""
        self._post("faults", clear=True, rates=[fault.as_json() for fault in faults])

    def pending_faults(self) -> list[Fault]:
        return [Fault.from_json(row) for row in self._get("faults")]

    def clear_faults(self) -> None:
        self._post("faults", clear=True)

    def set_latency(self, ms: float) -> None:
        """Every exchange request takes this long more, half of it after acceptance."""
        self._post("latency", ms=ms)

    def set_visibility_delay(self, ms: int, venue: str | None = None) -> None:
        """New orders and their trades stay out of queries for so long."""
        self._post("visibility", ms=ms, venue=venue)

    def set_clock_offset(self, ms: int) -> None:
        self._post("clock", ms=ms)

    def set_balances(
        self, venue: str, balances: Mapping[str, Amount], account: str = MAIN_ACCOUNT
    ) -> None:
        """Set free balances; what orders have locked stays locked."""
        amounts = {asset: str(free) for asset, free in balances.items()}
        self._post("balances", venue=venue, account=account, balances=amounts)

    def set_permissions(
        self, venue: str, permissions: Mapping[str, bool], key: str | None = None
    ) -> None:
        """Change what a key (default: the built-in one) may do, by the venue's own names."""
        self._post("permissions", venue=venue, key=key, permissions=dict(permissions))

    def add_key(self, venue: str, key: str, secret: str, account: str) -> None:
        """Let another key in; a new account starts with the venue's default balances."""
        self._post("keys", venue=venue, key=key, secret=secret, account=account)

    def set_hedge_mode(self, venue: str, *, hedged: bool) -> None:
        """Keep a long and a short position per symbol apart, where the venue trades contracts."""
        self._post("hedge_mode", venue=venue, hedged=hedged)

    def pay_funding(self, venue: str, symbol: str, amount: str, at: int) -> None:
        """A funding payment in the venue's own symbol, positive when received, at a time in ms."""
        self._post("funding", venue=venue, symbol=symbol, amount=amount, at=at)

    def set_market_hours(self, venue: str, *, is_open: bool) -> None:
        """Open or close the market; orders placed while it is closed wait."""
        self._post("market_hours", venue=venue, open=is_open)

    def set_id_rule(self, rule: str) -> None:
        self._post("id_rule", rule=rule)

    def reset(self) -> None:
        """Forget orders, trades, requests, faults, added keys, prices and balances."""
        self._post("reset")

    def ledger(self, venue: str, since: int = 0, trades_since: int = 0) -> LedgerView:
        """The venue's ledger after those order and trade sequence numbers."""
        raw = self._get("ledger", venue=venue, since=since, trades_since=trades_since)
        held = {(a, s): b for a, assets in raw["balances"].items() for s, b in assets.items()}
        return LedgerView(
            [_order(row) for row in raw["orders"]],
            [_trade(row) for row in raw["trades"]],
            {key: Decimal(row["free"]) for key, row in held.items()},
            {key: Decimal(row["locked"]) for key, row in held.items()},
            raw["counts"],
        )

    def requests(self, since: int = 0) -> list[Entry]:
        """The requests received after that sequence number, secrets masked."""
        return [Entry(**row) for row in self._get("requests", since=since)]

    def _get(self, name: str, **query: object) -> Any:
        return self._call("GET", f"/_venue/{name}?{urlencode(query)}", None)

    def _post(self, name: str, **payload: object) -> Any:
        return self._call("POST", f"/_venue/{name}", json.dumps(payload))

    def _call(self, method: str, target: str, body: str | None) -> Any:
        address = urlsplit(self.base_url).netloc
        with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
            connection.request(method, target, body)
            response = connection.getresponse()
            text = response.read().decode()
        if response.status != http.client.OK:
            raise ControlError(text)
        return json.loads(text)


@dataclass(frozen=True, slots=True)
class RunningVenue:
    """A venue process: point an exchange client at `base_url`, steer it with `control`."""

    base_url: str
    pid: int
    control: VenueControl


@contextmanager
def running_venue(seed: int = 1, id_rule: str = "open", port: int = 0) -> Iterator[RunningVenue]:
    """Run both venues in a process of their own; it also ends when this process dies."""
    command = [sys.executable, "-m", "tests.venues", "--with-stdin"]
    command += ["--port", str(port), "--seed", str(seed), "--id-rule", id_rule]
    pipe = subprocess.PIPE
    # A group of its own: a Ctrl-C is for who runs it, who ends it when all has been looked at.
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, process_group=0) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the venue did not start (exit status {process.wait()})")
            base_url = f"http://127.0.0.1:{json.loads(line)['port']}"
            yield RunningVenue(base_url, process.pid, VenueControl(base_url))
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
