"""What Binance trades and the filters an order must pass (binance-spot-api-docs, filters.md)."""

from __future__ import annotations

from decimal import Decimal

from tests.venues.binance.errors import filter_failure
from tests.venues.house import House
from tests.venues.market import Instrument, Market, Side

D = Decimal

PRICES = {
    Instrument("BTC", "USDT", D("0.01"), D("0.00001"), D("0.00001"), D(9000), D(5)): D(60000),
    Instrument("ETH", "USDT", D("0.01"), D("0.0001"), D("0.0001"), D(9000), D(5)): D(3000),
    Instrument("SOL", "USDT", D("0.01"), D("0.001"), D("0.001"), D(90000), D(5)): D(150),
    Instrument("BNB", "USDT", D("0.01"), D("0.001"), D("0.001"), D(90000), D(5)): D(600),
    Instrument("ETH", "BTC", D("0.00001"), D("0.0001"), D("0.0001"), D(100000), D("0.0001")): (
        D("0.05")
    ),
}
BALANCES = {"USDT": D(1_000_000), "BTC": D(100), "ETH": D(1000), "SOL": D(10_000), "BNB": D(0)}
INSTRUMENTS = {item.base + item.quote: item for item in PRICES}

HOUSE = House(
    prices=PRICES,
    balances=BALANCES,
    maker_fee=D("0.001"),
    taker_fee=D("0.001"),
    order_id=str,
    trade_id=str,
    refuses_reached_triggers=True,
)

ORDER_TYPES = (
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
)
MARKET_SHARE = D("0.1")
"""MARKET_LOT_SIZE allows this part of LOT_SIZE's maximum."""

MAX_PRICE = D(1_000_000)
BID_RANGE = (D("0.2"), D(5))
ASK_RANGE = (D("0.2"), D(5))
MAX_NUM_ORDERS = 200
MAX_NUM_ALGO_ORDERS = 5
PRECISION = 8


def places(value: Decimal) -> str:
    """Eight decimals, never an exponent."""
    return f"{value:.8f}"


def market_id(instrument: Instrument) -> str:
    return instrument.base + instrument.quote


def filters(instrument: Instrument) -> list[dict[str, object]]:
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": places(instrument.tick),
            "maxPrice": places(MAX_PRICE),
            "tickSize": places(instrument.tick),
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": places(instrument.minimum),
            "maxQty": places(instrument.maximum),
            "stepSize": places(instrument.step),
        },
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": places(D(0)),
            "maxQty": places(instrument.maximum * MARKET_SHARE),
            "stepSize": places(D(0)),
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": str(BID_RANGE[1]),
            "bidMultiplierDown": str(BID_RANGE[0]),
            "askMultiplierUp": str(ASK_RANGE[1]),
            "askMultiplierDown": str(ASK_RANGE[0]),
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": places(instrument.minimum_cost),
            "applyMinToMarket": True,
            "maxNotional": places(D(9_000_000)),
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": MAX_NUM_ORDERS},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": MAX_NUM_ALGO_ORDERS},
    ]


def symbol_info(instrument: Instrument) -> dict[str, object]:
    return {
        "symbol": market_id(instrument),
        "status": "TRADING",
        "baseAsset": instrument.base,
        "baseAssetPrecision": PRECISION,
        "quoteAsset": instrument.quote,
        "quotePrecision": PRECISION,
        "quoteAssetPrecision": PRECISION,
        "baseCommissionPrecision": PRECISION,
        "quoteCommissionPrecision": PRECISION,
        "orderTypes": list(ORDER_TYPES),
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": filters(instrument),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_MAKER"],
    }


def check_price(instrument: Instrument, price: Decimal) -> None:
    if not instrument.tick <= price <= MAX_PRICE or price % instrument.tick:
        raise filter_failure("PRICE_FILTER")


def check_range(side: Side, price: Decimal, market: Market) -> None:
    low, high = BID_RANGE if side is Side.BUY else ASK_RANGE
    if not market.last * low <= price <= market.last * high:
        raise filter_failure("PERCENT_PRICE_BY_SIDE")


def check_quantity(instrument: Instrument, quantity: Decimal) -> None:
    if not instrument.minimum <= quantity <= instrument.maximum or quantity % instrument.step:
        raise filter_failure("LOT_SIZE")


def check_market_quantity(instrument: Instrument, quantity: Decimal) -> None:
    if quantity > instrument.maximum * MARKET_SHARE:
        raise filter_failure("MARKET_LOT_SIZE")


def check_notional(instrument: Instrument, notional: Decimal) -> None:
    if notional < instrument.minimum_cost:
        raise filter_failure("NOTIONAL")
