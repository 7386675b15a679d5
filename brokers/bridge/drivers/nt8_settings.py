"""What the operator must tell the agent because NinjaTrader's files do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from brokers.bridge.driver import Listed
from brokers.bridge.drivers.nt8_lines import FORBIDDEN, TIMES
from brokers.bridge.settings import SettingsError, decimal
from brokers.errors import ConfigurationError
from brokers.types import TimeInForce

FOLDERS = frozenset({"incoming", "outgoing", "log", "staging", "placing"})
OWN = frozenset(
    {
        "demo_accounts", "balance", "currency", "commission", "connection", "times_in_force",
        "trust_alert_prices", "take_seconds", "settle_seconds", "answer_seconds",
    }
)  # fmt: skip
OF_INSTRUMENTS = frozenset({"tick", "multiplier", "position_name"})


@dataclass(frozen=True, slots=True)
class InstrumentTerms:
    """``multiplier``: what one contract is in units, 50 for ES."""

    tick: Decimal
    multiplier: Decimal
    position_name: str


@dataclass(frozen=True, slots=True)
class Terms:
    """``commission`` per contract and side; ``take_seconds`` until an instruction not taken is taken
    back, ``settle_seconds`` more until that counts as never taken; ``answer_seconds`` until an order
    nobody speaks of is UNKNOWN."""

    demo_accounts: frozenset[str]
    balance: Decimal
    currency: str
    commission: Decimal
    connection: str
    times: tuple[TimeInForce, ...]
    trust_alert_prices: bool
    take_seconds: int
    settle_seconds: int
    answer_seconds: int
    instruments: Mapping[str, InstrumentTerms]


def terms_of(account: str, instruments: Mapping[str, Listed], options: Mapping[str, Any]) -> Terms:
    """Raises ConfigurationError naming what is missing or wrong."""
    foreign = sorted(set(options) - OWN - FOLDERS)
    if foreign:
        raise ConfigurationError(f"[nt8] has no setting {foreign[0]!r}")
    _refuse_unclean(account)
    try:
        commission = options.get("commission")
        return Terms(
            demo_accounts=frozenset(options.get("demo_accounts", [])),
            balance=decimal(options.get("balance"), "[nt8] balance"),
            currency=str(options["currency"]),
            commission=Decimal(0) if commission is None else decimal(commission, "commission"),
            connection=str(options.get("connection", "")),
            times=_times(options.get("times_in_force", ["gtc", "day"])),
            trust_alert_prices=options.get("trust_alert_prices", False) is True,
            take_seconds=_seconds(options, "take_seconds", 5),
            settle_seconds=_seconds(options, "settle_seconds", 3),
            answer_seconds=_seconds(options, "answer_seconds", 25),
            instruments={one.symbol: _instrument(one) for one in instruments.values()},
        )
    except KeyError as error:
        raise ConfigurationError(f"[nt8] lacks {error.args[0]}") from error
    except SettingsError as error:
        raise ConfigurationError(str(error)) from error


def _instrument(listed: Listed) -> InstrumentTerms:
    _refuse_unclean(listed.venue_symbol)
    foreign = sorted(set(listed.terms) - OF_INSTRUMENTS)
    if foreign:
        raise ConfigurationError(f"instrument {listed.symbol} has no setting {foreign[0]!r}")
    return InstrumentTerms(
        decimal(listed.terms.get("tick"), f"tick of {listed.symbol}"),
        decimal(listed.terms.get("multiplier"), f"multiplier of {listed.symbol}"),
        str(listed.terms.get("position_name", "")),
    )


def _times(told: Any) -> tuple[TimeInForce, ...]:
    """A connection refuses what it does not support; the operator knows which."""
    known = {one.value: one for one in TIMES}
    if not isinstance(told, list) or not told or set(told) - set(known):
        raise ConfigurationError(f"times_in_force lists some of {', '.join(known)}")
    return tuple(known[one] for one in told)


def _seconds(options: Mapping[str, Any], name: str, usual: int) -> int:
    value = options.get(name, usual)
    if type(value) is not int or not 1 <= value <= 30:
        raise ConfigurationError(f"{name} must be whole seconds from 1 to 30")
    return value


def _refuse_unclean(text: str) -> None:
    if not text.isascii() or FORBIDDEN & set(text) or text != text.strip() or not text:
        raise ConfigurationError(f"{text!r} cannot stand in an instruction")
