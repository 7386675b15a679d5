"""What is proven about each exchange behind ccxt, as data. What is not listed here is refused.

Sources: developers.binance.com "Spot API" (trading endpoints, error codes, enums) and
docs.kraken.com "Spot REST" (AddOrder, client order identifiers, API error messages). Every entry
was measured with ccxt 4.5.90 and is to be measured again when that pin moves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from brokers.capabilities import Capabilities, IdRule
from brokers.errors import NotSupportedError
from brokers.types import OrderType, TimeInForce

Endpoint = tuple[str, str]
"""HTTP method and path."""

IDENTITY = re.compile(r"[0-9a-f]{32}")


class Lookup(StrEnum):
    """How an order is found again by our client id."""

    BY_CLIENT_ID = "by client id"
    OPEN_THEN_CLOSED = "open, then closed orders, filtered by client id"


class Sandbox(StrEnum):
    """How the exchange's own test environment is reached."""

    NONE = "none"
    TESTNET = "testnet"


def hex_digits(identity: str) -> str:
    """The identity unchanged, for venues that take 32 hex digits. Raises ValueError."""
    if not IDENTITY.fullmatch(identity):
        raise ValueError("an order identity is 32 lowercase hex digits")
    return identity


@dataclass(frozen=True, slots=True, eq=False)
class ExchangeProfile:
    """One exchange and market type.

    `client_id_param` is ccxt's name of the client id, `client_id_field` the venue's. An order
    request may carry only the fields the dialect expects and those in `order_extras`. Codes are
    matched whole or up to a separator: `clock` ones prove that nothing was placed, `refused` and
    `credentials` ones are rejections, `ambiguous` and `throttled` ones prove nothing. `deadline` is
    the number of seconds after which the venue itself drops a late order.
    """

    id: str
    market_type: str
    label: str
    capabilities: Capabilities
    client_id_param: str
    client_id_field: str
    client_id_codec: Callable[[str], str]
    lookup: Lookup
    sandbox: Sandbox
    one_in_flight: bool
    order_endpoint: Endpoint
    cancel_endpoint: Endpoint
    read_endpoints: frozenset[Endpoint]
    order_extras: frozenset[str]
    ambiguous: frozenset[str]
    throttled: frozenset[str]
    clock: frozenset[str]
    credentials: frozenset[str]
    refused: frozenset[str] = frozenset()
    deadline: int | None = None
    ccxt_options: Mapping[str, object] = field(default_factory=dict)


def _reads(method: str, prefix: str, names: str) -> frozenset[Endpoint]:
    return frozenset((method, f"{prefix}/{name}") for name in names.split())


BINANCE_SPOT = ExchangeProfile(
    id="binance",
    market_type="spot",
    label="Binance spot",
    capabilities=Capabilities(
        order_types=frozenset(
            {OrderType.MARKET, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT}
        ),
        time_in_force=frozenset({TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK}),
        id_rule=IdRule.OPEN,
        submit_timeout=30,
        # recvWindow (5 s) bounds a late arrival, the engine gives up after 10 s
        settle_window=15,
        post_only=True,
    ),
    client_id_param="clientOrderId",
    client_id_field="newClientOrderId",
    client_id_codec=hex_digits,
    lookup=Lookup.BY_CLIENT_ID,
    sandbox=Sandbox.TESTNET,
    one_in_flight=False,
    order_endpoint=("POST", "/api/v3/order"),
    cancel_endpoint=("DELETE", "/api/v3/order"),
    read_endpoints=_reads(
        "GET", "/api/v3", "time exchangeInfo ticker/24hr account order openOrders myTrades"
    )
    | _reads("GET", "/sapi/v1", "account/apiRestrictions"),
    order_extras=frozenset({"newOrderRespType", "timestamp", "recvWindow", "signature"}),
    ambiguous=frozenset({"-1000", "-1001", "-1004", "-1006", "-1007", "-1008", "-1016"}),
    throttled=frozenset({"-1003", "-1015"}),
    clock=frozenset({"-1021"}),
    credentials=frozenset({"-1022", "-2008", "-2014", "-2015"}),
    ccxt_options={"recvWindow": 5000, "fetchMarkets": {"types": ["spot"]}},
)

KRAKEN_SPOT = ExchangeProfile(
    id="kraken",
    market_type="spot",
    label="Kraken spot",
    capabilities=Capabilities(
        order_types=frozenset(
            {OrderType.MARKET, OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT}
        ),
        time_in_force=frozenset({TimeInForce.GTC, TimeInForce.IOC}),
        id_rule=IdRule.OPEN,
        submit_timeout=30,
        settle_window=20,
        post_only=True,
    ),
    client_id_param="clientOrderId",
    client_id_field="cl_ord_id",
    client_id_codec=hex_digits,
    lookup=Lookup.OPEN_THEN_CLOSED,
    sandbox=Sandbox.NONE,
    one_in_flight=True,
    order_endpoint=("POST", "/0/private/AddOrder"),
    cancel_endpoint=("POST", "/0/private/CancelOrder"),
    read_endpoints=_reads("GET", "/0/public", "Time AssetPairs Ticker")
    | _reads(
        "POST",
        "/0/private",
        "BalanceEx OpenOrders ClosedOrders QueryOrders TradesHistory GetApiKeyInfo",
    ),
    order_extras=frozenset({"nonce", "deadline"}),
    ambiguous=frozenset({"EService", "EGeneral:Internal error", "EDatabase", "ETrade:Locked"}),
    throttled=frozenset(
        {
            "EAPI:Rate limit exceeded",
            "EOrder:Rate limit exceeded",
            "EOrder:Domain rate limit exceeded",
            "EGeneral:Temporary lockout",
            "EGeneral:Too many requests",
        }
    ),
    clock=frozenset({"EAPI:Invalid nonce"}),
    credentials=frozenset(
        {
            "EAPI:Invalid key",
            "EAPI:Invalid signature",
            "EAPI:Bad request",
            "EGeneral:Permission denied",
            "EAccount:Invalid permissions",
            "ESession:Invalid session",
        }
    ),
    refused=frozenset(
        {
            "EOrder:Cost minimum not met",
            "EOrder:Insufficient margin",
            "EOrder:Margin allowance exceeded",
            "EOrder:Orders limit exceeded",
            "EOrder:Post only order",
            "EOrder:Tick size check failed",
            "EOrder:Trading agreement required",
            "EQuery:Unknown asset pair",
        }
    ),
    deadline=10,
)

PROFILES: Mapping[tuple[str, str], ExchangeProfile] = {
    (profile.id, profile.market_type): profile for profile in (BINANCE_SPOT, KRAKEN_SPOT)
}


def profile_for(exchange: str, market_type: str = "spot") -> ExchangeProfile:
    """The profile of a tradable exchange. Raises NotSupportedError that says why there is none."""
    profile = PROFILES.get((exchange, market_type))
    if profile is not None:
        return profile
    tradable = ", ".join(sorted(known.label for known in PROFILES.values()))
    if any(known == exchange for known, _ in PROFILES):
        raise NotSupportedError(
            f"{market_type} markets of {exchange} are not tradable here; tradable: {tradable}"
        )
    raise NotSupportedError(
        f"the exchange {exchange!r} is not tradable here: nobody has proven how it answers when "
        f"things go wrong; tradable: {tradable}"
    )
