"""A worker that was held up beyond its claim sends nothing: another may be sending the same order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from brokers.transport import Gate
from brokers.types import Outcome
from tests.brokers.contract import CCXT_VENUES, SYMBOLS, ccxt_plugin, order
from tests.venues.client import RunningVenue

EXCHANGES = CCXT_VENUES


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_after_the_claim_has_ended_nothing_leaves(venue: RunningVenue, exchange: str) -> None:
    plugin, request = (
        ccxt_plugin(exchange, venue.base_url),
        order(symbol=SYMBOLS[exchange], send_before=datetime.now(UTC) - timedelta(seconds=1)),
    )
    result = plugin.execute_order(request)
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "VENUE_UNREACHABLE")
    assert result.retry_after == 1
    assert result.evidence["sent"] is False
    assert venue.control.ledger(exchange).orders == []


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_within_the_claim_the_order_leaves(venue: RunningVenue, exchange: str) -> None:
    request = order(symbol=SYMBOLS[exchange], send_before=datetime.now(UTC) + timedelta(seconds=30))
    result = ccxt_plugin(exchange, venue.base_url).execute_order(request)
    assert result.outcome is Outcome.ACCEPTED
    assert len(venue.control.ledger(exchange).by_client_id(request.identity)) == 1


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_claim_is_looked_at_last(
    venue: RunningVenue, monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    """Whatever takes long before the request leaves, signing included, is within the claim."""
    plugin = ccxt_plugin(exchange, venue.base_url)
    plugin.instrument(SYMBOLS[exchange])
    claim_ends = datetime.now(UTC) + timedelta(seconds=30)
    inspect: Callable[..., None] = Gate.inspect

    def hold_up(gate: Gate, *arguments: Any) -> None:
        if gate._attempt is not None:
            gate._attempt.send_before = datetime.now(UTC)
        inspect(gate, *arguments)

    monkeypatch.setattr(Gate, "inspect", hold_up)
    result = plugin.execute_order(order(symbol=SYMBOLS[exchange], send_before=claim_ends))
    assert (result.outcome, result.retry_after) == (Outcome.NOT_SENT, 1)
    assert venue.control.ledger(exchange).orders == []
