"""Alerts sent and worked off at a scripted venue, and what is held afterwards."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from brokers.models import Account
from execution import tasks
from execution.models import Position, Signal, Strategy
from tests.factories import SignalFactory

LANE = "BTC/USDT"


def send(strategy: Strategy, action: str = "buy", auth: str = "token", **alert: Any) -> Signal:
    """An alert as it is stored; nobody has decided it."""
    body = {"symbol": LANE, "action": action} | alert
    return SignalFactory.create(strategy=strategy, action=action, alert=body, auth=auth)


def process(signal: Signal) -> Signal:
    """Decided, as far as that is possible now."""
    tasks.process_signal(str(signal.pk))
    signal.refresh_from_db()
    return signal


def held(account: Account) -> Decimal:
    row = Position.objects.filter(account=account, symbol=LANE).first()
    return row.quantity if row else Decimal(0)
