"""An exchange's symbol list as it is kept: what ccxt made of it, without what nobody reads."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HELPERS = "marketHelperProps"
"""ccxt's option that names its other options which belong to a symbol list."""


@dataclass(frozen=True, slots=True)
class SymbolList:
    """What ``set_markets_from_exchange`` of a ccxt client takes over, under ccxt's own names.

    The clients of a process share its dictionaries: nobody may change them.
    """

    id: str
    markets: Mapping[str, Any]
    currencies: Mapping[str, Any]
    options: Mapping[str, Any]
    markets_by_id: Mapping[str, list[Any]] = field(init=False)
    symbols: list[str] = field(init=False)
    ids: list[str] = field(init=False)
    currencies_by_id: Mapping[str, Any] = field(init=False)
    codes: list[str] = field(init=False)
    baseCurrencies: Mapping[str, Any] = field(init=False)
    quoteCurrencies: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        by_id: dict[str, list[Any]] = {}
        # ccxt's own order: of markets with one id, spot comes first
        for market in sorted(self.markets.values(), key=lambda one: not one.get("spot")):
            by_id.setdefault(market["id"], []).append(market)
        derived = {
            "markets_by_id": by_id,
            "symbols": sorted(self.markets),
            "ids": sorted(by_id),
            "currencies_by_id": {
                one["id"]: one for one in self.currencies.values() if one.get("id")
            },
            "codes": sorted(self.currencies),
            "baseCurrencies": self._named("base"),
            "quoteCurrencies": self._named("quote"),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def _named(self, side: str) -> dict[str, Any]:
        codes = {market[side] for market in self.markets.values() if market.get(side)}
        return {code: self.currencies[code] for code in sorted(codes) if code in self.currencies}

    @classmethod
    def of(cls, client: Any, facts: frozenset[str] | None) -> SymbolList:
        """That of a ccxt ``client`` that has loaded it. ``facts`` are the members of a market's raw
        answer that are kept, ``None`` keeps them all."""
        markets = {symbol: _slim(one, facts) for symbol, one in client.markets.items()}
        options = {}
        for name in client.options.get(HELPERS, ()):
            value = client.options.get(name)
            options[name] = _named_markets(value, markets)
        options[HELPERS] = list(options)
        return cls(client.id, markets, dict(client.currencies), options)

    def packed(self) -> bytes:
        """As it is stored; markets among the options are stored by their symbol."""
        helpers = {name: _symbols(self.options[name], self.markets) for name in self.options}
        text = json.dumps([self.id, list(self.markets.values()), dict(self.currencies), helpers])
        return zlib.compress(text.encode(), 1)

    @classmethod
    def unpacked(cls, stored: bytes) -> SymbolList:
        """Raises ValueError for what ``packed`` has not written."""
        try:
            name, listed, currencies, helpers = json.loads(zlib.decompress(stored))
            markets = {market["symbol"]: market for market in listed}
            options = {name: _markets(value, markets) for name, value in helpers.items()}
            return cls(name, markets, currencies, options)
        except (zlib.error, TypeError, KeyError, AttributeError) as error:
            raise ValueError("no symbol list") from error


def _slim(market: Mapping[str, Any], facts: frozenset[str] | None) -> dict[str, Any]:
    info = market.get("info")
    if facts is None or not isinstance(info, dict):
        return dict(market)
    return dict(market) | {"info": {name: info[name] for name in info if name in facts}}


REFERENCE = "fks:symbol"


def _named_markets(value: Any, markets: Mapping[str, Any]) -> Any:
    """``value`` with the markets it holds replaced by the kept ones."""
    return _markets(_symbols(value, markets), markets)


def _symbols(value: Any, markets: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _symbol(member, markets) for key, member in value.items()}


def _symbol(member: Any, markets: Mapping[str, Any]) -> Any:
    known = markets.get(member.get("symbol", "")) if isinstance(member, dict) else None
    same = known is not None and known["id"] == member.get("id")
    return {REFERENCE: member["symbol"]} if same else member


def _markets(value: Any, markets: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        key: markets[member[REFERENCE]]
        if isinstance(member, dict) and REFERENCE in member
        else member
        for key, member in value.items()
    }
