"""How pages colour breakers and the kill switch."""

from __future__ import annotations

from risk.models import CircuitBreaker, TradingState

BREAKER_COLORS = {
    CircuitBreaker.State.CLOSED: "success",
    CircuitBreaker.State.HALF_OPEN: "warning",
    CircuitBreaker.State.OPEN: "danger",
}
TRADING_COLORS = {
    TradingState.State.ACTIVE: "success",
    TradingState.State.REDUCING: "warning",
    TradingState.State.HALTED: "danger",
}
