"""Margin mode and leverage of a market: asked for, set where they are others, and asked for again.

What is asked and sent is in the exchange's row of the matrix, under ``margin``:

- ``ask``: the question (``call``, ``fields``). The market's entry is the answer, or in the list at the
  path ``list`` the one whose member ``by`` is the market's id. Where the list itself tells the mode,
  ``listed`` is that of a market in it and ``absent`` that of any other.
- ``mode``: where an entry says its mode, and in ``modes`` how the exchange calls each; ``leverage``:
  where it says its leverage in each mode, several paths where it has one for each side.
- ``set_mode`` and ``set_leverage``: the request (``call``, ``endpoint``, ``fields``), or one for each
  mode. Without a ``call`` ccxt's own ``set_leverage`` makes it.

Beside the names of a market the fields know ``{mode}``, ``{is_cross}``, ``{leverage}``, ``{wallet}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import Any

from brokers import wire
from brokers.dialects import answers
from brokers.dialects.answers import at
from brokers.errors import ConfigurationError, QueryFailedError
from brokers.exchanges import Endpoint
from brokers.margin import CROSS, MarginTerms
from brokers.transport import Wire
from brokers.venue_client import Market, VenueClient, VenueRefusedError


@dataclass(frozen=True, slots=True)
class Setting:
    """What a market is traded with. ``leverage`` is ``None`` where that mode has none, where none is
    told, and where the two sides have different ones."""

    mode: str
    leverage: Decimal | None


def settle(client: VenueClient, market: Market, terms: MarginTerms) -> None:
    """Bring ``market`` to ``terms``. Raises ConfigurationError where it does not follow."""
    found = ask(client, market)
    if found.mode != terms.margin_mode:
        if not terms.sets_mode:
            raise ConfigurationError(
                f"{market['symbol']} is in {found.mode} margin: give the option margin_mode, or "
                "change it at the exchange"
            )
        _send(client, market, "set_mode", terms, found)
        found = ask(client, market)
    if not _has_leverage(found, terms):
        _send(client, market, "set_leverage", terms, found)
        found = ask(client, market)
    if found.mode != terms.margin_mode or not _has_leverage(found, terms):
        raise ConfigurationError(
            f"{client.profile.label} kept {market['symbol']} in {found.mode} margin with leverage "
            f"{found.leverage}"
        )


def _has_leverage(found: Setting, terms: MarginTerms) -> bool:
    return terms.leverage is None or found.leverage == terms.leverage


def ask(client: VenueClient, market: Market) -> Setting:
    """What is set now. Raises QueryFailedError for an answer that does not say it."""
    told = client.profile.margin
    fields = _fields(told["ask"]["fields"], client, market, {})
    entry = _entry(told, client.call(told["ask"]["call"], **fields), str(market["id"]))
    if entry is None:
        return Setting(told["absent"], None)
    mode = told.get("listed")
    if mode is None:
        named = {name: mode for mode, name in told["modes"].items()}
        mode = named.get(str(at(entry, told["mode"])))
    if mode is None:
        raise QueryFailedError("unreadable answer: no margin mode")
    sides = {_number(at(entry, path)) for path in told["leverage"].get(mode, ())}
    return Setting(mode, sides.pop() if len(sides) == 1 else None)


def _entry(told: Mapping[str, Any], answer: Any, market_id: str) -> Any:
    if "by" not in told:
        return answers.row(answer)
    listed = at(answer, told["list"]) if told["list"] else answer
    if not isinstance(listed, list):
        raise QueryFailedError("unreadable answer: no margin settings")
    for one in listed:
        if str(at(one, told["by"])).upper() == market_id.upper():
            return one
    if "absent" not in told:
        raise QueryFailedError("unreadable answer: the market's margin settings are not in it")
    return None


def _send(
    client: VenueClient, market: Market, what: str, terms: MarginTerms, found: Setting
) -> None:
    request = request_for(client.profile.margin, what, terms.margin_mode)
    leverage = found.leverage if terms.leverage is None else Decimal(terms.leverage)
    if request is None or (leverage is None and "{leverage}" in str(request)):
        raise ConfigurationError(
            f"{client.profile.label} sets {terms.margin_mode} margin only with a leverage: give both"
        )
    values = {"mode": client.profile.margin.get("modes", {}).get(terms.margin_mode, "")}
    values |= {"is_cross": str(terms.margin_mode == CROSS).lower()}
    values |= {} if leverage is None else {"leverage": f"{leverage.normalize():f}"}
    fields = _fields(request["fields"], client, market, values)
    with announced(client, market, Endpoint.read(request["endpoint"]), fields):
        if "call" in request:
            client.call(request["call"], **fields)
        else:
            mode = {"marginMode": terms.margin_mode}
            client.ask("set_leverage", int(leverage or 0), market["symbol"], mode)


@contextmanager
def announced(
    client: VenueClient, market: Market, endpoint: Endpoint, fields: Wire
) -> Iterator[None]:
    """Let the one request that sets something leave. What the venue will not set is the operator's to
    change: raises ConfigurationError with its words.
    """
    try:
        with client.gate.announce(endpoint, wire=fields):
            yield
    except VenueRefusedError as refusal:
        if refusal.is_answer:
            raise ConfigurationError(f"{market['symbol']}: {refusal}") from refusal
        raise


def request_for(told: Mapping[str, Any], what: str, mode: str) -> Mapping[str, Any] | None:
    """The request that sets ``what`` in ``mode``, ``None`` where there is none."""
    request = told.get(what, {})
    chosen: Mapping[str, Any] | None = request if "endpoint" in request else request.get(mode)
    return chosen


def _fields(
    templates: Mapping[str, Any],
    client: VenueClient,
    market: Market,
    values: Mapping[str, str],
) -> dict[str, str | Decimal]:
    more = {**values, "wallet": str(client.ccxt.walletAddress or "")}
    return dict(wire.question_fields(templates, market, more))


def _number(value: object) -> Decimal | None:
    if value is None:
        return None
    try:
        number = Decimal(str(value))
    except DecimalException as error:
        raise QueryFailedError("unreadable answer: a leverage that is no number") from error
    if not number.is_finite():
        raise QueryFailedError("unreadable answer: a leverage that is no number")
    return number
