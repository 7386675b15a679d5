"""Funding payments as each venue tells them: sign, once, exact, over all pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from brokers.dialects import bybit, okx
from brokers.dialects.unified import Unified
from brokers.errors import NotSupportedError, QueryFailedError
from brokers.exchanges import profile_for
from brokers.types import FundingReport
from tests.brokers.contract import PERPETUAL, ccxt_plugin
from tests.venues.client import RunningVenue

D = Decimal
VENUES = [("bybit-linear", "BTCUSDT"), ("okx-swap", "BTC-USDT-SWAP")]


def milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


@pytest.mark.parametrize(("name", "symbol"), VENUES)
def test_what_was_received_is_positive_and_exact(
    venue: RunningVenue, name: str, symbol: str
) -> None:
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=9)
    amounts = ["-0.123456789012345678", "0.5", "-3"]
    for hours, amount in enumerate(amounts):
        paid = milliseconds(at + timedelta(days=4 * hours))
        venue.control.pay_funding(name, symbol, amount, paid)
    told = ccxt_plugin(name, venue.base_url).funding_since(at)
    assert [one.amount for one in told] == [D(amount) for amount in amounts]
    assert {(one.symbol, one.currency) for one in told} == {(PERPETUAL, "USDT")}
    assert told[0].at == at
    assert len({one.payment_id for one in told}) == 3


@pytest.mark.parametrize(("name", "symbol"), VENUES)
def test_all_pages_are_read_and_what_came_before_is_left_out(
    venue: RunningVenue, name: str, symbol: str
) -> None:
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=130)
    for hour in range(130):
        at = milliseconds(start + timedelta(hours=hour))
        venue.control.pay_funding(name, symbol, str(hour + 1), at)
    told = ccxt_plugin(name, venue.base_url).funding_since(start + timedelta(hours=10))
    assert [one.amount for one in told] == [D(hour + 1) for hour in range(10, 130)]


def test_a_spot_account_has_none(venue: RunningVenue) -> None:
    for name in ("bybit", "okx", "binance", "kraken"):
        with pytest.raises(NotSupportedError, match="no funding"):
            ccxt_plugin(name, venue.base_url).funding_since(datetime.now(UTC))


def test_binance_futures_are_read_by_ccxt_and_unproven_exchanges_are_not() -> None:
    assert Unified(profile_for("binanceusdm", "swap")).tells_funding
    assert not Unified(profile_for("bitget", "swap")).tells_funding
    assert not bybit.BybitSpot().tells_funding
    assert not okx.OkxSpot().tells_funding


class Asked:
    """A client that answers as ccxt reads Binance's income (developers.binance.com)."""

    def __init__(self, **changes: Any) -> None:
        self.row = {
            "id": "4480321991774044580",
            "symbol": "ETH/USDT:USDT",
            "code": "USDT",
            "amount": "-0.00134317",
            "timestamp": 1621584000000,
        } | changes

    def ask(self, question: str, *arguments: object) -> object:
        assert question == "fetch_funding_history"
        assert arguments == (None, 1621580000000, 1000)
        return [self.row, self.row]


def read_by_ccxt(**changes: Any) -> list[FundingReport]:
    since = datetime.fromtimestamp(1621580000, UTC)
    dialect = Unified(profile_for("binanceusdm", "swap"))
    return list(dialect.funding(Asked(**changes), since))  # type: ignore[arg-type]


def test_binance_futures_income_is_read_exactly_and_once() -> None:
    assert read_by_ccxt() == [
        FundingReport(
            payment_id="4480321991774044580",
            symbol="ETH/USDT:USDT",
            amount=D("-0.00134317"),
            currency="USDT",
            at=datetime(2021, 5, 21, 8, tzinfo=UTC),
        )
    ]


@pytest.mark.parametrize("changes", [{"id": None}, {"amount": None}, {"amount": "x"}], ids=str)
def test_an_answer_with_a_hole_is_no_answer(changes: dict[str, Any]) -> None:
    with pytest.raises(QueryFailedError):
        read_by_ccxt(**changes)
