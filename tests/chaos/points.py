"""The cells of a chaos run: where a process dies, and what the venue does to the order."""

from __future__ import annotations

from enum import StrEnum

from tests.venues.faults import Action, Endpoint, Fault, When

TIMEOUT = 1
"""Seconds after which an account of the run gives a placement up."""
SETTLE = 2
"""Seconds within which the venue of the run shows every order it took."""
LATE_S = 1.2
"""A late order turns up after this and the delay of every order: together no more than SETTLE."""
HIDDEN_MS = 800
HANG_S = 1.3


class Point(StrEnum):
    """A moment in the life of an alert or order at which the process that holds it is killed.

    The stalls do not kill: the thread sleeps until long after its lease, then goes on.
    """

    NOT_STORED = "C1 delivery not stored"
    STORED = "C2 stored, not answered"
    NOT_PUBLISHED = "C3 answered, not published"
    PUBLISHED = "C4 published"
    DECIDING = "C5 decision not committed"
    DECIDED = "C5 decision committed"
    CLAIMING = "C5 claim not committed"
    CLAIMED = "C5 claimed, nothing sent"
    HALF_SENT = "C6 half of the request sent"
    UNREAD = "C7 venue acted, answer unread"
    KNOWN = "C8 outcome known, not booked"
    BOOKING = "C8 outcome not committed"
    BOOKED = "C9 outcome committed"
    ASKING = "C10 before the question"
    ASKED = "C10 answer not booked"
    FINDING = "C10 finding not committed"
    RESENDING = "C10 resend not committed"
    CANCELED = "C10 cancel sent, not read back"
    STALL_CLAIMED = "F11 stalled after the claim"
    STALL_SIGNED = "F11 stalled after signing"


STALLS = frozenset({Point.STALL_CLAIMED, Point.STALL_SIGNED})
NO_FAULT = "none"
_CODES = {"binance": "-1007", "kraken": "EService:Unavailable"}

FAULTS: dict[str, Fault | None] = {
    NO_FAULT: None,
    "dropped before": Fault(Action.DROP, When.BEFORE),
    "dropped after": Fault(Action.DROP, When.AFTER),
    "503 before": Fault(Action.STATUS, When.BEFORE, status=503),
    "500 after": Fault(Action.STATUS, When.AFTER, status=500),
    "502 after": Fault(Action.STATUS, When.AFTER, status=502),
    "504 after": Fault(Action.STATUS, When.AFTER, status=504),
    "429 before": Fault(Action.STATUS, When.BEFORE, status=429),
    "429 after": Fault(Action.STATUS, When.AFTER, status=429),
    "ambiguous code before": Fault(Action.CODE, When.BEFORE, code="-1007"),
    "ambiguous code after": Fault(Action.CODE, When.AFTER, code="-1007"),
    "connection cut": Fault(Action.TRUNCATE),
    "cut JSON": Fault(Action.CUT_JSON),
    "empty 200": Fault(Action.EMPTY),
    "HTML 200": Fault(Action.HTML),
    "hang before": Fault(Action.HANG, When.BEFORE, seconds=HANG_S),
    "hang after": Fault(Action.HANG, When.AFTER, seconds=HANG_S),
    "late acceptance": Fault(Action.LATE, seconds=LATE_S),
    "delayed fills": Fault(Action.DELAY_FILLS, seconds=0.7),
}
"""What the venue does to the first placement of an order that reaches it."""


def fault_for(name: str, venue: str) -> Fault | None:
    """The fault called ``name`` in the words of ``venue``."""
    fault = FAULTS[name]
    if fault is None or not fault.code:
        return fault
    return Fault(fault.action, fault.when, code=_CODES[venue])


def possible(point: Point, fault: str) -> bool:
    """Whether an order that meets ``fault`` can reach ``point``: only a lost one is sent again."""
    return point is not Point.RESENDING or fault.endswith("before")


CELLS = [(point, fault) for point in Point for fault in FAULTS if possible(point, fault)]

BACKGROUND = (
    Fault(Action.DROP, When.BEFORE, Endpoint.QUERY, probability=0.02),
    Fault(Action.STATUS, When.BEFORE, Endpoint.QUERY, probability=0.02),
    Fault(Action.HTML, endpoint=Endpoint.QUERY, probability=0.01),
    Fault(Action.DOUBLE_FILLS, endpoint=Endpoint.QUERY, probability=0.2),
    Fault(Action.DROP, When.BEFORE, Endpoint.CANCEL, probability=0.1),
    Fault(Action.DROP, When.AFTER, Endpoint.CANCEL, probability=0.1),
    Fault(Action.STATUS, When.AFTER, Endpoint.CANCEL, status=500, probability=0.1),
    Fault(Action.DROP, When.BEFORE, Endpoint.PUBLIC, probability=0.002),
)
"""What happens to any question and any cancel, at random, all the time."""
