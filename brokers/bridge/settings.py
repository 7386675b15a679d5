"""The agent's configuration: one TOML file, its key in a file of its own.

Everything the agent may do is listed here, by the person who owns the terminal: accounts, instruments,
the largest order. Nothing has a default that trades.
"""

from __future__ import annotations

import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from brokers.bridge.driver import Listed
from brokers.bridge.listening import check_address
from brokers.bridge.signing import read_key

KNOWN = frozenset(
    {
        "driver", "listen", "vpn", "key_file", "journal", "log", "dry_run", "allow_live", "accounts",
        "instruments", "tls_certificate", "tls_key",
    }
)  # fmt: skip
DRIVERS = ("mt5", "nt8", "ib")


class SettingsError(ValueError):
    """The file says nothing the agent can start with; the message names the line to change."""


@dataclass(frozen=True, slots=True)
class Settings:
    driver: str
    host: str
    port: int
    key: bytes = field(repr=False)
    journal: Path
    log: Path
    dry_run: bool
    allow_live: bool
    accounts: tuple[str, ...]
    instruments: Mapping[str, Listed]
    terms: Mapping[str, Any]
    """The driver's own table."""
    certificate: Path | None = None
    certificate_key: Path | None = None

    def tls(self) -> ssl.SSLContext | None:
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.certificate_key)
        return context


def read(path: Path) -> Settings:
    """The settings in ``path``; paths in them are relative to it. Raises SettingsError."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
        return _settings(told, path.resolve().parent)
    except KeyError as error:
        raise SettingsError(f"{path}: {error.args[0]} is missing") from error
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _settings(told: Mapping[str, Any], folder: Path) -> Settings:
    driver = _text(told, "driver")
    if driver not in DRIVERS:
        raise SettingsError(f"there is no driver {driver!r}; known: {', '.join(DRIVERS)}")
    foreign = sorted(set(told) - KNOWN - {driver})
    if foreign:
        raise SettingsError(f"there is no setting {foreign[0]!r}")
    host, _, port = _text(told, "listen").rpartition(":")
    host = host.strip("[]")
    certificate = _path(told, "tls_certificate", folder)
    check_address(host, tls=certificate is not None, vpn=_flag(told, "vpn"))
    key_file = folder / _text(told, "key_file")
    return Settings(
        driver=driver,
        host=host,
        port=int(port),
        key=read_key(key_file.read_text(encoding="utf-8")),
        journal=folder / _text(told, "journal"),
        log=folder / _text(told, "log"),
        dry_run=_flag(told, "dry_run"),
        allow_live=_flag(told, "allow_live"),
        accounts=_accounts(told),
        instruments=_instruments(told),
        terms=dict(told.get(driver, {})),
        certificate=certificate,
        certificate_key=_path(told, "tls_key", folder),
    )


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told[name]
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{name} must be a text")
    return value


def _flag(told: Mapping[str, Any], name: str) -> bool:
    value = told.get(name, False)
    if not isinstance(value, bool):
        raise SettingsError(f"{name} must be true or false")
    return value


def _path(told: Mapping[str, Any], name: str, folder: Path) -> Path | None:
    return folder / _text(told, name) if name in told else None


def _accounts(told: Mapping[str, Any]) -> tuple[str, ...]:
    accounts = told["accounts"]
    if not isinstance(accounts, list) or not accounts:
        raise SettingsError("accounts must list at least one account")
    if not all(isinstance(one, str) and one.strip() for one in accounts):
        raise SettingsError("accounts must be texts, in quotation marks")
    return tuple(accounts)


def _instruments(told: Mapping[str, Any]) -> dict[str, Listed]:
    rows = told["instruments"]
    if not rows:
        raise SettingsError("instruments must list at least one instrument")
    return {symbol: _listed(symbol, dict(row)) for symbol, row in rows.items()}


def _listed(symbol: str, row: dict[str, Any]) -> Listed:
    try:
        venue_symbol = str(row.pop("symbol"))
        most = decimal(row.pop("max_quantity"), f"max_quantity of {symbol}")
    except KeyError as error:
        raise SettingsError(f"instrument {symbol} lacks {error.args[0]}") from error
    return Listed(symbol, venue_symbol, most, row)


def decimal(value: object, name: str) -> Decimal:
    """A positive number written as a text. Raises SettingsError."""
    try:
        number = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number <= 0:
        raise SettingsError(f"{name} must be a positive number in quotation marks")
    return number
