"""What OKX trades, its error codes, and how it writes an instrument."""

from __future__ import annotations

from decimal import Decimal

from tests.venues.house import House
from tests.venues.market import Instrument
from tests.venues.orders import Reason
from tests.venues.venue import Answer, reply

D = Decimal
SPOT, SWAP = "SPOT", "SWAP"
CONTRACT = {"BTC": D("0.01"), "ETH": D("0.1")}
"""Base units of one contract (ctVal)."""
UNSEEN_COINS = {"BTC": D(1_000_000), "ETH": D(1_000_000)}
"""What lets a perpetual be sold short in a ledger that only knows coins; never shown."""

HOUSES = {
    SPOT: House(
        prices={
            Instrument("BTC", "USDT", D("0.1"), D("0.00000001"), D("0.00001"), D(9000), D(0)): (
                D(60000)
            ),
            Instrument("ETH", "USDT", D("0.01"), D("0.000001"), D("0.0001"), D(9000), D(0)): D(
                3000
            ),
        },
        balances={"USDT": D(1_000_000), "BTC": D(100), "ETH": D(1000)},
        maker_fee=D("0.0008"),
        taker_fee=D("0.001"),
        order_id=lambda sequence: str(680_800_019_749_000_000 + sequence),
        trade_id=lambda sequence: str(242_720_000 + sequence),
        refuses_reached_triggers=True,
    ),
    SWAP: House(
        prices={
            Instrument("BTC", "USDT", D("0.1"), D("0.0001"), D("0.0001"), D(9000), D(0)): D(60000),
            Instrument("ETH", "USDT", D("0.01"), D("0.001"), D("0.001"), D(9000), D(0)): D(3000),
        },
        balances=UNSEEN_COINS | {"USDT": D(1_000_000)},
        maker_fee=D("0.0002"),
        taker_fee=D("0.0005"),
        order_id=lambda sequence: str(890_800_019_749_000_000 + sequence),
        trade_id=lambda sequence: str(542_720_000 + sequence),
        refuses_reached_triggers=True,
    ),
}


def venue_id(kind: str, item: Instrument) -> str:
    tail = "-SWAP" if kind == SWAP else ""
    return f"{item.base}-{item.quote}{tail}"


INSTRUMENTS = {
    kind: {venue_id(kind, item): item for item in house.prices} for kind, house in HOUSES.items()
}
MESSAGES = {
    50001: "Service temporarily unavailable. Try again later",
    50004: "API endpoint request timeout (does not mean that the request was successful or failed)",
    50011: "Rate limit reached. Please refer to API documentation and throttle requests",
    50013: "Systems are busy. Please try again later.",
    50026: "System error. Try again later",
    50102: "Timestamp request expired",
    50105: "Request header OK-ACCESS-PASSPHRASE incorrect",
    50111: "Invalid OK-ACCESS-KEY",
    50113: "Invalid Sign",
    50120: "This API key doesn't have permission to use this function",
    51000: "Parameter error",
    51001: "Instrument ID doesn't exist",
    51008: "Order failed. Insufficient balance in account",
    51016: "Client order ID already exists.",
    51020: "Your order should meet or exceed the minimum order amount.",
    51121: "Order quantity must be a multiple of the lot size.",
    51149: "Order timed out. Please try again.",
    51169: "Order failed because you don't have any positions in this direction.",
    51280: "SL trigger price must be less than the last price",
    51400: "Cancellation failed as the order has been filled, canceled or does not exist.",
    51603: "Order does not exist",
}
STATUSES = {50001: 503, 50011: 429, 50013: 429, 50102: 401, 50105: 401, 50111: 401, 50113: 401}
REFUSALS = {
    Reason.INSUFFICIENT_FUNDS: 51008,
    Reason.DUPLICATE_CLIENT_ID: 51016,
    Reason.WOULD_TRIGGER: 51280,
    Reason.UNKNOWN_ORDER: 51400,
}


class OkxError(Exception):
    """A refusal in OKX's words: of the request as a whole, or (``item``) of the one order in it."""

    def __init__(self, code: int, message: str = "", *, item: bool = False) -> None:
        self.code = code
        self.message = message or MESSAGES.get(code, "Unknown error")
        self.item = item
        super().__init__(f"{code} {self.message}")

    def answer(self, status: int | None = None) -> Answer:
        body: dict[str, object] = {"code": str(self.code), "data": [], "msg": self.message}
        if self.item:
            row = {"ordId": "", "clOrdId": "", "tag": "", "sCode": str(self.code)}
            body = {"code": "1", "data": [row | {"sMsg": self.message}], "msg": ""}
        elif status is None:
            status = STATUSES.get(self.code)
        return reply(body, status=status or 200, error=str(self))


def result(*rows: object, order_id: str = "") -> Answer:
    return reply({"code": "0", "data": list(rows), "msg": ""}, order_id=order_id)


def text(value: Decimal) -> str:
    """As OKX writes numbers: no trailing zeros, no exponent."""
    return f"{value.normalize():f}" if value else "0"


def unit(kind: str, item: Instrument) -> Decimal:
    """Base units in one unit of a size."""
    return CONTRACT[item.base] if kind == SWAP else D(1)


def instrument_info(kind: str, item: Instrument) -> dict[str, object]:
    size = unit(kind, item)
    swap = kind == SWAP
    return {
        "instType": kind,
        "instId": venue_id(kind, item),
        "baseCcy": "" if swap else item.base,
        "quoteCcy": "" if swap else item.quote,
        "settleCcy": item.quote if swap else "",
        "uly": f"{item.base}-{item.quote}" if swap else "",
        "instFamily": f"{item.base}-{item.quote}" if swap else "",
        "ctType": "linear" if swap else "",
        "ctVal": text(size) if swap else "",
        "ctMult": "1" if swap else "",
        "ctValCcy": item.base if swap else "",
        "expTime": "",
        "lever": "10",
        "listTime": "1548133413000",
        "lotSz": text(item.step / size),
        "minSz": text(item.minimum / size),
        "maxLmtSz": text(item.maximum / size),
        "maxMktSz": text(item.maximum / size),
        "state": "live",
        "tickSz": text(item.tick),
    }
