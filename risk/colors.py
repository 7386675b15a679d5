"""How pages colour breakers, the kill switch and what limits did."""

from __future__ import annotations

from risk.models import CircuitBreaker, LimitHit, TradingState

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
HIT_COLORS = {
    LimitHit.Kind.DENIED: "danger",
    LimitHit.Kind.OBSERVED: "info",
    LimitHit.Kind.WARNED: "warning",
}
