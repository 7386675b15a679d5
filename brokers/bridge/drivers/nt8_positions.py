"""NinjaTrader 8's position files: `<instrument> <exchange>_<account>_Position.txt`."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path

from brokers.bridge.driver import Listed
from brokers.bridge.drivers.nt8_folders import read
from brokers.errors import QueryFailedError

SIGNS = {"LONG": 1, "SHORT": -1, "FLAT": 0}


def position(
    outgoing: Path, account: str, name: str, listed: Listed
) -> tuple[Decimal, Decimal | None] | None:
    """Signed contracts and their average price; ``None`` when NinjaTrader tells nothing.

    ``name`` is how the file calls the instrument where that differs from orders. Raises
    QueryFailedError for a file that cannot be read, and for two that speak of one instrument.
    """
    wanted = (name or listed.venue_symbol).casefold()
    ending = f"_{account}_position.txt".casefold()
    # one word between the two, the exchange: with more the account is another one's
    named = re.compile(f"{re.escape(wanted)}( [^ _]+)?{re.escape(ending)}")
    found = [path for path in outgoing.iterdir() if named.fullmatch(path.name.casefold())]
    if len(found) > 1:
        raise QueryFailedError(f"several position files speak of {listed.symbol}")
    if not found:
        return None
    parts = (read(found[0]) or "").strip().split(";")
    if len(parts) != 3 or parts[0].upper() not in SIGNS:
        raise QueryFailedError(f"the position file of {listed.symbol} cannot be read")
    try:
        contracts, average = (Decimal(part.replace(",", ".")) for part in parts[1:])
    except InvalidOperation as error:
        raise QueryFailedError(f"the position file of {listed.symbol} is garbled") from error
    return SIGNS[parts[0].upper()] * contracts, average if contracts else None
