"""The Interactive Brokers driver over a real agent process, ib_async and an imitation of TWS: what it
sends, and the prices it reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from brokers.errors import QuoteUnavailableError, UnknownSymbolError
from brokers.types import OrderType, Outcome, Side, TimeInForce
from tests.brokers.contract import ref
from tests.brokers.terminals import ib
from tests.brokers.terminals.rigs import SHARE, IbRig, ib_agent

FUTURE = (
    '[instruments."ES 12-26"]\nsymbol = "ES"\nmax_quantity = "1000"\ntype = "FUT"\n'
    'exchange = "CME"\ncurrency = "USD"\nexpiry = "202612"\noutside_rth = true\n'
)
CORN = (
    '[instruments."ZC 12-26"]\nsymbol = "ZC"\nmax_quantity = "1000"\ntype = "FUT"\n'
    'exchange = "CBOT"\ncurrency = "USD"\ntick = "0.5"\n'
)
COIN = (
    '[instruments."BTC/USD"]\nsymbol = "BTC"\nmax_quantity = "10"\ntype = "CRYPTO"\n'
    'exchange = "PAXOS"\ncurrency = "USD"\n'
)
OTHERS = [
    ib.share(
        51,
        symbol="ES",
        secType="FUT",
        exchange="CME",
        expiry="202612",
        multiplier="50",
        localSymbol="ESZ6",
        minTick="0.25",
        validExchanges="CME",
        marketRuleIds="",
        minSize="1",
        sizeIncrement="1",
        bid=Decimal(6000),
        ask=Decimal("6000.25"),
    ),
    ib.share(
        52,
        symbol="ZC",
        secType="FUT",
        exchange="CBOT",
        multiplier="5000",
        priceMagnifier="100",
        minSize="1",
        sizeIncrement="1",
        bid=Decimal(450),
        ask=Decimal("450.25"),
    ),
    ib.share(
        53,
        symbol="BTC",
        secType="CRYPTO",
        exchange="PAXOS",
        marketRuleIds="",
        minSize="0.00000001",
        sizeIncrement="0.00000001",
        minTick="0.25",
    ),
]


@pytest.fixture
def varied(tmp_path: Path) -> Iterator[IbRig]:
    tws = ib.Tws(contracts=[ib.share(), *OTHERS])
    with ib.running(tws) as port:
        agent = ib_agent(tmp_path, tws, port, instruments=SHARE + FUTURE + CORN + COIN)
        agent.start()
        yield IbRig(tws, agent)
        agent.kill()


def test_numbers_leave_as_plain_text(varied: IbRig) -> None:
    request = varied.limit(
        "1000.25", symbol="BTC/USD", quantity=Decimal("0.00000001"), side=Side.BUY
    )
    assert varied.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    told = varied.sent()[0]
    assert (told["totalQuantity"], told["lmtPrice"]) == ("0.00000001", "1000.25")
    assert (told["orderType"], told["tif"], told["transmit"]) == ("LMT", "GTC", "1")
    assert told["orderRef"] == varied.plugin.client_order_id(request.identity)
    assert (told["account"], told["auxPrice"], told["outsideRth"]) == ("DU1234567", "", "0")


def test_every_type_of_order_has_its_own_fields(ib_rig: IbRig) -> None:
    stop = {"stop_price": Decimal(55000)}
    requests = [
        ib_rig.order(time_in_force=TimeInForce.DAY),
        ib_rig.order(side=Side.SELL, type=OrderType.STOP, **stop),
        ib_rig.order(side=Side.SELL, type=OrderType.STOP_LIMIT, price=Decimal(54000), **stop),
        ib_rig.order(side=Side.SELL, type=OrderType.TRAILING_STOP, trailing_percent=Decimal("1.5")),
    ]
    for request in requests:
        assert ib_rig.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    names = ("action", "orderType", "tif", "lmtPrice", "auxPrice", "trailingPercent")
    assert [tuple(told[name] for name in names) for told in ib_rig.sent()] == [
        ("BUY", "MKT", "DAY", "", "", ""),
        ("SELL", "STP", "GTC", "", "55000", ""),
        ("SELL", "STP LMT", "GTC", "54000", "55000", ""),
        ("SELL", "TRAIL", "GTC", "", "", "1.5"),
    ]


def test_a_contract_is_as_many_units_as_its_price_counts(varied: IbRig) -> None:
    rules = varied.plugin.instrument("ES 12-26")
    assert (rules.quantity_step, rules.price_tick) == (Decimal(50), Decimal("0.25"))
    assert (rules.base, rules.quote, rules.venue_symbol) == ("ES", "USD", "ESZ6")
    assert rules.market_type == "future"
    request = varied.order(symbol="ES 12-26", quantity=Decimal(100))
    assert varied.plugin.execute_order(request).outcome is Outcome.ACCEPTED
    assert (varied.sent()[0]["totalQuantity"], varied.sent()[0]["outsideRth"]) == ("2", "1")
    report = varied.plugin.fetch_order(ref(request))
    assert report is not None
    assert report.quantity == report.filled_quantity == Decimal(100)
    assert report.average_price == Decimal("6000.25")
    held = varied.plugin.positions()
    assert [(p.symbol, p.quantity, p.average_price) for p in held] == [
        ("ES 12-26", Decimal(100), Decimal("6000.25"))
    ]
    half = varied.plugin.execute_order(varied.order(symbol="ES 12-26", quantity=Decimal(25)))
    assert half.outcome is Outcome.NOT_SENT


def test_the_best_prices_come_with_their_sizes_in_units(varied: IbRig) -> None:
    quote, book = varied.plugin.fetch_data("ES 12-26"), varied.plugin.order_book("ES 12-26")
    assert [(one.price, one.quantity) for one in book.bids] == [(quote.bid, Decimal(5000))]
    assert [(one.price, one.quantity) for one in book.asks] == [(quote.ask, Decimal(5000))]


def test_prices_in_cents_count_as_cents(varied: IbRig) -> None:
    rules = varied.plugin.instrument("ZC 12-26")
    assert (rules.quantity_step, rules.price_tick) == (Decimal(50), Decimal("0.5"))


def test_a_shares_tick_is_the_widest_of_its_exchanges_rule(ib_rig: IbRig) -> None:
    rules = ib_rig.plugin.instrument("BRK.A/USD")
    assert (rules.price_tick, rules.quantity_step) == (Decimal("0.01"), Decimal(1))
    result = ib_rig.plugin.execute_order(ib_rig.limit("50000.001"))
    assert (result.outcome, ib_rig.sent()) == (Outcome.NOT_SENT, [])


@pytest.mark.parametrize("count", [0, 2])
def test_a_symbol_that_is_not_one_contract_is_refused(ib_rig: IbRig, count: int) -> None:
    ib_rig.tws.contracts = [ib.share(4242 + number) for number in range(count)]
    result = ib_rig.plugin.execute_order(ib_rig.order())
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "UNKNOWN_SYMBOL")
    with pytest.raises(UnknownSymbolError, match=f"{count} contracts"):
        ib_rig.plugin.instrument("BRK.A/USD")


def test_a_price_is_asked_anew(ib_rig: IbRig) -> None:
    assert ib_rig.plugin.fetch_data("BRK.A/USD").bid == Decimal(60000)
    ib_rig.tws.contracts[0].update(bid=Decimal("61000.5"), ask=Decimal(61001))
    quote = ib_rig.plugin.fetch_data("BRK.A/USD")
    assert (quote.bid, quote.ask) == (Decimal("61000.5"), Decimal(61001))
    ib_rig.tws.mute = {1}
    with pytest.raises(QuoteUnavailableError, match="no live bid and ask"):
        ib_rig.plugin.fetch_data("BRK.A/USD")


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_frozen_and_delayed_prices_are_none(ib_rig: IbRig, kind: int) -> None:
    ib_rig.tws.data_type = kind
    with pytest.raises(QuoteUnavailableError, match="no live bid and ask"):
        ib_rig.plugin.fetch_data("BRK.A/USD")


def test_without_a_subscription_there_is_no_price(ib_rig: IbRig) -> None:
    ib_rig.tws.contracts[0]["no_price"] = 354
    with pytest.raises(QuoteUnavailableError, match=r"not subscribed \(354\)"):
        ib_rig.plugin.fetch_data("BRK.A/USD")
    ib_rig.tws.mute = {1}
    del ib_rig.tws.contracts[0]["no_price"]
    with pytest.raises(QuoteUnavailableError):
        ib_rig.plugin.fetch_data("BRK.A/USD")
    assert ib_rig.plugin.health_check().ok
