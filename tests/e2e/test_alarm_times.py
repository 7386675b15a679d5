"""How long it takes until somebody hears of what cannot wait. Processes and receiver are real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.desk import binance_desk
from tests.e2e.product import eventually, running_product
from tests.receiver import Receiver, receiver
from tests.venues.client import running_venue
from tests.venues.faults import Action, Endpoint, Fault, When

__all__ = ["receiver"]

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(240)]

NEEDS_OPERATOR_S = 5
NAKED_S = 10
CHANNEL = """
from risk.channels import Channel, Severity
channel = Channel(name="desk", least_severity=Severity.ALARM)
channel.save()
channel.seal({address!r})
channel.save()
"""
MOVED_AT = """
SELECT extract(epoch FROM at)::float FROM execution_orderevent WHERE event = 'give_up'
"""
FILLED_AT = "SELECT extract(epoch FROM min(at))::float FROM execution_fill"
SILENT_FOR_LONG = """
UPDATE execution_order SET unanswered_since = now() - interval '6 minutes'
WHERE state = 'unknown'
"""
UNKNOWN = "SELECT count(*) FROM execution_order WHERE state = 'unknown'"
ALARM_ROW_S = """
SELECT extract(epoch FROM raised_at)::float FROM execution_alarm WHERE kind = %s
"""
REFUSED = Fault(Action.CODE, When.BEFORE, code="-2010", venue="binance", count=20)
SILENT = Fault(Action.STATUS, When.BEFORE, Endpoint.QUERY, status=503)
LOST = Fault(Action.DROP, When.BEFORE)


def test_a_naked_position_and_an_order_that_needs_an_operator_are_told_in_time(
    tmp_path: Path, receiver: Receiver, record_property: Callable[[str, object], None]
) -> None:
    with running_venue() as venue, running_product(tmp_path / "var") as product:
        path = binance_desk(product, venue)
        product.within(CHANNEL.format(address=receiver.address))
        entry = {"symbol": "BTCUSDT", "action": "buy", "order_type": "limit", "price": "59000"}
        entry |= {"quantity": "0.01", "stop_loss": "58000"}
        _, answer = product.post(path, entry, {"Prefer": "wait=10"})
        assert answer["status"] == "working", answer

        venue.control.queue_faults(REFUSED)
        venue.control.set_price("binance", "BTC/USDT", 58900, 0)
        naked_at = eventually(
            lambda: receiver.told_at("position without its stop"), seconds=60, what="the alarm"
        )
        ((filled_at,),) = product.rows(FILLED_AT)
        record_property("naked position told after, s", round(naked_at - filled_at, 2))
        assert naked_at - filled_at < NAKED_S

        venue.control.set_fault_rates(SILENT)
        venue.control.queue_faults(LOST)
        product.post(path, {"symbol": "ETHUSDT", "action": "buy", "quantity": "0.1"})
        eventually(lambda: product.rows(UNKNOWN) == [(1,)], seconds=60, what="an unknown order")

        def told_of_silence() -> float | None:
            product.rows(SILENT_FOR_LONG)  # each time: a question under way may undo it
            return receiver.told_at("Needs operator")

        told_at = eventually(told_of_silence, seconds=60, what="the other alarm")
        ((moved_at,),) = product.rows(MOVED_AT)
        record_property("needs operator told after, s", round(told_at - moved_at, 2))
        assert told_at - moved_at < NEEDS_OPERATOR_S
        ((raised_at,),) = product.rows(ALARM_ROW_S, "needs_operator")
        assert raised_at - moved_at < NEEDS_OPERATOR_S
