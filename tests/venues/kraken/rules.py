"""What Kraken trades, under Kraken's names for assets and pairs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from tests.venues.house import House
from tests.venues.market import Instrument
from tests.venues.orders import Reason
from tests.venues.venue import Answer, reply

D = Decimal
VOLUME_DECIMALS = 8
MAX_OPEN_ORDERS = 225
MAKER_FEE, TAKER_FEE = D("0.0025"), D("0.0040")
CODES = {"BTC": "XXBT", "ETH": "XETH", "USD": "ZUSD", "EUR": "ZEUR"}
ALTNAMES = {"BTC": "XBT"}
ASSETS = {"BTC": (10, 5), "ETH": (10, 5), "SOL": (10, 5), "USD": (4, 2), "EUR": (4, 2)}
ASSETS |= {"USDT": (8, 4)}
MONEY_DECIMALS = {"USD": 5, "EUR": 5, "USDT": 8, "BTC": 10}

REFUSALS = {
    Reason.INSUFFICIENT_FUNDS: "EOrder:Insufficient funds",
    Reason.DUPLICATE_CLIENT_ID: "EOrder:Duplicate order",
    Reason.WOULD_TAKE: "EOrder:Post only order",
    Reason.UNKNOWN_ORDER: "EOrder:Unknown order",
}


class KrakenError(Exception):
    """A refusal in Kraken's words; always HTTP 200 (docs.kraken.com, Spot error messages)."""

    def answer(self) -> Answer:
        return reply({"error": [str(self)]}, error=str(self))


def invalid(argument: str = "") -> KrakenError:
    return KrakenError("EGeneral:Invalid arguments" + (f":{argument}" if argument else ""))


def code_of(asset: str) -> str:
    return CODES.get(asset, asset)


def altname_of(asset: str) -> str:
    return ALTNAMES.get(asset, asset)


@dataclass(frozen=True, slots=True)
class Pair:
    """One tradable pair: `id` as AssetPairs lists it, prices with `decimals` places."""

    id: str
    instrument: Instrument
    decimals: int

    @property
    def altname(self) -> str:
        return altname_of(self.instrument.base) + altname_of(self.instrument.quote)

    @property
    def wsname(self) -> str:
        return f"{altname_of(self.instrument.base)}/{altname_of(self.instrument.quote)}"

    @property
    def money_decimals(self) -> int:
        return MONEY_DECIMALS[self.instrument.quote]

    def price(self, value: Decimal) -> str:
        return f"{value:.{self.decimals}f}"

    def money(self, value: Decimal) -> str:
        """Costs and averages are cut off, not rounded, at the quote's precision."""
        return str(value.quantize(D(1).scaleb(-self.money_decimals), ROUND_DOWN))


def volume(value: Decimal) -> str:
    return f"{value:.{VOLUME_DECIMALS}f}"


def _pair(name: str, symbol: str, decimals: int, minimum: str, minimum_cost: str) -> Pair:
    base, quote = symbol.split("/")
    tick, step = D(1).scaleb(-decimals), D(1).scaleb(-VOLUME_DECIMALS)
    instrument = Instrument(base, quote, tick, step, D(minimum), D(100_000), D(minimum_cost))
    return Pair(name, instrument, decimals)


PRICED = (
    (_pair("XXBTZUSD", "BTC/USD", 1, "0.00005", "0.5"), D(60000)),
    (_pair("XETHZUSD", "ETH/USD", 2, "0.001", "0.5"), D(3000)),
    (_pair("SOLUSD", "SOL/USD", 2, "0.02", "0.5"), D(150)),
    (_pair("XXBTZEUR", "BTC/EUR", 1, "0.00005", "0.45"), D(55000)),
    (_pair("XETHXXBT", "ETH/BTC", 5, "0.001", "0.00002"), D("0.05")),
    (_pair("XBTUSDT", "BTC/USDT", 1, "0.00005", "0.5"), D(60000)),
    (_pair("ETHUSDT", "ETH/USDT", 2, "0.001", "0.5"), D(3000)),
)
PAIRS = {pair.id: pair for pair, _ in PRICED}
BY_SYMBOL = {pair.instrument.symbol: pair for pair in PAIRS.values()}
BY_NAME = {name: pair for pair in PAIRS.values() for name in (pair.id, pair.altname, pair.wsname)}
BALANCES = {"USD": D(1_000_000), "EUR": D(100_000), "USDT": D(1_000_000)}
BALANCES |= {"BTC": D(100), "ETH": D(1000), "SOL": D(10_000)}


def transaction_id(prefix: str, sequence: int) -> str:
    """An id of Kraken's shape, six, five and six characters, the same for the same sequence."""
    digest = hashlib.sha256(f"{prefix}{sequence}".encode()).digest()
    text = prefix + base64.b32encode(digest).decode()
    return f"{text[:6]}-{text[6:11]}-{text[11:17]}"


HOUSE = House(
    prices={pair.instrument: price for pair, price in PRICED},
    balances=BALANCES,
    maker_fee=MAKER_FEE,
    taker_fee=TAKER_FEE,
    order_id=lambda sequence: transaction_id("O", sequence),
    trade_id=lambda sequence: transaction_id("T", sequence),
    refuses_reached_triggers=False,
)


def pair_of(name: str) -> Pair:
    if name not in BY_NAME:
        raise KrakenError("EQuery:Unknown asset pair")
    return BY_NAME[name]
