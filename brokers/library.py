"""Which exchanges the pinned ccxt has, written down so that nobody needs to import it to know.

``manage.py list_exchanges --write`` writes the list anew; a test compares it with the installed ccxt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from brokers.library_reading import facts_read

LIST = Path(__file__).with_name("library.json")
MARKET_TYPES = ("spot", "swap", "future")
KEY_NAMES = {
    "apiKey": "api_key",
    "walletAddress": "api_key",
    "secret": "api_secret",
    "privateKey": "api_secret",
    "password": "api_passphrase",
}
"""ccxt's names of the usual credentials and ours."""


@dataclass(frozen=True, slots=True)
class LibraryExchange:
    """One exchange as ccxt describes it, which is a claim and proves nothing.

    ``keys`` maps our names of the credentials to ccxt's; it is empty where an account needs others
    than a key, a secret and a passphrase. ``sandbox``: ccxt knows a test host. ``market_facts``: what
    it reads of a market's raw answer after it has made the symbol list, ``None`` where that is not
    known.
    """

    id: str
    label: str
    market_types: tuple[str, ...]
    sandbox: bool
    keys: Mapping[str, str]
    market_facts: frozenset[str] | None


@cache
def library() -> Mapping[str, LibraryExchange]:
    """The exchanges of the pinned ccxt by id."""
    rows = json.loads(LIST.read_text())
    return {
        row["id"]: LibraryExchange(
            **row
            | {
                "market_types": tuple(row["market_types"]),
                "market_facts": _frozen(row["market_facts"]),
            }
        )
        for row in rows
    }


def _frozen(facts: list[str] | None) -> frozenset[str] | None:
    return None if facts is None else frozenset(facts)


def measure() -> str:
    """The content of the list for the installed ccxt. Imports ccxt."""
    import ccxt

    rows = [asdict(_described(getattr(ccxt, name)())) for name in sorted(ccxt.exchanges)]
    for row in rows:
        if row["market_facts"] is not None:
            row["market_facts"] = sorted(row["market_facts"])
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def _described(client: Any) -> LibraryExchange:
    wanted = [name for name, needed in client.requiredCredentials.items() if needed]
    keys = {KEY_NAMES[name]: name for name in sorted(wanted) if name in KEY_NAMES}
    return LibraryExchange(
        id=client.id,
        label=client.name.replace("\N{CIRCLED LATIN CAPITAL LETTER S}", "S"),
        market_types=tuple(kind for kind in MARKET_TYPES if client.has.get(kind)),
        sandbox=bool(client.urls.get("test")),
        keys=keys if len(keys) == len(wanted) else {},
        market_facts=facts_read(type(client)),
    )
