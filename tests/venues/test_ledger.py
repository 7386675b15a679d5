"""The books every imitated venue keeps."""

from __future__ import annotations

from decimal import Decimal
from itertools import count

from tests.venues.binance import rules
from tests.venues.clock import Clock
from tests.venues.ledger import Ledger
from tests.venues.market import Level, Side
from tests.venues.orders import OrderSpec, Status


class Ticking(Clock):
    """A millisecond passes with every look."""

    def __init__(self) -> None:
        super().__init__()
        self.times = count(1_800_000_000_000)

    def now_ms(self) -> int:
        return next(self.times)


def test_an_order_and_the_trades_that_fill_it_at_once_have_one_time() -> None:
    ledger = Ledger(rules.HOUSE, Ticking())
    market = next(iter(ledger.markets.values()))
    market.asks = [Level(market.last, Decimal("0.1")), Level(market.last)]
    spec = OrderSpec("main", market.instrument, Side.BUY, "one", Decimal("0.2"))

    order = ledger.place(spec)

    assert order.status is Status.FILLED
    assert len(order.trades) == 2
    assert {trade.time for trade in order.trades} == {order.updated_at, order.working_at}
