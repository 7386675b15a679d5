"""What an order has traded, where a venue tells that apart from how the order stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from brokers.errors import HeldBackError, QueryFailedError
from brokers.types import FillReport, OrderReport


def with_trades(
    report: OrderReport,
    ask: Callable[[], Sequence[FillReport]],
    again: Callable[[], OrderReport | None] = lambda: None,
    *,
    is_passing: Callable[[QueryFailedError], bool] = lambda _: False,
) -> OrderReport:
    """``report`` with the trades it speaks of, and without them where they cannot be read: that there
    are some is known all the same, and people hear of it within seconds.

    ``again`` reads the order once more, if it went on filling meanwhile. Raises QueryFailedError where
    the question was held back, and where ``is_passing`` says that another try may be answered.
    """
    if not report.filled_quantity:
        return report
    try:
        fills = tuple(ask())
    except HeldBackError:
        raise
    except QueryFailedError as error:
        if is_passing(error):
            raise
        return replace(report, reason=f"its trades cannot be read: {error}")
    if sum(fill.quantity for fill in fills) > report.filled_quantity:
        report = again() or report
    return replace(report, fills=fills)
