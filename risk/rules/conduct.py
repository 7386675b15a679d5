"""How a strategy behaves: what looks like a machine that has run wild stops it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from risk.rules.parameters import Parameter, seconds, share
from risk.rules.registry import Start, Unit, compared, failed, passed, rule
from risk.types import Facts, Intent, Limit, ReasonCode, Size, Verdict


@rule(
    "repeated_execution",
    label="repeated execution",
    unit=Unit.ORDERS,
    default="1000",
    help="Entries of the strategy within the window, this one included. One more halts the strategy "
    "until an operator resumes it; then the count begins anew.",
    parameters=[Parameter("window", seconds, "60", "seconds the entries are counted over")],
    needs=["entries_within"],
    start=Start.ENFORCE,
    halts=True,
)
def repeated_execution(
    limit: Limit, intent: Intent, size: Size, facts: Facts, settings: Mapping[str, Any]
) -> Verdict:
    window: int = settings["window"]
    count = (facts.book.entries_within or {}).get(window)
    if count is None:
        return failed(limit, ReasonCode.REPEATED_EXECUTION, "earlier entries are not known")
    return compared(limit, f"entries within {window} s", Decimal(count + 1), limit.value)


@rule(
    "reject_streak",
    label="rejections in a row",
    unit=Unit.TIMES,
    default="10",
    help="Entries of the strategy the venue rejected in a row, which halt the strategy until an "
    "operator resumes it.",
    needs=["rejects"],
    start=Start.ENFORCE,
    halts=True,
)
def reject_streak(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    if facts.book.rejects is None:
        return failed(limit, ReasonCode.REJECT_STREAK, "earlier orders are not known")
    count = facts.book.rejects.count
    if count < limit.value:
        return passed(limit, f"{count} rejections in a row", used=count / limit.value)
    detail = f"the venue rejected {count} orders of the strategy in a row ({limit.scope})"
    return failed(limit, ReasonCode.REJECT_STREAK, detail, measured=Decimal(count))


@rule(
    "message_rate",
    label="messages to the venue",
    unit=Unit.MESSAGES,
    default="100",
    help="Orders and cancels sent for the account within the window. An order over it waits its turn "
    "and is not refused; one that becomes too old meanwhile expires.",
    parameters=[
        Parameter("window", seconds, "1", "seconds the messages are counted over"),
        Parameter("kept", share, "0.25", "share of them kept for exits and cancels"),
    ],
    start=Start.ENFORCE,
    least=Decimal(1),
)
def message_rate(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    return passed(limit, "counted when it is sent")


def may_send(value: Decimal, kept: Decimal, sent: int, *, is_exit: bool) -> bool:
    """Whether one more order may go out now, after ``sent`` messages within the window.

    Entries leave the share ``kept`` to exits and cancels; an entry can always go out alone.
    """
    most = value if is_exit else max(value * (1 - kept), Decimal(1))
    return sent + 1 <= most
