"""The lines NinjaTrader 8 reads, and the state files it writes.

Order instruction files (ninjatrader.com help, "Order Instruction Files" and "Commands and Valid
Parameters"): exactly 13 fields. Only PLACE and CANCEL of one named order exist here: the commands that
act on every connected account (CANCELALLORDERS, FLATTENEVERYTHING) cannot be written.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from brokers.decimals import decimal_text
from brokers.errors import NotSupportedError
from brokers.types import OrderRequest, OrderType, Side, TimeInForce, VenueStatus

FIELDS = 13
FORBIDDEN = frozenset(";\r\n\0")
TYPES = {
    OrderType.MARKET: "MARKET",
    OrderType.LIMIT: "LIMIT",
    OrderType.STOP: "STOPMARKET",
    OrderType.STOP_LIMIT: "STOPLIMIT",
}
"""`STOP` is refused by the platform: a position would stay without its stop."""
TIMES = {TimeInForce.GTC: "GTC", TimeInForce.DAY: "DAY"}
STATES = {
    "SUBMITTED": VenueStatus.OPEN,
    "INITIALIZED": VenueStatus.OPEN,
    "ACCEPTED": VenueStatus.OPEN,
    "WORKING": VenueStatus.OPEN,
    "TRIGGERPENDING": VenueStatus.OPEN,
    "CHANGEPENDING": VenueStatus.OPEN,
    "CHANGESUBMITTED": VenueStatus.OPEN,
    "CANCELPENDING": VenueStatus.OPEN,
    "CANCELSUBMITTED": VenueStatus.OPEN,
    "PARTFILLED": VenueStatus.PARTIALLY_FILLED,
    "FILLED": VenueStatus.FILLED,
    "CANCELLED": VenueStatus.CANCELED,
    "REJECTED": VenueStatus.REJECTED,
}
ENDED = frozenset({VenueStatus.FILLED, VenueStatus.CANCELED, VenueStatus.REJECTED})


@dataclass(frozen=True, slots=True)
class State:
    """What a state file says: a word, contracts filled, their average price."""

    word: str
    filled: Decimal
    average: Decimal

    @property
    def status(self) -> VenueStatus:
        status = STATES[self.word]
        partly = status is VenueStatus.OPEN and self.filled > 0
        return VenueStatus.PARTIALLY_FILLED if partly else status

    @property
    def is_canceling(self) -> bool:
        return self.word in ("CANCELPENDING", "CANCELSUBMITTED")


def place(
    request: OrderRequest, account: str, instrument: str, contracts: Decimal, order_id: str
) -> str:
    """The line that places ``request``. Raises NotSupportedError."""
    return _line(
        "PLACE",
        account,
        instrument,
        "BUY" if request.side is Side.BUY else "SELL",
        decimal_text(contracts),
        TYPES[request.type],
        "" if request.price is None else decimal_text(request.price),
        "" if request.stop_price is None else decimal_text(request.stop_price),
        TIMES[request.time_in_force],
        "",
        order_id,
        "",
        "",
    )


def cancel(order_id: str) -> str:
    """The line that cancels this one order. Raises NotSupportedError without an id."""
    if not order_id:
        raise NotSupportedError("a cancel without an order's id is never written")
    return _line("CANCEL", *[""] * 9, order_id, "", "")


def _line(*fields: str) -> str:
    if len(fields) != FIELDS or any(FORBIDDEN & set(field) for field in fields):
        raise NotSupportedError(f"not {FIELDS} clean fields: nothing is written")
    return ";".join(fields) + "\n"


def state(text: str) -> State | None:
    """What a state file's text says; ``None`` for an empty, half-written or unheard-of one."""
    parts = text.strip().split(";")
    if len(parts) != 3 or parts[0] not in STATES:
        return None
    try:
        numbers = [Decimal(part.replace(",", ".")) for part in parts[1:]]
    except InvalidOperation:
        return None
    if not all(number.is_finite() and number >= 0 for number in numbers):
        return None
    return State(parts[0], *numbers)
