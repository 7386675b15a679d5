"""Where TWS or IB Gateway listens, and which contract each allowed symbol is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from brokers.bridge.driver import Listed
from brokers.bridge.listening import check_address
from brokers.bridge.settings import SettingsError, decimal
from brokers.errors import ConfigurationError

OWN = frozenset({"host", "port", "client_id", "vpn", "time_zone", "answer_seconds"})
CONTRACT_FIELDS = {
    "type": "secType",
    "exchange": "exchange",
    "currency": "currency",
    "primary_exchange": "primaryExchange",
    "expiry": "lastTradeDateOrContractMonth",
    "multiplier": "multiplier",
    "local_symbol": "localSymbol",
    "trading_class": "tradingClass",
}
"""An instrument's settings and the fields of TWS they fill."""
MARKET_TYPES = {
    "STK": "stock",
    "FUT": "future",
    "CASH": "forex",
    "CFD": "cfd",
    "CMDTY": "margin",
    "CRYPTO": "spot",
}
"""The security types the driver trades, and what FKS calls them."""


@dataclass(frozen=True, slots=True)
class ContractTerms:
    """``fields`` as TWS names them; ``tick`` overrides TWS's own; ``outside_rth`` lets orders work, and
    stops wake, outside regular hours."""

    fields: Mapping[str, Any]
    tick: Decimal | None
    outside_rth: bool


@dataclass(frozen=True, slots=True)
class Terms:
    """``answer_seconds``: how long each answer is waited for. ``time_zone``: TWS's own, where it is not
    this machine's."""

    host: str
    port: int
    client_id: int
    time_zone: str
    answer_seconds: int
    contracts: Mapping[str, ContractTerms]


def terms_of(instruments: Mapping[str, Listed], options: Mapping[str, Any]) -> Terms:
    """Raises ConfigurationError naming what is missing or wrong."""
    foreign = sorted(set(options) - OWN)
    if foreign:
        raise ConfigurationError(f"[ib] has no setting {foreign[0]!r}")
    host = str(options.get("host", "127.0.0.1"))
    try:
        # TWS's protocol is neither signed nor encrypted
        check_address(host, tls=False, vpn=options.get("vpn", False) is True)
        contracts = {one.symbol: _contract(one) for one in instruments.values()}
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return Terms(
        host=host,
        port=_whole(options, "port", None, 65535),
        # client 0 would also be given what people place by hand
        client_id=_whole(options, "client_id", None, 999_999),
        time_zone=_zone(str(options.get("time_zone", ""))),
        answer_seconds=_whole(options, "answer_seconds", 8, 12),
        contracts=contracts,
    )


def _contract(listed: Listed) -> ContractTerms:
    told = dict(listed.terms)
    tick, outside = told.pop("tick", None), told.pop("outside_rth", False)
    con_id = told.pop("con_id", 0)
    foreign = sorted(set(told) - set(CONTRACT_FIELDS))
    if foreign:
        raise SettingsError(f"instrument {listed.symbol} has no setting {foreign[0]!r}")
    for name in ("type", "exchange", "currency"):
        if not told.get(name):
            raise SettingsError(f"instrument {listed.symbol} lacks {name}")
    if told["type"] not in MARKET_TYPES:
        raise SettingsError(f"type of {listed.symbol} must be one of {', '.join(MARKET_TYPES)}")
    if not all(isinstance(value, str) for value in told.values()):
        raise SettingsError(f"the settings of {listed.symbol} must be in quotation marks")
    if type(con_id) is not int or type(outside) is not bool:
        raise SettingsError(f"{listed.symbol}: con_id is a number, outside_rth true or false")
    fields = {CONTRACT_FIELDS[name]: value for name, value in told.items()}
    return ContractTerms(
        {**fields, "symbol": listed.venue_symbol, "conId": con_id},
        None if tick is None else decimal(tick, f"tick of {listed.symbol}"),
        outside,
    )


def _whole(options: Mapping[str, Any], name: str, usual: int | None, most: int) -> int:
    value = options.get(name, usual)
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigurationError(f"[ib] {name} must be a whole number from 1 to {most}")
    return value


def _zone(name: str) -> str:
    try:
        if name:
            ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigurationError(f"[ib] time_zone: there is no {name!r}") from error
    return name
