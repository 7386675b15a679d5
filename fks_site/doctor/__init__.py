"""What is wrong with this installation, and what to do about it: ``manage.py doctor``."""

from __future__ import annotations

from collections.abc import Mapping

from fks_site.doctor import machine, trading
from fks_site.doctor.findings import Check, Finding

__all__ = ["CHECKS", "Finding"]

CHECKS: Mapping[str, Check] = {
    "settings": machine.configuration,
    "disk": machine.disk,
    "database": machine.database,
    "clock": machine.clock,
    "queue": machine.queue,
    "worker and beat": machine.programs,
    "credentials": trading.credentials,
    "accounts": trading.accounts,
    "strategies": trading.strategies,
    "aliases": trading.aliases,
    "limits": trading.limits,
    "what limits name": trading.limited,
    "switches": trading.switches,
    "alarms": trading.alarms,
    "orders": trading.orders,
    "audit trail": machine.audit_role,
}
