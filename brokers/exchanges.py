"""What is proven about each exchange behind ccxt: the rows of ``matrix.toml`` as profiles.

An exchange without a row is *unverified*: prices and dry run, and trading only after the account's
option ``unverified_venue`` says that its operator takes the risk.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from brokers.capabilities import Balances, BookDepth, Capabilities, IdRule
from brokers.client_ids import CLIENT_ID_FORMS
from brokers.errors import NotSupportedError
from brokers.library import LibraryExchange, library
from brokers.limiter import CAUTIOUS, Limits
from brokers.patience import Ban
from brokers.types import OrderType, TimeInForce

MATRIX = Path(__file__).with_name("matrix.toml")

VERIFIED, BY_REQUESTS, UNVERIFIED = 1, 2, 3
"""Tiers: proven end to end against a venue of ours; by the requests it produces; not at all."""

ANYTHING = "*"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An HTTP method and a path in which ``*`` stands for one segment; alone, for any path."""

    method: str
    path: str

    @classmethod
    def read(cls, text: str) -> Endpoint:
        method, _, path = text.partition(" ")
        return cls(method, path)

    def fits(self, method: str, path: str) -> bool:
        if ANYTHING not in (self.method, method) and self.method != method:
            return False
        if self.path == ANYTHING:
            return True
        wanted, given = self.path.split("/"), path.split("/")
        if len(wanted) != len(given):
            return False
        pieces = zip(wanted, given, strict=True)
        return all(piece == there or (piece == ANYTHING and there) for piece, there in pieces)


class Lookup(StrEnum):
    """How an order is found again by our client id."""

    BY_CLIENT_ID = "by client id"
    OPEN_THEN_CLOSED = "open, then closed orders, filtered by client id"
    SCAN = "open and recent orders, compared one by one"


class Sandbox(StrEnum):
    """How the exchange's own test environment is reached."""

    NONE = "none"
    TESTNET = "testnet"
    HEADER = "header on the live host"


@dataclass(frozen=True, slots=True)
class Traits:
    """What the venue itself offers beside plain orders, whether or not FKS uses it yet.

    ``stop`` and ``take_profit`` say in which list such orders live: with the other ``orders``, in a
    ``second list``, as part of the ``position``, ``no``. ``attached_stop``: whether an entry can
    carry its stop. ``cancel_all``: what one such request cancels. ``margin_mode``: whether FKS sets it
    for a symbol, names it in each order, or only checks that of the account; ``leverage``: where FKS
    sets it and reads it back.
    """

    cancel_all: str = "unknown"
    market_buy_unit: str = "unknown"
    stop: str = "unknown"
    take_profit: str = "unknown"
    attached_stop: str = "unknown"
    trailing: str = "unknown"
    oco: str = "unknown"
    amend: str = "unknown"
    margin_mode: str = "no"
    leverage: str = "no"
    iceberg: bool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ExchangeProfile:
    """One exchange and market type.

    `client_id_param` is ccxt's name of the client id, `client_id_field` the venue's. An order
    request may carry only the fields the dialect expects and those in `order_extras`; `wire` names
    those fields for each kind of order where no dialect of its own does (`brokers.wire`). Codes are
    matched whole or up to a separator: `clock` ones prove that nothing was placed, `refused` and
    `credentials` ones are rejections, `ambiguous` and `throttled` ones prove nothing. Of the
    `throttled` ones those in `throttled_key` count the requests of a key or of its user, the others
    those of our address; `ban` is how a banned address is told where that is not 418. `deadline` is
    the number of seconds after which the venue itself drops a late order. `absent` codes say that
    there is no such order; `errors` tells where an answer carries its code and message (paths, and
    the codes that mean success); `key_form` is how a secret must look; `book_depth` how many prices
    of the order book to ask for where the whole needs a key; `stream`: its order stream is proven to be
    read right; `funding`: ccxt tells its funding payments, positive when received; `position_mode`: the
    question (`call`, `fields`) whose answer says at the path `told` whether an account is in
    `one_way` mode, empty where there is no other; `margin`: how a market's margin mode and leverage are
    asked and set (`brokers.dialects.margin_setting`), `in_order` where each order names its mode;
    `trade_pages`: how much of an account's trades is shown at a time (`brokers.dialects.trade_pages`);
    `open_pages`: the field and number by which the most open `orders`, and `stops`, are asked for that
    the venue shows at once (`each_market`: of each market), empty where it shows all; `remembers`: for
    how many seconds after its submission an order is surely found by our id, also once it has ended,
    `None` where that has no end; `forgets`: after how many seconds from its submission an order that
    ended `unfilled`, and one that ended in any way (`all`), is no longer found, whatever it is asked
    for by; `open_symbols`: the question which markets
    have open orders, where these are told market by market, and how ccxt is asked for all `stops`
    nevertheless. Stops that live in a list of their own have
    `stop_endpoint` and `stop_cancel_endpoint`, those that only a cancel of their own finds the second;
    `stop_becomes` is the member of a triggered one's raw row that names the order it put in.
    `dispensable`: ccxt's questions for the symbol list that FKS can do without, and what is taken for
    the answer where the exchange has only an error for them.
    `price_digits`: how many significant digits a price may have that is no whole number.
    `keys` maps our names of the credentials to
    ccxt's. `rising_nonce`: requests carry numbers that must never go back, so that milliseconds
    are too coarse for them.
    """

    id: str
    market_type: str
    label: str
    tier: int
    capabilities: Capabilities
    client_id_param: str
    client_id_field: str
    client_id_codec: Callable[[str], str]
    lookup: Lookup
    sandbox: Sandbox
    order_endpoint: Endpoint
    cancel_endpoint: Endpoint
    read_endpoints: tuple[Endpoint, ...]
    keys: Mapping[str, str]
    one_in_flight: bool = False
    rising_nonce: bool = False
    stop_endpoint: Endpoint | None = None
    stop_cancel_endpoint: Endpoint | None = None
    order_extras: frozenset[str] = frozenset()
    ambiguous: frozenset[str] = frozenset()
    throttled: frozenset[str] = frozenset()
    throttled_key: frozenset[str] = frozenset()
    ban: Ban | None = None
    clock: frozenset[str] = frozenset()
    credentials: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    deadline: int | None = None
    ccxt_options: Mapping[str, object] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    errors: Sequence[Mapping[str, Any]] = ()
    key_form: str = "text"
    book_depth: int | None = None
    stream: bool = False
    funding: bool = False
    position_mode: Mapping[str, Any] = field(default_factory=dict)
    margin: Mapping[str, Any] = field(default_factory=dict)
    trade_pages: Mapping[str, Any] = field(default_factory=dict)
    open_symbols: Mapping[str, Any] = field(default_factory=dict)
    open_pages: Mapping[str, Any] = field(default_factory=dict)
    remembers: int | None = None
    forgets: Mapping[str, int] = field(default_factory=dict)
    stop_becomes: str = ""
    price_digits: int | None = None
    dispensable: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = CAUTIOUS
    traits: Traits = Traits()
    wire: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verified(self) -> bool:
        return self.tier != UNVERIFIED

    @property
    def cancel_endpoints(self) -> tuple[Endpoint, ...]:
        known = (self.cancel_endpoint, self.stop_cancel_endpoint)
        return tuple(endpoint for endpoint in known if endpoint is not None)

    def reads(self, method: str, path: str) -> bool:
        """Whether a request only asks."""
        return any(endpoint.fits(method, path) for endpoint in self.read_endpoints)


_CODES = (
    "order_extras", "ambiguous", "throttled", "throttled_key", "clock", "credentials", "refused",
    "absent",
)  # fmt: skip
_ENDPOINTS = ("order_endpoint", "cancel_endpoint", "stop_endpoint", "stop_cancel_endpoint")
_ABILITIES = ("submit_timeout", "settle_window", "post_only", "reduce_only")
_PLAIN = ("id", "market_type", "label", "tier", "client_id_param", "client_id_field", "keys")
_OPTIONAL = (
    "one_in_flight",
    "rising_nonce",
    "deadline",
    "ccxt_options",
    "wire",
    "errors",
    "key_form",
    "book_depth",
    "stream",
    "funding",
    "position_mode",
    "margin",
    "trade_pages",
    "open_symbols",
    "open_pages",
    "remembers",
    "forgets",
    "stop_becomes",
    "price_digits",
    "dispensable",
)


def _profile(row: dict[str, Any]) -> ExchangeProfile:
    """A row of the matrix; a column that is missing or misspelt is a KeyError or a TypeError."""
    swap = row["market_type"] != "spot"
    capabilities = Capabilities(
        order_book=BookDepth.LEVELS,
        order_types=frozenset(map(OrderType, row.pop("order_types"))),
        time_in_force=frozenset(map(TimeInForce, row.pop("time_in_force"))),
        id_rule=IdRule(row.pop("id_rule")),
        short_selling=swap,
        locks_balance=not swap,
        balances=Balances(row.pop("balances", Balances.MONEY)),
        **{name: row.pop(name) for name in _ABILITIES},
    )
    values: dict[str, Any] = {name: row.pop(name) for name in _PLAIN}
    values |= {name: row.pop(name) for name in _OPTIONAL if name in row}
    values |= {name: Endpoint.read(row.pop(name)) for name in _ENDPOINTS if name in row}
    if "limits" in row:
        values["limits"] = Limits.read(row.pop("limits"), row.pop("weights", {}))
    if "ban" in row:
        values["ban"] = Ban(**row.pop("ban"))
    values |= {name: frozenset(row.pop(name)) for name in _CODES if name in row}
    return ExchangeProfile(
        capabilities=capabilities,
        client_id_codec=CLIENT_ID_FORMS[row.pop("client_id_form")],
        lookup=Lookup(row.pop("lookup")),
        sandbox=Sandbox(row.pop("sandbox")),
        read_endpoints=tuple(map(Endpoint.read, row.pop("reads"))),
        **values,
        traits=Traits(**row),
    )


_TABLE = tomllib.loads(MATRIX.read_text())
MATRIX_VERSION: str = _TABLE["version"]
MEASURED_WITH: str = _TABLE["ccxt"]
SWAPS_AT: Mapping[str, str] = _TABLE["swaps_at"]
PROFILES: Mapping[tuple[str, str], ExchangeProfile] = {
    (profile.id, profile.market_type): profile for profile in map(_profile, _TABLE["market"])
}

BINANCE_SPOT = PROFILES["binance", "spot"]
KRAKEN_SPOT = PROFILES["kraken", "spot"]
BYBIT_SPOT = PROFILES["bybit", "spot"]
BYBIT_LINEAR = PROFILES["bybit", "swap"]
OKX_SPOT = PROFILES["okx", "spot"]
OKX_SWAP = PROFILES["okx", "swap"]
KRAKEN_FUTURES = PROFILES["krakenfutures", "swap"]


def profile_for(exchange: str, market_type: str = "spot") -> ExchangeProfile:
    """The profile of an exchange, an unverified one where the matrix has no row. The swaps of an
    exchange may be those of another id of the library (``binance``, ``binanceusdm``).

    Raises NotSupportedError that says why there is none.
    """
    if market_type == "swap":
        exchange = SWAPS_AT.get(exchange, exchange)
    profile = PROFILES.get((exchange, market_type))
    if profile is not None:
        return profile
    known = library().get(exchange)
    if known is None:
        raise NotSupportedError(
            f"there is no exchange {exchange!r} in ccxt {MEASURED_WITH}; list_exchanges shows all"
        )
    if market_type not in known.market_types:
        offered = ", ".join(known.market_types)
        raise NotSupportedError(f"{known.label} has no {market_type} markets; it has {offered}")
    return _unverified(known, market_type)


def _unverified(known: LibraryExchange, market_type: str) -> ExchangeProfile:
    """Nobody has proven anything: plain orders, one at a time, and no proof of absence."""
    return ExchangeProfile(
        id=known.id,
        market_type=market_type,
        label=f"{known.label} {market_type}",
        tier=UNVERIFIED,
        capabilities=Capabilities(
            order_book=BookDepth.LEVELS,
            order_types=frozenset({OrderType.MARKET, OrderType.LIMIT}),
            time_in_force=frozenset({TimeInForce.GTC}),
            id_rule=IdRule.NONE,
            submit_timeout=30,
            settle_window=120,
            short_selling=market_type != "spot",
            # most count open gains in; too little is shown of the others rather than too much
            balances=Balances.MONEY if market_type == "spot" else Balances.WORTH,
        ),
        client_id_param="clientOrderId",
        client_id_field="",
        client_id_codec=CLIENT_ID_FORMS["hex"],
        lookup=Lookup.SCAN,
        sandbox=Sandbox.TESTNET if known.sandbox else Sandbox.NONE,
        order_endpoint=Endpoint("POST", ANYTHING),
        cancel_endpoint=Endpoint(ANYTHING, ANYTHING),
        read_endpoints=(Endpoint("GET", ANYTHING),),
        keys=known.keys,
        one_in_flight=True,
        # all open orders of the account are asked for, or it could not be reconciled
        ccxt_options={"warnOnFetchOpenOrdersWithoutSymbol": False},
    )
