"""An account's own names: whose come first, from when until when, and what a near miss may mean."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from django.core.exceptions import ValidationError

from brokers.aliases import suggestions, symbol_for
from brokers.errors import UnknownSymbolError
from brokers.models import Account, Instrument, SymbolAlias
from tests.factories import AccountFactory

pytestmark = pytest.mark.django_db
TODAY = date(2026, 11, 21)
DAY = timedelta(days=1)


def alias(text: str, symbol: str, **fields: object) -> SymbolAlias:
    row = SymbolAlias(alias=text, symbol=symbol, **fields)
    row.full_clean()
    row.save()
    return row


def instrument(account: Account, symbol: str) -> None:
    """``account`` has been told the rules of ``symbol``."""
    Instrument.objects.create(
        account=account,
        symbol=symbol,
        venue_symbol=symbol,
        base="x",
        quote="y",
        quantity_step=1,
        price_tick=1,
        refreshed_at="2026-01-01T00:00Z",
    )


def test_an_accounts_own_alias_comes_before_that_of_all() -> None:
    mine, other = AccountFactory.create(), AccountFactory.create()
    alias("GOLD", "XAU/USD")
    alias("GOLD", "PAXG/USDT", account=mine)

    assert symbol_for(mine, "gold", TODAY) == "PAXG/USDT"
    assert symbol_for(other, "gold", TODAY) == "XAU/USD"


def test_a_continuous_future_is_the_contract_of_the_day() -> None:
    account = AccountFactory.create()
    roll = TODAY + 10 * DAY
    alias("ES1!", "ES/USD:USD-261218", valid_until=roll)
    alias("ES1!", "ES/USD:USD-270319", valid_from=roll + DAY, valid_until=roll + 90 * DAY)

    contracts = {
        day: symbol_for(account, "CME_MINI:ES1!", day) for day in (TODAY, roll, roll + DAY)
    }
    assert contracts == {
        TODAY: "ES/USD:USD-261218",
        roll: "ES/USD:USD-261218",
        roll + DAY: "ES/USD:USD-270319",
    }


@pytest.mark.parametrize("symbol", ["ES 12-26", "BRK.B/USD"])
def test_a_symbol_the_account_trades_is_known_by_its_own_name(symbol: str) -> None:
    mine, other = AccountFactory.create(), AccountFactory.create()
    instrument(mine, symbol)

    assert symbol_for(mine, symbol, TODAY) == symbol
    with pytest.raises(UnknownSymbolError):
        symbol_for(other, symbol, TODAY)


def test_a_table_that_has_run_out_is_named() -> None:
    account = AccountFactory.create()
    alias("ES1!", "ES/USD:USD-260918", valid_until=TODAY - DAY)

    with pytest.raises(UnknownSymbolError, match="until 2026-11-20 is not valid on 2026-11-21"):
        symbol_for(account, "ES1!", TODAY)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("ES1!", {}),
        ("ES1!", {"valid_from": TODAY}),
        ("X", {"valid_from": TODAY, "valid_until": TODAY - DAY}),
    ],
)
def test_an_alias_that_makes_no_sense_is_not_saved(text: str, fields: dict[str, date]) -> None:
    with pytest.raises(ValidationError) as refused:
        alias(text, "ES/USD:USD-261218", **fields)
    assert set(refused.value.message_dict) == {"valid_until"}


def test_what_may_have_been_meant() -> None:
    account = AccountFactory.create()
    alias("BINANCE:GOLDUSDT", "PAXG/USDT")
    for symbol in ("BTC/USDT", "ETH/USDT"):
        instrument(account, symbol)

    assert suggestions(account, "BTCUSTD") == ["BTC/USDT"]
    assert suggestions(account, "KRAKEN:GOLDUSD") == ["PAXG/USDT"]
    assert suggestions(account, "AAPL") == []
    assert suggestions(AccountFactory.create(), "BTCUSTD") == []
