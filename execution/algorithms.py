"""Which algorithm works an order, and whose word that is.

The narrower word counts: the alert's before the route's, the route's before the strategy's. An alert
may choose among what its strategy allows.
"""

from __future__ import annotations

from dataclasses import dataclass

from execution.alerts import Alert, Algorithm
from execution.models import Order, Route
from execution.watching import OWN_ALERT
from risk.types import ReasonCode, Refusal, Verdict

RULE = "execution"
"""The line of an order's verdicts that says how it is sent."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How an order is sent. ``why`` is a sentence for people; empty where nobody asked for anything."""

    algorithm: Algorithm
    why: str = ""

    @property
    def notes(self) -> tuple[Verdict, ...]:
        """It as a line among the order's verdicts, where there is something to say."""
        said = Verdict(rule=RULE, passed=True, detail=f"{self.algorithm.value}: {self.why}")
        return (said,) if self.why else ()


def chosen(order: Order, alert: Alert, route: Route) -> Choice:
    """How ``order`` is sent. Raises Refusal EXECUTION_NOT_ALLOWED for an entry whose alert asks for
    what its strategy does not allow; an exit that does goes as the route or the strategy says.
    """
    if _never_waits(order):
        return Choice(Algorithm.WHOLE)
    return _divided(alert, _of_exit(alert, route) if order.is_exit else _of_entry(alert, route))


def of_entry(alert: Alert, route: Route) -> Choice:
    """How an entry of ``route`` would be sent, before there is an order. Raises Refusal."""
    return _divided(alert, _of_entry(alert, route))


def _divided(alert: Alert, found: Choice) -> Choice:
    if not alert.divides_by(found.algorithm):
        cannot = f"this {alert.order_type.value} order cannot be divided as {found.algorithm.value}"
        return Choice(Algorithm.WHOLE, f"{cannot} ({found.why})")
    return found


def _never_waits(order: Order) -> bool:
    """Whether ``order`` makes room for the other side of a reversal, or is a close of FKS's own: a
    target that was reached, a position whose stop is missing.
    """
    is_own = order.signal is None or order.signal.auth == OWN_ALERT
    return order.is_exit and (order.reverses or is_own)


def _of_exit(alert: Alert, route: Route) -> Choice:
    usual = _usual(route, route.exit_execution, route.strategy.exit_execution)
    try:
        return _asked_for(alert, route, usual)
    except Refusal as refusal:
        return Choice(usual.algorithm, refusal.detail)


def _of_entry(alert: Alert, route: Route) -> Choice:
    usual = _usual(route, route.execution, route.strategy.execution)
    return _asked_for(alert, route, usual)


def _asked_for(alert: Alert, route: Route, usual: Choice) -> Choice:
    asked, strategy = alert.execution, route.strategy
    if asked is None or asked is usual.algorithm:
        return usual
    if asked in strategy.alerts_may_ask:
        return Choice(asked, "the alert asks for it")
    raise Refusal(
        ReasonCode.EXECUTION_NOT_ALLOWED,
        f"the alert asks for {asked.value}; {strategy.slug} lets alerts choose "
        f"{strategy.allowed_executions or 'nothing'}",
        {"asked": asked.value, "allowed": strategy.allowed_executions},
    )


def _usual(route: Route, on_route: str, on_strategy: str) -> Choice:
    """What the route says, else its strategy."""
    if on_route:
        return Choice(Algorithm(on_route), f"set on the route to {route.account.name}")
    algorithm = Algorithm(on_strategy)
    return Choice(algorithm, "" if algorithm is Algorithm.WHOLE else "set on the strategy")
