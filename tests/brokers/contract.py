"""What the contract suite needs of a venue behind a plugin, and the venues it is run against."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from dataclasses import replace
from decimal import Decimal

import pytest

from brokers.base import ExecutionPlugin
from brokers.plugins.alpaca import AlpacaPlugin
from brokers.plugins.ccxt import CcxtPlugin
from brokers.plugins.oanda import OandaPlugin
from brokers.plugins.paper import PaperPlugin
from brokers.plugins.projectx import ProjectXPlugin
from brokers.plugins.schwab import SchwabPlugin
from brokers.types import (
    AccountConfig,
    Environment,
    OrderRef,
    OrderRequest,
    OrderType,
    Side,
    TokenSource,
)
from tests.venues.client import RunningVenue
from tests.venues.credentials import (
    ALPACA_KEY,
    ALPACA_SECRET,
    BINANCE_KEY,
    BINANCE_SECRET,
    BYBIT_KEYS,
    BYBIT_SECRET,
    KRAKEN_KEY,
    KRAKEN_SECRET,
    OANDA_TOKEN,
    OKX_KEYS,
    OKX_PASSPHRASE,
    OKX_SECRET,
    PROJECTX_KEY,
    PROJECTX_USER,
    SCHWAB_KEY,
    SCHWAB_SECRET,
    SCHWAB_TOKEN,
)
from tests.venues.faults import Action, Endpoint, Fault, When
from tests.venues.oanda.rules import ACCOUNT as OANDA_ACCOUNT
from tests.venues.projectx.rules import ACCOUNT as PROJECTX_ACCOUNT
from tests.venues.schwab.rules import ACCOUNT as SCHWAB_ACCOUNT

SYMBOL = "BTC/USDT"
PERPETUAL = "BTC/USDT:USDT"
KEYS = {
    "binance": (BINANCE_KEY, BINANCE_SECRET),
    "kraken": (KRAKEN_KEY, KRAKEN_SECRET),
    "bybit": (BYBIT_KEYS["spot"], BYBIT_SECRET),
    "bybit-linear": (BYBIT_KEYS["linear"], BYBIT_SECRET),
    "okx": (OKX_KEYS["SPOT"], OKX_SECRET, OKX_PASSPHRASE),
    "okx-swap": (OKX_KEYS["SWAP"], OKX_SECRET, OKX_PASSPHRASE),
}
CCXT_VENUES = tuple(KEYS)
"""The venues of `tests/venues/` by their own names."""
SWAPS = frozenset({"bybit-linear", "okx-swap"})
SYMBOLS = {venue: PERPETUAL if venue in SWAPS else SYMBOL for venue in CCXT_VENUES}
SYMBOLS |= {"alpaca": "BRK.A/USD", "oanda": "JP225/USD", "schwab": "BRK.A/USD"}
SYMBOLS |= {"projectx": "NKDZ26/USD"}
CONNECTED: list[ExecutionPlugin] = []
"""The plugins made here for the running test, closed after it."""


def order(**changes: object) -> OrderRequest:
    """A small market buy with an identity of its own, unless changed."""
    plain = OrderRequest(
        identity=uuid.uuid4().hex,
        symbol=SYMBOL,
        side=Side.BUY,
        type=OrderType.MARKET,
        quantity=Decimal("0.002"),
        reference_price=Decimal(60000),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def limit(price: str = "50000", **changes: object) -> OrderRequest:
    """A limit buy; at the default price it rests."""
    return order(type=OrderType.LIMIT, price=Decimal(price), **changes)


def ref(request: OrderRequest, broker_order_id: str = "") -> OrderRef:
    return OrderRef(request.identity, request.symbol, broker_order_id, None, request)


def ccxt_plugin(
    venue: str,
    base_url: str,
    environment: Environment = Environment.SANDBOX,
    credentials: tuple[str, ...] | None = None,
    **more: object,
) -> CcxtPlugin:
    """A plugin for one of `CCXT_VENUES`."""
    plugin, exchange = CcxtPlugin(), venue.partition("-")[0]
    options = {"exchange": exchange, "base_url": base_url, **more}
    if venue in SWAPS:
        options["market_type"] = "swap"
    names = ("api_key", "api_secret", "api_passphrase")
    secrets = dict(zip(names, credentials or KEYS[venue], strict=False))
    plugin.init(AccountConfig("1", exchange, environment, options, secrets))
    return plugin


class Rig(ABC):
    """A plugin and a hand on its venue, whose price is 60000."""

    plugin: ExecutionPlugin
    symbol: str = SYMBOL
    lot: Decimal = Decimal("0.002")
    """What the suite trades; half of it must be an order as well."""
    tells_fees = True
    tells_withdrawal = True

    def order(self, **changes: object) -> OrderRequest:
        return order(**{"symbol": self.symbol, "quantity": self.lot} | changes)

    def limit(self, price: str = "50000", **changes: object) -> OrderRequest:
        return limit(price, **{"symbol": self.symbol, "quantity": self.lot} | changes)

    def unaffordable(self) -> OrderRequest:
        """An order the venue refuses."""
        return self.limit(quantity=Decimal(900))

    @abstractmethod
    def connect(self) -> ExecutionPlugin:
        """Another plugin for the same account."""

    @abstractmethod
    def placed(self, request: OrderRequest) -> int:
        """How many orders with this identity the venue took."""

    @abstractmethod
    def lose_the_answer(self) -> None:
        """The venue takes the next order, and nobody hears of it."""

    @abstractmethod
    def lose_the_request(self) -> None:
        """The next order vanishes on its way, and nobody can tell."""

    @abstractmethod
    def fill_half(self, request: OrderRequest, broker_order_id: str) -> None:
        """Half of a resting order is executed."""

    @abstractmethod
    def fill_as_a_cancel_arrives(self, request: OrderRequest, broker_order_id: str) -> None:
        """The resting order is executed whole, and its next cancel meets it executed."""

    def restart(self) -> None:
        """Everything of ours between FKS and the venue ends and is made anew."""
        self.plugin.close()
        self.plugin = self.connect()


class CcxtRig(Rig):
    def __init__(self, exchange: str, venue: RunningVenue) -> None:
        self.exchange = exchange
        self.venue = venue
        self.symbol = SYMBOLS[exchange]
        self.plugin = self.connect()

    def connect(self) -> ExecutionPlugin:
        return ccxt_plugin(self.exchange, self.venue.base_url)

    def placed(self, request: OrderRequest) -> int:
        client_id = self.plugin.client_order_id(request.identity)
        return len(self.venue.control.ledger(self.exchange).by_client_id(client_id))

    def lose_the_answer(self) -> None:
        self.venue.control.queue_faults(Fault(Action.DROP, When.AFTER))

    def lose_the_request(self) -> None:
        self.venue.control.queue_faults(Fault(Action.DROP, When.BEFORE))

    def fill_half(self, request: OrderRequest, broker_order_id: str) -> None:
        self.venue.control.fill(self.exchange, broker_order_id, request.quantity / 2)

    def fill_as_a_cancel_arrives(self, request: OrderRequest, broker_order_id: str) -> None:
        crossing = Fault(Action.FILL_FIRST, endpoint=Endpoint.CANCEL, venue=self.exchange)
        self.venue.control.queue_faults(crossing)


def alpaca_plugin(
    base_url: str, environment: Environment = Environment.SANDBOX, **more: object
) -> AlpacaPlugin:
    plugin = AlpacaPlugin()
    keys = {"api_key": ALPACA_KEY, "api_secret": ALPACA_SECRET}
    options = {"base_url": base_url, **more}
    plugin.init(AccountConfig("1", "alpaca", environment, options, keys))
    CONNECTED.append(plugin)
    return plugin


class AlpacaRig(CcxtRig):
    """Shares: traded whole, without commission."""

    lot = Decimal(2)
    tells_fees = False
    tells_withdrawal = False

    def connect(self) -> ExecutionPlugin:
        return alpaca_plugin(self.venue.base_url)


def oanda_plugin(
    base_url: str, environment: Environment = Environment.SANDBOX, **more: object
) -> OandaPlugin:
    plugin = OandaPlugin()
    options = {"base_url": base_url, "account": OANDA_ACCOUNT, **more}
    plugin.init(AccountConfig("1", "oanda", environment, options, {"api_key": OANDA_TOKEN}))
    CONNECTED.append(plugin)
    return plugin


class OandaRig(CcxtRig):
    """An index CFD: margin, so that only its size can be too much."""

    lot = Decimal(2)
    tells_fees = False

    def connect(self) -> ExecutionPlugin:
        return oanda_plugin(self.venue.base_url)

    def fill_half(self, request: OrderRequest, broker_order_id: str) -> None:
        pytest.skip("an order at OANDA ends with its first fill")


class GivenToken:
    """A log-in that needs nobody: the venue's standing token."""

    def __init__(self, token: str = SCHWAB_TOKEN) -> None:
        self.given = token
        self.refusals: list[str] = []

    def token(self) -> str:
        return self.given

    def refused(self, token: str) -> None:
        self.refusals.append(token)


def schwab_plugin(
    base_url: str,
    environment: Environment = Environment.SANDBOX,
    tokens: TokenSource | None = None,
    **more: object,
) -> SchwabPlugin:
    plugin = SchwabPlugin()
    options = {"base_url": base_url, "account": SCHWAB_ACCOUNT, **more}
    keys = {"api_key": SCHWAB_KEY, "api_secret": SCHWAB_SECRET}
    tokens = tokens or GivenToken()
    plugin.init(AccountConfig("1", "schwab", environment, options, keys, tokens))
    CONNECTED.append(plugin)
    return plugin


class SchwabRig(CcxtRig):
    """Shares, whole, told without fees, under no id of ours."""

    lot = Decimal(2)
    tells_fees = False

    def connect(self) -> ExecutionPlugin:
        return schwab_plugin(self.venue.base_url)

    def placed(self, request: OrderRequest) -> int:
        """By what it asks for, as no id tells."""
        wanted = (request.side.value, request.type.value, request.quantity, request.price)
        rows = self.venue.control.ledger("schwab").orders
        return [(one.side, one.type, one.quantity, one.price) for one in rows].count(wanted)


def projectx_plugin(
    base_url: str,
    environment: Environment = Environment.SANDBOX,
    key: str = PROJECTX_KEY,
    **more: object,
) -> ProjectXPlugin:
    plugin = ProjectXPlugin()
    options = {"base_url": base_url, "account": PROJECTX_ACCOUNT, **more}
    keys = {"api_key": key, "user_name": PROJECTX_USER}
    plugin.init(AccountConfig("1", "projectx", environment, options, keys))
    CONNECTED.append(plugin)
    return plugin


class ProjectXRig(CcxtRig):
    """Futures: two units are a contract, and the venue counts contracts."""

    lot = Decimal(4)

    def connect(self) -> ExecutionPlugin:
        return projectx_plugin(self.venue.base_url)

    def fill_half(self, request: OrderRequest, broker_order_id: str) -> None:
        self.venue.control.fill(self.exchange, broker_order_id, request.quantity / 2 / 2)


class PaperRig(Rig):
    """The paper venue lives in the database; its own script of faults makes it fail."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.plugin = self.paper = self.connect()

    def connect(self) -> PaperPlugin:
        plugin = PaperPlugin()
        plugin.init(self._config())
        return plugin

    def _config(self, *faults: dict[str, object], price: str = "60000") -> AccountConfig:
        options = {
            "prices": {SYMBOL: price},
            "balance": {"USDT": "1000000"},
            "faults": list(faults),
        }
        return AccountConfig(self.key, "paper", Environment.DRY_RUN, options)

    def unaffordable(self) -> OrderRequest:
        """The paper venue looks at no balance before a limit order fills."""
        return self.limit("70000", post_only=True)

    def placed(self, request: OrderRequest) -> int:
        return int(self.connect().fetch_order(ref(request)) is not None)

    def lose_the_answer(self) -> None:
        self.paper.init(self._config({"fault": "lost_answer", "order": 1}))

    def lose_the_request(self) -> None:
        self.paper.init(self._config({"fault": "lost_request", "order": 1}))

    def fill_half(self, request: OrderRequest, broker_order_id: str) -> None:
        pytest.skip("a resting order at the paper venue is filled whole")

    def fill_as_a_cancel_arrives(self, request: OrderRequest, broker_order_id: str) -> None:
        """The market reaches its price; the venue looks at it when it is asked."""
        self.paper.init(self._config(price="49000"))
