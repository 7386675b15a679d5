"""Strategies and what happened: signals, orders with their journal, fills, positions."""

from __future__ import annotations

from execution.models.adoptions import Adoption
from execution.models.alarms import Alarm
from execution.models.funding import FundingPayment
from execution.models.heartbeat import Heartbeat
from execution.models.orders import (
    COUNTED,
    IMMEDIATE,
    SIGNED,
    Fill,
    Order,
    OrderEvent,
    SideChoices,
    TimeInForceChoices,
    TypeChoices,
)
from execution.models.plans import SlicePlan
from execution.models.positions import (
    AccountDay,
    Difference,
    EquitySample,
    Position,
    Protection,
)
from execution.models.routes import Route
from execution.models.routing import RoutingDecision
from execution.models.signals import IdempotencyKey, QuarantinedBody, Signal
from execution.models.spreads import SpreadWatch
from execution.models.strategies import Strategy, WebhookSecret

__all__ = [
    "COUNTED",
    "IMMEDIATE",
    "SIGNED",
    "AccountDay",
    "Adoption",
    "Alarm",
    "Difference",
    "EquitySample",
    "Fill",
    "FundingPayment",
    "Heartbeat",
    "IdempotencyKey",
    "Order",
    "OrderEvent",
    "Position",
    "Protection",
    "QuarantinedBody",
    "Route",
    "RoutingDecision",
    "SideChoices",
    "Signal",
    "SlicePlan",
    "SpreadWatch",
    "Strategy",
    "TimeInForceChoices",
    "TypeChoices",
    "WebhookSecret",
]
