"""What a sender's alert comes to on an account: from its own words to the orders."""

from __future__ import annotations

from decimal import Decimal

import pytest

from execution import dispatch, pipeline
from execution.formats import FORMATS
from execution.models import Order, Position, Route
from tests.factories import PositionFactory, RouteFactory, SignalFactory, allow_trading

pytestmark = pytest.mark.django_db(transaction=True)

ENTER_SHORT = [
    ("3commas", b'{"tv_instrument": "BTCUSDT", "action": "enter_short"}'),
    ("okx", b'{"instrument": "BTCUSDT", "action": "ENTER_SHORT", "orderType": "market"}'),
    ("traderspost", b'{"ticker": "BTCUSDT", "action": "sell"}'),
]
HALF = [
    (
        "fks",
        b'{"symbol": "BTCUSDT", "action": "sell", "quantity": 2, "market_position": "long",'
        b' "stop_loss": NaN}',
    ),
    (
        "okx",
        b'{"instrument": "BTCUSDT", "action": "sell", "marketPosition": "long",'
        b' "orderType": "limit", "investmentType": "base", "amount": "2"}',
    ),
    ("keyvalue", b"s=BTCUSDT c=position q=50%"),
    ("keyvalue", b"s=BTCUSDT c=position b=long q=50% delay=5 sl=0"),
    (
        "3commas",
        b'{"tv_instrument": "BTCUSDT", "action": "exit_long", "trigger_price": NaN,'
        b' "order": {"amount": 50, "currency_type": "position_percent"}}',
    ),
    (
        "okx",
        b'{"instrument": "BTCUSDT", "action": "EXIT_LONG",'
        b' "investmentType": "percentage_position", "amount": "50"}',
    ),
    (
        "traderspost",
        b'{"ticker": "BTCUSDT", "action": "exit", "quantityType": "percent_of_position",'
        b' "quantity": 50, "cancel": true, "stopLoss": {"type": "trailing_stop"}}',
    ),
]
ALL = [
    ("keyvalue", b"s=BTCUSDT c=position q=100%"),
    ("keyvalue", b"s=BTCUSDT c=position b=long p=0"),
    ("pineconnector", b"60123456789,closelong,BTCUSDT,risk=0.1,sl=50"),
    ("openalgo", b'{"symbol": "BTCUSDT", "action": "SELL", "position_size": 0, "quantity": NaN}'),
    (
        "3commas",
        b'{"tv_instrument": "BTCUSDT", "action": "exit_long",'
        b' "order": {"amount": 100, "currency_type": "position_percent"}}',
    ),
    (
        "3commas",
        b'{"tv_instrument": "BTCUSDT", "action": "disable",'
        b' "positions_sub_action": "market_close"}',
    ),
    (
        "traderspost",
        b'{"ticker": "BTCUSDT", "action": "exit", "quantityType": "risk_dollar_amount",'
        b' "extendedHours": true, "timeInForce": "cls"}',
    ),
    ("fks", b'{"symbol": "BTCUSDT", "action": "close", "confidence": 5, "stop_loss": NaN}'),
]


@pytest.fixture
def route() -> Route:
    """A paper account, long 4 BTC, on a route of 1 BTC."""
    allow_trading()
    route: Route = RouteFactory.create(quantity=Decimal(1))
    PositionFactory.create(account=route.account, quantity=Decimal(4))
    return route


def carried_out(route: Route, sender: str, body: bytes) -> list[tuple[str, str, Decimal]]:
    format = FORMATS[sender]
    options = {"options": {}} if format.has_options else {}
    alert = format.parse(format.read(body), **options)
    signal = SignalFactory.create(
        strategy=route.strategy,
        action=alert.action.value,
        symbol=alert.symbol,
        alert=alert.to_json(),
    )
    for _ in range(2):
        for account_id, symbol in pipeline.decide(signal).lanes:
            dispatch.run_lane(account_id, symbol)
    return list(Order.objects.order_by("id").values_list("role", "side", "quantity"))


@pytest.mark.parametrize(("sender", "body"), ENTER_SHORT)
def test_an_entry_without_an_amount_leaves_nothing_of_the_other_side(
    route: Route, sender: str, body: bytes
) -> None:
    assert carried_out(route, sender, body) == [
        ("exit", "sell", Decimal(4)),
        ("entry", "sell", Decimal(1)),
    ]
    assert Position.objects.get().quantity == Decimal(-1)


@pytest.mark.parametrize(("sender", "body"), HALF)
def test_half_of_the_position_is_closed(route: Route, sender: str, body: bytes) -> None:
    assert carried_out(route, sender, body) == [("exit", "sell", Decimal(2))]
    assert Position.objects.get().quantity == Decimal(2)


@pytest.mark.parametrize(("sender", "body"), ALL)
def test_all_of_the_position_is_closed(route: Route, sender: str, body: bytes) -> None:
    assert carried_out(route, sender, body) == [("exit", "sell", Decimal(4))]
    assert Position.objects.get().quantity == 0
