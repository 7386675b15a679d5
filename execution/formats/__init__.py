"""Senders' formats: one file each. A format reads a body into a document, says under which names a
credential stands in it, and parses it into the canonical alert.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from brokers.types import OrderType
from execution.alerts import Alert
from execution.formats import (
    fks,
    keyvalue,
    mapping,
    octobot,
    okx,
    openalgo,
    pineconnector,
    threecommas,
    traderspost,
)
from execution.parsing import parse_object
from execution.textual import read_lines, read_words, write_lines, write_words

SECRETS = ("secret", "token", "passphrase", "key")
"""Fields every format takes a credential from."""


@dataclass(frozen=True, slots=True)
class Format:
    """How one sender writes. ``secrets`` are the fields that are tried as the webhook's token, in
    this order, and masked; ``masked`` are the sender's own credentials, only masked. ``write`` makes a
    body of fields, ``sent_at`` is the field of their time: for commands that post as the sender does.
    """

    label: str
    parse: Callable[..., Alert]
    read: Callable[..., dict[str, Any]] = parse_object
    write: Callable[..., str] = json.dumps
    sent_at: str = "timestamp"
    secrets: tuple[str, ...] = SECRETS
    masked: tuple[str, ...] = ()
    has_options: bool = False

    def alert(self, document: dict[str, Any]) -> Alert:
        """The alert in ``document``. Raises Invalid.

        What closes is not lost for want of a price: it goes out at the market.
        """
        found = self.parse(document)
        if not (found.wants_flat and found.missing_prices):
            return found
        return replace(
            found, order_type=OrderType.MARKET, price=None, stop_price=None, post_only=False
        )

    @property
    def confidential(self) -> tuple[str, ...]:
        """Every field whose value is kept nowhere."""
        return (*self.secrets, *self.masked)


FORMATS: dict[str, Format] = {
    "fks": Format("FKS (canonical JSON)", fks.parse),
    "traderspost": Format("TradersPost", traderspost.parse, sent_at="time"),
    "3commas": Format("3Commas signal bot", threecommas.parse, masked=("bot_uuid",)),
    "okx": Format("OKX signal bot", okx.parse, secrets=(okx.SECRET, *SECRETS)),
    "pineconnector": Format(
        "PineConnector",
        pineconnector.parse,
        pineconnector.read,
        pineconnector.write,
        masked=(pineconnector.LICENSE,),
        has_options=True,
    ),
    "octobot": Format("OctoBot", octobot.parse, read_lines, write_lines),
    "openalgo": Format("OpenAlgo", openalgo.parse, secrets=(openalgo.SECRET, *SECRETS)),
    "keyvalue": Format("name=value (Autoview style)", keyvalue.parse, read_words, write_words),
    "mapping": Format(
        "mapping of this strategy", mapping.parse, mapping.read, mapping.write, has_options=True
    ),
}


def format_of(name: str, options: Mapping[str, Any]) -> Format:
    """The format ``name`` with a strategy's ``format_options`` filled in."""
    known = FORMATS[name]
    if not known.has_options:
        return known
    chosen = replace(known, parse=partial(known.parse, options=options))
    if name != "mapping":
        return chosen
    return replace(
        chosen,
        read=partial(mapping.read, options=options),
        write=partial(mapping.write, options=options),
        sent_at=mapping.sent_at(options),
    )


def option_problems(name: str, options: Any) -> list[str]:
    """What is wrong with a strategy's ``format_options``, as sentences."""
    if name == "mapping":
        return mapping.problems(options)
    if name == "pineconnector":
        return pineconnector.problems(options)
    return [] if options == {} else [f"the format {name} has no options"]
