"""What a paper account trades at: its options, read once and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import Any

from brokers.errors import ConfigurationError, UnknownSymbolError
from brokers.paper_faults import Fault, faults
from brokers.paper_market import instrument, usable_price

OPTIONS = {
    "balance": 'What the account starts with, by currency: {"USDT": "100000"}.',
    "prices": 'Fixed prices by symbol: {"BTC/USDT": "60000"}. Else the alert\'s own price counts.',
    "quotes_from": "The name of another account, not a paper one: its venue's bid and ask are the "
    "market then, and alerts' prices count for nothing.",
    "spread_bps": "Distance between bid and ask in basis points of the price (2).",
    "slippage_bps": "How much worse than quoted a market order fills, in basis points (1).",
    "fee_bps": "Fee in basis points of a trade's value, paid in the quote asset (10).",
    "partial_fills": "Into how many equal trades a market order is filled (1).",
    "seed": "Varies slippage from half to one and a half times, the same way for the same orders.",
    "faults": 'What goes wrong with which order: [{"fault": "lost_answer", "order": 3}]; the page on '
    "the paper broker lists them.",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """The options of one paper account."""

    balance: Mapping[str, Decimal]
    prices: Mapping[str, Decimal]
    quotes_from: str
    spread_bps: Decimal
    slippage_bps: Decimal
    fee_bps: Decimal
    partial_fills: int
    seed: str
    faults: tuple[Fault, ...]

    def slippage_of(self, identity: str) -> Decimal:
        """The slippage of one order in basis points."""
        if not self.seed:
            return self.slippage_bps
        digest = hashlib.sha256(f"{self.seed}{identity}".encode()).digest()
        return self.slippage_bps * (Decimal("0.5") + Decimal(digest[0]) / 256)


def terms(options: Mapping[str, Any]) -> Terms:
    """The options as numbers. Raises ConfigurationError naming the option that is wrong."""
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ConfigurationError(
            f"a paper account has no option {unknown[0]!r}; known: {', '.join(OPTIONS)}"
        )
    if options.get("quotes_from") and options.get("prices"):
        raise ConfigurationError("prices come from the options or from an account, not both")
    default_balance = {"USDT": "100000", "USD": "100000"}
    return Terms(
        balance=_numbers("balance", options.get("balance", default_balance)),
        prices=_prices(options.get("prices", {})),
        quotes_from=_name("quotes_from", options.get("quotes_from", "")),
        spread_bps=_basis_points("spread_bps", options.get("spread_bps", 2)),
        slippage_bps=_basis_points("slippage_bps", options.get("slippage_bps", 1)),
        fee_bps=_basis_points("fee_bps", options.get("fee_bps", 10)),
        partial_fills=_count("partial_fills", options.get("partial_fills", 1)),
        seed=str(options.get("seed", "")),
        faults=faults(options.get("faults", [])),
    )


def _name(name: str, given: object) -> str:
    if not isinstance(given, str):
        raise ConfigurationError(f"option {name} is the name of an account")
    return given


def _number(name: str, given: object) -> Decimal:
    try:
        number = Decimal(str(given))
    except DecimalException:
        number = Decimal("NaN")
    if isinstance(given, bool) or not number.is_finite():
        raise ConfigurationError(f"option {name}: {given!r} is not a number")
    return number


def _numbers(name: str, given: object) -> dict[str, Decimal]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"option {name} must be an object. {OPTIONS[name]}")
    return {str(key): _number(name, item) for key, item in given.items()}


def _prices(given: object) -> dict[str, Decimal]:
    prices = {}
    for symbol, number in _numbers("prices", given).items():
        price = usable_price(number)
        try:
            instrument(symbol)
        except UnknownSymbolError as error:
            raise ConfigurationError(f"option prices: {error}") from error
        if price is None:
            raise ConfigurationError(f"option prices: {symbol} cannot trade at {number}")
        prices[symbol] = price
    return prices


def _basis_points(name: str, given: object) -> Decimal:
    number = _number(name, given)
    if not 0 <= number <= 5000:
        raise ConfigurationError(f"option {name} must lie from 0 to 5000 basis points")
    return number


def _count(name: str, given: object) -> int:
    number = _number(name, given)
    if number != number.to_integral_value() or not 1 <= number <= 100:
        raise ConfigurationError(f"option {name} must be a whole number from 1 to 100")
    return int(number)
